"""Hugging Face folders: exact in both directions, in memory bounds, and never half written."""

import json
import resource
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model_folders import (
    SMALL,
    assert_same_tensors,
    hugging_face_tensors,
    random_array,
    random_params,
    write_hugging_face,
)
from safetensors.numpy import load_file

from grm_jax.checkpoints.huggingface import load_hugging_face, save_hugging_face
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import abstract_params


def flat(params):
    return flatten_dict(params, sep="/")


def read_back(folder):
    """All tensors of a folder, by the safetensors library alone."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


@pytest.mark.parametrize("shards", [1, 3])
def test_theirs_to_ours_to_theirs_is_exact(tmp_path, config, dtype, shards):
    tensors = hugging_face_tensors(config, dtype)
    source = write_hugging_face(tmp_path / "in", config, tensors, shards)
    read_config, params = load_hugging_face(source)
    assert read_config == config
    save_hugging_face(tmp_path / "out", read_config, params)
    assert_same_tensors(read_back(tmp_path / "out"), tensors)


@pytest.mark.parametrize("max_shard_bytes", [1, 700, 5 * 2**30])
def test_ours_to_theirs_to_ours_is_exact(tmp_path, config, dtype, max_shard_bytes):
    params = random_params(config, dtype)
    save_hugging_face(tmp_path / "out", config, params, max_shard_bytes=max_shard_bytes)
    read_config, read = load_hugging_face(tmp_path / "out")
    assert read_config == config
    assert_same_tensors(flat(read), flat(params))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype


def test_device_arrays_are_saved_like_numpy_ones(tmp_path):
    params = random_params(SMALL, "bfloat16")
    on_device = {**params, "layers": {k: {**v} for k, v in params["layers"].items()}}
    on_device["layers"]["local"]["mlp"] = {k: jnp.asarray(v) for k, v in params["layers"]["local"]["mlp"].items()}
    on_device["embedding"] = jnp.asarray(params["embedding"])
    save_hugging_face(tmp_path / "out", SMALL, on_device)
    assert_same_tensors(flat(load_hugging_face(tmp_path / "out")[1]), flat(params))


def test_shards_stay_within_the_limit_and_the_index_is_right(tmp_path, config):
    params = random_params(config)
    limit = 700
    save_hugging_face(tmp_path / "out", config, params, max_shard_bytes=limit)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    total = 0
    for i, file in enumerate(files, 1):
        assert file.name == f"model-{i:05d}-of-{len(files):05d}.safetensors"
        tensors = load_file(file)
        sizes = [t.nbytes for t in tensors.values()]
        assert sum(sizes) <= limit or len(sizes) == 1
        assert {name for name, held_by in index["weight_map"].items() if held_by == file.name} == set(tensors)
        total += sum(sizes)
    assert index["metadata"]["total_size"] == total == sum(leaf.nbytes for leaf in flat(params).values())


@pytest.mark.parametrize(("stored", "wanted"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_stated_dtype_casts_every_weight(tmp_path, stored, wanted):
    tensors = hugging_face_tensors(SMALL, stored)
    source = write_hugging_face(tmp_path / "in", SMALL, tensors)
    _, params = load_hugging_face(source, wanted)
    expected = {name: leaf.astype(wanted) for name, leaf in flat(load_hugging_face(source)[1]).items()}
    assert_same_tensors(flat(params), expected)
    save_hugging_face(tmp_path / "out", SMALL, load_hugging_face(source)[1], dtype=wanted)
    assert_same_tensors(read_back(tmp_path / "out"), {name: t.astype(wanted) for name, t in tensors.items()})


def test_float16_is_widened_without_loss(tmp_path):
    tensors = {
        name: np.float16(np.linspace(-2, 2, t.size)).reshape(t.shape) for name, t in hugging_face_tensors(SMALL).items()
    }
    _, params = load_hugging_face(write_hugging_face(tmp_path / "in", SMALL, tensors))
    save_hugging_face(tmp_path / "out", SMALL, params)
    assert_same_tensors(read_back(tmp_path / "out"), {name: t.astype(np.float32) for name, t in tensors.items()})


def test_a_leaf_is_bfloat16_only_if_all_its_tensors_are(tmp_path):
    tensors = hugging_face_tensors(SMALL, "bfloat16")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(np.float32)
    _, params = load_hugging_face(write_hugging_face(tmp_path / "in", SMALL, tensors))
    wide = {path for path, leaf in flat(params).items() if leaf.dtype == np.float32}
    assert wide == {"layers/local/mlp/up"}


def test_an_equal_output_matrix_and_old_rotary_buffers_are_left_out(tmp_path, small_tensors):
    extra = {
        "lm_head.weight": small_tensors["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(1, np.float32),
    }
    source = write_hugging_face(tmp_path / "in", SMALL, small_tensors | extra)
    save_hugging_face(tmp_path / "out", *load_hugging_face(source))
    assert_same_tensors(read_back(tmp_path / "out"), small_tensors)


def test_loading_needs_the_model_and_little_more(tmp_path):
    config = Gemma2Config(64, 128, 512, 12, 4, 2, 32)
    tensors = hugging_face_tensors(config)
    source = write_hugging_face(tmp_path / "in", config, tensors, shards=2)
    model, largest = sum(t.nbytes for t in tensors.values()), max(t.nbytes for t in tensors.values())
    del tensors
    tracemalloc.start()
    _, params = load_hugging_face(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(leaf.nbytes for leaf in flat(params).values()) == model
    assert model < peak < model + 3 * largest < 1.5 * model


def test_progress_counts_every_tensor(tmp_path, small_folder, small_tensors):
    seen = []
    config, params = load_hugging_face(small_folder, progress=lambda done, total: seen.append((done, total)))
    save_hugging_face(tmp_path / "out", config, params, progress=lambda done, total: seen.append((done, total)))
    n = len(small_tensors)
    assert seen == 2 * [(i, n) for i in range(1, n + 1)]


@pytest.mark.parametrize("present", ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "params"])
def test_a_model_is_never_overwritten(tmp_path, present):
    (tmp_path / present).write_text("mine")
    with pytest.raises(UserError, match=f"already holds a model .{present}"):
        save_hugging_face(tmp_path, SMALL, random_params(SMALL))
    assert [p.name for p in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "mine"


def test_a_failed_write_leaves_no_file_that_looks_like_a_model(tmp_path):
    params = random_params(SMALL)
    save_hugging_face(tmp_path / "whole", SMALL, params, max_shard_bytes=1)
    first = min((tmp_path / "whole").glob("*.safetensors")).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (first, before[1]))  # the third is larger
    try:
        with pytest.raises(UserError, match=r"model-00003-of-\d+.safetensors: cannot be written: File too large"):
            save_hugging_face(tmp_path / "out", SMALL, params, max_shard_bytes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(p.name[:11] for p in (tmp_path / "out").iterdir()) == ["model-00001", "model-00002"]


def test_saving_checks_the_parameters_first(tmp_path):
    params = random_params(SMALL)
    broken = {**params, "final_norm": params["final_norm"][1:]}
    with pytest.raises(UserError, match=r"final_norm has shape \[7\], but config.json says \[8\]"):
        save_hugging_face(tmp_path / "out", SMALL, broken)
    with pytest.raises(UserError, match="1 parameters missing: final_norm"):
        save_hugging_face(tmp_path / "out", SMALL, {k: v for k, v in params.items() if k != "final_norm"})
    with pytest.raises(UserError, match="final_norm is float16"):
        save_hugging_face(tmp_path / "out", SMALL, {**params, "final_norm": np.zeros(8, np.float16)})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["float16", "int8", "double", "no such type"])
def test_other_dtypes_are_refused(small_folder, wrong):
    with pytest.raises(UserError, match="give float32 or bfloat16"):
        load_hugging_face(small_folder, wrong)


def test_dtypes_may_be_given_as_types(small_folder):
    for dtype in (ml_dtypes.bfloat16, jnp.bfloat16, np.dtype("bfloat16")):
        assert load_hugging_face(small_folder, dtype)[1]["embedding"].dtype == ml_dtypes.bfloat16


def test_saved_bytes_do_not_depend_on_memory_layout(tmp_path):
    params = random_params(SMALL)
    params["embedding"] = np.asfortranarray(random_array(params["embedding"].shape, "float32", "layout"))
    save_hugging_face(tmp_path / "out", SMALL, params)
    np.testing.assert_array_equal(read_back(tmp_path / "out")["model.embed_tokens.weight"], params["embedding"])


def test_written_files_follow_the_umask(tmp_path):
    config = Gemma2Config(
        vocab_size=8, model_dim=4, mlp_dim=4, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=2, max_length=16
    )
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_params(config))
    (tmp_path / "other").touch()
    save_hugging_face(tmp_path / "model", config, params)
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}
