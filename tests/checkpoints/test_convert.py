"""`grm convert`."""

import argparse
import importlib.util
import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model_folders import SHAPES, SMALL, assert_same_tensors, random_params

import grm_jax.checkpoints.verify as verify
from grm_jax.checkpoints import kind, load_params, save_hugging_face, save_orbax
from grm_jax.checkpoints.verify import compare_with_transformers, verify_params
from grm_jax.cli import convert as command
from grm_jax.errors import UserError

SAVE = {"huggingface": save_hugging_face, "orbax": save_orbax}
ODD = SHAPES["head width times heads is not the model width"]


def grm_convert(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["convert", *map(str, arguments)])
    return args.run(args)


def ordinary_params(config):
    """Weights of ordinary size: random bit patterns would overflow in a forward pass."""
    params = random_params(config)
    return {
        "embedding": np.sin(np.arange(params["embedding"].size, dtype=np.float32)).reshape(params["embedding"].shape),
        "final_norm": np.linspace(-0.3, 0.3, config.model_dim, dtype=np.float32),
        "layers": {kind: _ordinary(tree, i) for i, (kind, tree) in enumerate(params["layers"].items())},
    }


def _ordinary(tree, seed):
    if isinstance(tree, dict):
        return {name: _ordinary(leaf, seed + i) for i, (name, leaf) in enumerate(tree.items())}
    return 0.3 * np.cos(np.arange(tree.size, dtype=np.float32) * (seed + 2)).reshape(tree.shape)


@pytest.mark.parametrize("source_kind", SAVE)
def test_the_default_is_the_other_kind_and_back_is_the_same(tmp_path, source_kind, dtype, capsys):
    params = random_params(ODD, dtype)
    SAVE[source_kind](tmp_path / "a", ODD, params)
    (tmp_path / "a" / "template.toml").write_text("x = 1")
    assert grm_convert("--from", tmp_path / "a", "--to", tmp_path / "b") == 0
    assert {kind(tmp_path / "b"), source_kind} == set(SAVE)
    assert kind(tmp_path / "b") in capsys.readouterr().out
    assert grm_convert("--from", tmp_path / "b", "--to", tmp_path / "c") == 0
    assert kind(tmp_path / "c") == source_kind
    config, read = load_params(tmp_path / "c")
    assert config == ODD
    assert_same_tensors(flatten_dict(read, sep="/"), flatten_dict(params, sep="/"))
    assert (tmp_path / "c" / "template.toml").read_text() == "x = 1"


@pytest.mark.parametrize("target_kind", SAVE)
def test_format_and_dtype(tmp_path, target_kind):
    params = random_params(SMALL)
    save_hugging_face(tmp_path / "a", SMALL, params)
    target = tmp_path / "new" / "b"
    grm_convert("--from", tmp_path / "a", "--to", target, "--format", target_kind, "--dtype", "bfloat16")
    assert kind(target) == target_kind
    cast = {path: leaf.astype("bfloat16") for path, leaf in flatten_dict(params, sep="/").items()}
    assert_same_tensors(flatten_dict(load_params(target)[1], sep="/"), cast)
    assert json.loads((target / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_model_is_never_overwritten(small_folder):
    with pytest.raises(UserError, match="already holds a model"):
        grm_convert("--from", small_folder, "--to", small_folder)


def test_verify_finds_one_wrong_bit(tmp_path):
    params = random_params(SMALL)
    save_hugging_face(tmp_path / "a", SMALL, params)
    save_orbax(tmp_path / "b", SMALL, params)
    assert verify_params(tmp_path / "a", tmp_path / "b") == sum(x.size for x in flatten_dict(params, sep="/").values())
    params["final_norm"] = np.nextafter(params["final_norm"], np.float32(0))
    save_orbax(tmp_path / "c", SMALL, params)
    with pytest.raises(UserError, match="final_norm differs"):
        verify_params(tmp_path / "a", tmp_path / "c")
    with pytest.raises(UserError, match="differs"):
        verify_params(tmp_path / "a", tmp_path / "b", "bfloat16")


def test_without_torch_verify_says_what_was_not_done(tmp_path, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    save_hugging_face(tmp_path / "a", SMALL, random_params(SMALL))
    assert grm_convert("--from", tmp_path / "a", "--to", tmp_path / "b", "--verify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "equal bit for bit" in lines[1]
    assert "not compared with transformers" in lines[2] and "torch is not installed" in lines[2]


def test_without_a_hugging_face_folder_verify_says_so(tmp_path, capsys):
    save_orbax(tmp_path / "a", SMALL, random_params(SMALL))
    grm_convert("--from", tmp_path / "a", "--to", tmp_path / "b", "--format", "orbax", "--verify")
    assert "neither folder is a Hugging Face one" in capsys.readouterr().out


@pytest.mark.torch
@pytest.mark.parametrize("name", SHAPES)
def test_verify_compares_logits_with_transformers(tmp_path, name, capsys):
    pytest.importorskip("torch", reason="the reference implementation runs on torch")
    config = SHAPES[name]
    save_orbax(tmp_path / "a", config, ordinary_params(config))
    assert grm_convert("--from", tmp_path / "a", "--to", tmp_path / "b", "--verify") == 0
    assert "largest difference from transformers in float32" in capsys.readouterr().out


@pytest.mark.torch
def test_a_wrong_model_fails_the_comparison(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the reference implementation runs on torch")
    save_hugging_face(tmp_path / "a", ODD, ordinary_params(ODD))
    right = compare_with_transformers(tmp_path / "a")
    assert right.beyond_window and right.largest < 1e-4
    real = verify.load_hugging_face

    def swapped(folder, dtype):
        config, params = real(folder, dtype)
        layers = params["layers"]
        return config, params | {"layers": {"local": layers["global"], "global": layers["local"]}}

    monkeypatch.setattr(verify, "load_hugging_face", swapped)
    with pytest.raises(UserError, match="logits differ from those of transformers"):
        compare_with_transformers(tmp_path / "a")
