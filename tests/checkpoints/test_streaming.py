"""Weights stream into the arrays they are for, and out of them: the same bits everywhere."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from model_folders import assert_same_tensors, hugging_face_tensors, write_hugging_face
from one_of_two import counting
from safetensors.numpy import load_file, save_file

from grm_jax.checkpoints import blocks, huggingface, load_params, save_hugging_face, save_orbax
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import logical_axes, unroll
from grm_jax.model.quantization import quantize, quantized
from grm_jax.parallel.layout import Layout, make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh

CONFIG = Gemma2Config(24, 16, 40, 4, 8, 4, 6)  # four key/value heads stay whole among eight devices
ROOT = Path(__file__).parents[2]


LAYOUTS = {"one device": None} | {
    f"{table} {shape}": (table, shape)
    for table, shape in [
        ("train", (1, 8, 1)), ("train", (2, 2, 2)), ("train", (1, 2, 4)), ("decode", (1, 1, 8)), ("decode", (2, 1, 4)),
    ]
}  # fmt: skip


def layout(name: str) -> Layout:
    if LAYOUTS[name] is None:
        return Layout()
    table, shape = LAYOUTS[name]
    return getattr(make_layouts(TrainMesh(*shape), DecodeMesh(*shape)), table)


def stacked_by_hand(tensors, dtype):
    """The tree of a folder's tensors, all of them on the host: reshaped, transposed, stacked, cast."""
    c = CONFIG

    def turned(name, tensor):
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            return tensor.reshape(-1, c.head_dim, c.model_dim).transpose(2, 0, 1)
        if name.endswith("o_proj"):
            return tensor.reshape(c.model_dim, c.num_heads, c.head_dim).transpose(1, 2, 0)
        return tensor.T

    names = {
        "pre_attention_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
        "pre_mlp_norm": "pre_feedforward_layernorm", "post_mlp_norm": "post_feedforward_layernorm",
        "attention/query": "self_attn.q_proj", "attention/key": "self_attn.k_proj",
        "attention/value": "self_attn.v_proj", "attention/output": "self_attn.o_proj",
        "mlp/gate": "mlp.gate_proj", "mlp/up": "mlp.up_proj", "mlp/down": "mlp.down_proj",
    }  # fmt: skip
    tree = {"embedding": tensors["model.embed_tokens.weight"], "final_norm": tensors["model.norm.weight"]}
    for ours, theirs in names.items():
        for kind, first in (("local", 0), ("global", 1)):
            layers = range(first, c.num_layers, 2)
            tree[f"layers/{kind}/{ours}"] = np.stack(
                [turned(theirs, tensors[f"model.layers.{i}.{theirs}.weight"]) for i in layers]
            )
    return {path: leaf.astype(dtype) for path, leaf in tree.items()}


def flat(params):
    return flatten_dict(params, sep="/")


def stored(folder, dtype):
    tensors = hugging_face_tensors(CONFIG, "float32" if dtype == "float16" else dtype)
    if dtype == "float16":
        tensors = {name: np.sin(np.arange(t.size)).astype(np.float16).reshape(t.shape) for name, t in tensors.items()}
    return write_hugging_face(folder, CONFIG, tensors, shards=3), tensors


@pytest.fixture
def small_blocks(monkeypatch):
    """Leaves of many megabytes are cut into blocks; so that these are, blocks are small."""
    monkeypatch.setattr(blocks, "BLOCK", 200)


@pytest.fixture(params=["host", "device"])
def memory(request, monkeypatch):
    """Where devices have their memory: these on the host, accelerators on their own."""
    monkeypatch.setattr(blocks, "_on_host", lambda device: request.param == "host")
    return request.param


CASES = [(name, source, "float32") for name in LAYOUTS for source in ("float32", "bfloat16")] + [
    (name, *types)
    for name in ("one device", "train (2, 2, 2)")
    for types in (("float32", "bfloat16"), ("float16", None))
]


@pytest.mark.parametrize(("name", "source", "wanted"), CASES)
def test_every_layout_holds_the_bits_of_the_files(tmp_path, name, source, wanted, small_blocks):
    folder, tensors = stored(tmp_path / "in", source)
    expected = stacked_by_hand(tensors, wanted or "float32")
    config, params = load_params(folder, wanted, layout(name))
    assert config == CONFIG
    assert_same_tensors(flat(params), expected)
    where = layout(name).tree(logical_axes(CONFIG), params)
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == where
    _, apart = load_params(folder, wanted, layout(name), unrolled=True)
    assert_same_tensors(flat(apart), flat(unroll(unflatten_dict(expected, sep="/"))))
    where = layout(name).tree(logical_axes(CONFIG, unrolled=True), apart)
    assert jax.tree.map(lambda leaf: leaf.sharding, apart) == where


