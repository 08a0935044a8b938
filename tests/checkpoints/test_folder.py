"""Either kind of folder: telling them apart, naming the weights, taking the tokenizer along."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model_folders import SMALL, assert_same_tensors, hugging_face_tensors, random_params, write_hugging_face
from safetensors.numpy import save_file

from grm_jax.checkpoints import copy_side_files, fingerprint, kind, leaves, load_params, save_hugging_face, save_orbax
from grm_jax.checkpoints.folder import save_trained
from grm_jax.errors import UserError

SAVE = {"huggingface": save_hugging_face, "orbax": save_orbax}


@pytest.fixture(params=SAVE)
def model_kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path, model_kind):
    SAVE[model_kind](tmp_path / "model", SMALL, random_params(SMALL, "bfloat16"))
    return tmp_path / "model"


def test_kind_and_weights(folder, model_kind):
    assert kind(folder) == model_kind
    config, params = load_params(folder, "float32")
    assert config == SMALL
    expected = flatten_dict(random_params(SMALL, "bfloat16"), sep="/")
    assert_same_tensors(
        flatten_dict(params, sep="/"), {path: leaf.astype("float32") for path, leaf in expected.items()}
    )
    assert leaves(folder) == (SMALL, {path: (leaf.shape, leaf.dtype) for path, leaf in expected.items()})


def test_what_is_no_model_folder(tmp_path, small_folder):
    for path, part in (
        (tmp_path / "gone", "no such model folder"),
        (small_folder / "config.json", "no such model folder"),
    ):
        with pytest.raises(UserError, match=part):
            kind(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no model.safetensors"):
        kind(tmp_path / "empty")
    (small_folder / "params").mkdir()
    with pytest.raises(UserError, match="both safetensors and params"):
        kind(small_folder)


# the fingerprint


def test_a_copy_keeps_the_fingerprint(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.model").write_bytes(b"side files are no weights")
    name = fingerprint(folder)
    assert fingerprint(tmp_path / "copy") == fingerprint(folder) == name
    assert len(name) == 32 and int(name, 16) >= 0


def test_another_model_has_another_fingerprint(tmp_path, model_kind):
    params = random_params(SMALL)
    trained = {**params, "layers": {**params["layers"], "global": dict(params["layers"]["global"])}}
    trained["layers"]["global"]["pre_mlp_norm"] = np.nextafter(
        params["layers"]["global"]["pre_mlp_norm"], np.float32(9)
    )
    models = [(SMALL, params), (SMALL, trained), (SMALL, random_params(SMALL, "bfloat16"))]
    for i, (config, tree) in enumerate(models):
        SAVE[model_kind](tmp_path / str(i), config, tree)
    assert len({fingerprint(tmp_path / str(i)) for i in range(len(models))}) == len(models)


def test_the_config_is_part_of_the_fingerprint(folder):
    before = fingerprint(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"query_pre_attn_scalar": 5', '"query_pre_attn_scalar": 6'))
    assert fingerprint(folder) != before


def test_sharding_does_not_matter(tmp_path):
    save_hugging_face(tmp_path / "one", SMALL, random_params(SMALL))
    save_hugging_face(tmp_path / "many", SMALL, random_params(SMALL), max_shard_bytes=500)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")


def test_both_ends_of_a_large_tensor_are_sampled(tmp_path):
    name = "model.embed_tokens.weight"
    tensors = hugging_face_tensors(SMALL)
    seen = set()
    for i, place in enumerate((None, (0, 0), (-1, -1), (3, 4))):
        changed = tensors[name].copy()
        if place:
            changed[place] = 12345
        save_file(
            tensors | {name: changed}, write_hugging_face(tmp_path / str(i), SMALL, tensors) / "model.safetensors"
        )
        seen.add(fingerprint(tmp_path / str(i)))
    assert len(seen) == 4


# side files


def test_side_files_are_copied_and_nothing_else(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    wanted = {
        "tokenizer.model": b"\x00\xff",
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "special_tokens_map.json": b"{}",
        "generation_config.json": b"{}",
        "template.toml": b"",
    }
    for name, data in (wanted | {"config.json": b"{}", "modeling.py": b"", "README.md": b""}).items():
        (source / name).write_bytes(data)
    assert set(copy_side_files(source, target)) == set(wanted)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == wanted


def test_absent_side_files_are_no_error(tmp_path):
    (tmp_path / "out").mkdir()
    assert copy_side_files(tmp_path, tmp_path / "out") == []


@pytest.mark.parametrize(
    "make", [lambda path, secret: path.symlink_to(secret), lambda path, _: path.mkdir()], ids=["link", "folder"]
)
def test_a_side_file_must_be_a_file_of_the_folder(tmp_path, make):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    (tmp_path / "secret").write_text("secret")
    make(source / "tokenizer.json", tmp_path / "secret")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        copy_side_files(source, target)
    assert os.listdir(target) == []


# trained models


def test_a_trained_model_has_its_own_template_and_takes_the_place_of_the_one_before(tmp_path):
    source, out = tmp_path / "source", tmp_path / "run" / "model"
    for folder in (source, out):
        folder.mkdir(parents=True)
        (folder / "template.toml").write_text("older")
    (source / "tokenizer.json").write_text("{}")
    (out / "of an earlier life").write_text("")
    params = jax.tree.map(jnp.asarray, random_params(SMALL))
    assert save_trained(out, SMALL, params, source, "newer", dtype="bfloat16") == out
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "template.toml", "tokenizer.json"]
    assert (out / "template.toml").read_text() == "newer"
    expected = {path: leaf.astype("bfloat16") for path, leaf in flatten_dict(random_params(SMALL), sep="/").items()}
    assert_same_tensors(flatten_dict(load_params(out)[1], sep="/"), expected)
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        save_trained(out, SMALL, params, source, "newest")
    assert (out / "template.toml").read_text() == "newer"  # what cannot be saved whole leaves the one before
