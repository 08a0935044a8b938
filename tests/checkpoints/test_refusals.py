"""Folders that are damaged, hostile or of another model: each is refused in one line that names file and tensor."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
from model_folders import SMALL, stored_shapes, write_hugging_face
from safetensors.numpy import save_file

from grm_jax.checkpoints.folder import fingerprint, kind, leaves, load_params
from grm_jax.checkpoints.huggingface import load_hugging_face
from grm_jax.errors import UserError
from grm_jax.model.config import config_to_hugging_face

INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def refused(folder, *parts):
    """Loading fails with one line that holds all parts."""
    with pytest.raises(UserError) as error:
        load_hugging_face(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_pickles_are_refused_and_never_opened(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(config_to_hugging_face(SMALL)))
    (tmp_path / name).write_bytes(pickle.dumps(Marker(tmp_path / "opened")))
    refused(tmp_path, name, "pickled", "safetensors")
    for use in (load_params, kind, leaves, fingerprint):
        with pytest.raises(UserError, match="pickled"):
            use(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_a_pickle_named_like_safetensors_is_not_opened_either(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_to_hugging_face(SMALL)))
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Marker(tmp_path / "opened")))
    refused(tmp_path, "model.safetensors", "damaged or not a safetensors file")
    assert not (tmp_path / "opened").exists()


def test_pickles_beside_safetensors_are_ignored(small_folder):
    (small_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(small_folder / "opened")))
    load_hugging_face(small_folder)
    assert not (small_folder / "opened").exists()


# tensors


def test_missing_tensors_are_named_ten_at_most(tmp_path, small_tensors):
    gone = list(small_tensors)[2:14]
    folder = write_hugging_face(tmp_path / "in", SMALL, {k: v for k, v in small_tensors.items() if k not in gone})
    message = refused(folder, "12 tensors missing", "and 2 more")
    assert sum(name in message for name in gone) == 10


@pytest.mark.parametrize(
    "name", ["model.layers.2.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.lora_A", "score.weight"]
)
def test_unknown_tensors_are_named(tmp_path, small_tensors, name):
    folder = write_hugging_face(tmp_path / "in", SMALL, small_tensors | {name: np.zeros((5, 8), np.float32)})
    refused(folder, "model.safetensors", name)


@pytest.mark.parametrize(
    ("name", "shape"), [(UP, (8, 5)), (UP, (40,)), (EMBEDDING, (9, 8)), ("model.norm.weight", (1,))]
)
def test_wrong_shapes_are_refused(tmp_path, small_tensors, name, shape):
    # (9, 8) is an embedding padded beyond the vocabulary of 7: its extra rows would be sampled
    folder = write_hugging_face(tmp_path / "in", SMALL, small_tensors | {name: np.zeros(shape, np.float32)})
    refused(folder, "model.safetensors", name, str(list(shape)), str(list(stored_shapes(SMALL)[name])))


@pytest.mark.parametrize(
    ("dtype", "code"), [(np.int8, "I8"), (np.int64, "I64"), (np.float64, "F64"), (np.bool_, "BOOL")]
)
def test_other_number_types_are_refused(tmp_path, small_tensors, dtype, code):
    folder = write_hugging_face(tmp_path / "in", SMALL, small_tensors | {UP: np.zeros((5, 8), dtype)})
    refused(folder, "model.safetensors", UP, code)


def test_an_output_matrix_of_its_own_is_refused(tmp_path, small_tensors):
    head = small_tensors[EMBEDDING].copy()
    head[-1, -1] += 1
    folder = write_hugging_face(tmp_path / "in", SMALL, small_tensors | {"lm_head.weight": head})
    refused(folder, "model.safetensors", "lm_head.weight", EMBEDDING)


# config.json


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not valid JSON"),
        ("[1]", "JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
        ('{"model_type": "llama"}', "llama"),
        ('{"model_type": "gemma2"}', "vocab_size"),
    ],
    ids=["cut", "list", "deep", "no UTF-8", "llama", "no fields"],
)
def test_bad_configs_are_refused(small_folder, text, part):
    (small_folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(small_folder, "config.json", part)


def test_a_missing_config_is_named(small_folder):
    (small_folder / "config.json").unlink()
    refused(small_folder, "config.json", "no such file")


def test_a_folder_without_weights_is_refused(small_folder):
    (small_folder / "model.safetensors").unlink()
    refused(small_folder, "no model.safetensors")


# damaged safetensors


def header(text: bytes, data: bytes = b"\0" * 8) -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, stop, name="a"):
    return json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}}).encode()


DAMAGED = {
    "empty": b"",
    "shorter than a header length": b"abc",
    "header length overflow": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header length overflow when eight is added": struct.pack("<Q", 2**64 - 8) + b"{}",
    "header longer than the file": struct.pack("<Q", 2**20) + b"{}",
    "header is no JSON": header(b'{"a":'),
    "header is a list": header(b"[]"),
    "shape and bytes disagree": header(entry([3], 0, 8)),
    "shape overflows": header(entry([2**40, 2**40], 0, 8)),
    "negative size": header(entry([-2], 0, 8)),
    "offsets beyond the file": header(entry([200], 0, 800)),
    "offsets backwards": header(entry([2], 8, 0)),
    "unknown type": header(entry([2], 0, 8).replace(b"F32", b"F31")),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(small_folder, data):
    (small_folder / "model.safetensors").write_bytes(data)
    refused(small_folder, "model.safetensors", "damaged or not a safetensors file")


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files_are_refused(small_folder, keep):
    file = small_folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    refused(small_folder, "model.safetensors", "damaged or not a safetensors file")


# the index


@pytest.fixture
def sharded(tmp_path, small_tensors):
    return write_hugging_face(tmp_path / "sharded", SMALL, small_tensors, shards=2)


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "where", ["../outside.safetensors", "{tmp}/outside.safetensors", "sub/../../outside.safetensors"]
)
def test_an_index_that_leaves_the_folder_is_refused(sharded, tmp_path, small_tensors, where):
    save_file({UP: small_tensors[UP]}, tmp_path / "outside.safetensors")
    where = where.format(tmp=tmp_path)
    edit_index(sharded, lambda index: index["weight_map"].update({UP: where}))
    refused(sharded, where, "outside the model folder")


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json", INDEX])
def test_a_link_that_leaves_the_folder_is_refused(sharded, tmp_path, name):
    os.rename(sharded / name, tmp_path / "outside")
    (sharded / name).symlink_to(tmp_path / "outside")
    refused(sharded, name, "outside the model folder")


def test_the_links_of_the_hugging_face_cache_are_followed(sharded, tmp_path):
    repository = tmp_path / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in sharded.iterdir():
        os.rename(file, repository / "blobs" / f"hash-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-{file.name}")
    assert load_hugging_face(snapshot)[0] == SMALL


def test_a_dangling_link_is_a_missing_file(sharded):
    (sharded / "model-00001-of-00002.safetensors").unlink()
    (sharded / "model-00001-of-00002.safetensors").symlink_to("gone")
    refused(sharded, "model-00001-of-00002.safetensors", "no such file")


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, "model-00002-of-00002.safetensors", "no such file")


def test_an_index_that_names_the_wrong_file_is_refused(sharded):
    def swap(index):
        files = sorted(set(index["weight_map"].values()))
        index["weight_map"][UP] = files[1 - files.index(index["weight_map"][UP])]

    edit_index(sharded, swap)
    refused(sharded, INDEX, UP, "does not hold it")


def test_an_index_that_names_a_tensor_nobody_holds_is_refused(sharded):
    edit_index(sharded, lambda index: index["weight_map"].update(ghost="model-00001-of-00002.safetensors"))
    refused(sharded, INDEX, "ghost", "does not hold it")


def test_a_tensor_that_the_index_leaves_out_is_refused(sharded):
    edit_index(sharded, lambda index: index["weight_map"].pop(UP))
    refused(sharded, INDEX, UP, "out of date")


def test_a_tensor_in_two_shards_is_refused(sharded, small_tensors):
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    for file in set(index.values()):
        held = {name: small_tensors[name] for name in index if index[name] == file}
        save_file(held | {UP: small_tensors[UP]}, sharded / file)
    refused(sharded, UP, "is also in")


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}, {"a": None}, "x"])
def test_a_malformed_index_is_refused(sharded, weight_map):
    edit_index(sharded, lambda index: index.update(weight_map=weight_map))
    refused(sharded, INDEX, "weight_map")


def test_single_and_sharded_weights_together_are_refused(sharded, small_tensors):
    save_file(small_tensors, sharded / "model.safetensors")
    refused(sharded, "both model.safetensors and")