@pytest.mark.parametrize("name", ["one device", "train (2, 2, 2)"])
@pytest.mark.parametrize(("dtype", "cut"), [("float32", False), ("float32", True), ("bfloat16", True)])
def test_memory_of_its_own_is_filled_and_read_block_by_block(tmp_path, name, dtype, cut, memory, monkeypatch):
    if cut:
        monkeypatch.setattr(blocks, "BLOCK", 200)
    folder, tensors = stored(tmp_path / "in", dtype)
    config, params = load_params(folder, None, layout(name))
    assert_same_tensors(flat(params), stacked_by_hand(tensors, dtype))
    save_hugging_face(tmp_path / "out", config, params)
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), tensors)


@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("name", ["one device", "train (1, 8, 1)", "decode (2, 1, 4)"])
def test_orbax_folders_are_loaded_into_the_same_arrays(tmp_path, name, unrolled):
    folder, _ = stored(tmp_path / "in", "float32")
    save_orbax(tmp_path / "orbax", *load_params(folder))
    for dtype in (None, "bfloat16"):
        _, wanted = load_params(folder, dtype, layout(name), unrolled=unrolled)
        _, found = load_params(tmp_path / "orbax", dtype, layout(name), unrolled=unrolled)
        assert_same_tensors(flat(found), flat(wanted))
        assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, wanted)


@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("name", ["one device", "train (2, 2, 2)", "decode (2, 1, 4)"])
def test_weights_are_quantized_as_they_are_loaded(tmp_path, name, unrolled):
    """The values that the whole tree would have, on the devices that would hold them; of both kinds of folder."""
    folder, _ = stored(tmp_path / "in", "float32")
    save_orbax(tmp_path / "orbax", *load_params(folder))
    _, params = load_params(folder, None, unrolled=unrolled)
    expected = quantized(params)
    where = layout(name).tree(logical_axes(CONFIG, unrolled=unrolled), expected)
    for each in (folder, tmp_path / "orbax"):
        _, found = load_params(each, None, layout(name), unrolled=unrolled, form=quantize)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert jax.tree.map(lambda leaf: leaf.sharding, found) == where


def test_a_device_reads_what_it_holds(tmp_path, monkeypatch):
    """Of a divided model every number is read once, though there are eight devices."""
    folder, tensors = stored(tmp_path / "in", "float32")
    read: list[int] = []
    monkeypatch.setattr(huggingface, "open_tensors", counting(huggingface.open_tensors, read))
    load_params(folder, None, layout("train (1, 2, 4)"))
    assert sum(read) == sum(tensor.size for tensor in tensors.values())


def test_each_process_reads_what_its_own_devices_hold(tmp_path):
    folder, tensors = stored(tmp_path / "in", "float32")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    outputs = [tmp_path / f"{process}.npz" for process in range(2)]
    program = Path(__file__).with_name("one_of_two.py")
    commands = [
        [sys.executable, program, str(process), str(port), folder, output] for process, output in enumerate(outputs)
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    whole, seen = stacked_by_hand(tensors, "float32"), {}
    for output in outputs:
        found = dict(np.load(output))
        read = int(found.pop("read"))
        assert read < 0.6 * sum(tensor.size for tensor in tensors.values())  # half, and norms that both hold
        for name, shard in found.items():
            path, start = name.replace("|", "/").split(":")
            index = tuple(slice(int(i), int(i) + n) for i, n in zip(start.split(","), shard.shape, strict=True))
            np.testing.assert_array_equal(shard, whole[path][index])
            seen.setdefault(path, np.zeros(whole[path].shape, bool))[index] = True
    assert seen.keys() == whole.keys() and all(covered.all() for covered in seen.values())


def test_blocks_cover_an_array_and_are_small(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    for shape, cut in (((5, 7, 11), 2), ((40, 3), 0), ((3, 500, 2), 1), ((1, 1), 0), ((2, 9, 40), 1)):
        found = blocks.blocks(shape, 4, cut)
        seen = np.zeros(shape, bool)
        for index in found:
            seen[index] = True
        assert seen.all()
        sizes = {tuple(where.stop - where.start for where in index) for index in found}
        assert len(sizes) == 1 and 4 * np.prod(sizes.pop()) <= 1000


def test_a_written_file_is_the_librarys_byte_for_byte(tmp_path):
    tensors = hugging_face_tensors(CONFIG, "bfloat16")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float32)
    folder = write_hugging_face(tmp_path / "in", CONFIG, tensors)
    save_hugging_face(tmp_path / "out", *load_params(folder, None, layout("train (2, 2, 2)")))
    save_file(tensors, tmp_path / "library.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()
