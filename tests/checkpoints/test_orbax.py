"""Orbax folders: exact, and never silently another model."""

import json
import logging
import os
import shutil
import tempfile

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict
from model_folders import SMALL, assert_same_tensors, random_params

from grm_jax.checkpoints.orbax import load_orbax, orbax_leaves, save_orbax
from grm_jax.errors import UserError
from grm_jax.model.config import config_from_hugging_face


def raising(error):
    def refuse(*_, **__):
        raise error

    return refuse


def flat(params):
    return flatten_dict(params, sep="/")


@pytest.fixture
def folder(tmp_path):
    save_orbax(tmp_path / "model", SMALL, random_params(SMALL))
    return tmp_path / "model"


def refused(folder, *parts):
    with pytest.raises(UserError) as error:
        load_orbax(folder)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_round_trip_is_exact(tmp_path, config, dtype):
    params = random_params(config, dtype)
    save_orbax(tmp_path / "model", config, params)
    read_config, read = load_orbax(tmp_path / "model")
    assert read_config == config
    assert_same_tensors(flat(read), flat(params))
    assert all(isinstance(leaf, np.ndarray) for leaf in flat(read).values())


def test_config_is_in_the_hugging_face_form(folder):
    assert config_from_hugging_face(json.loads((folder / "config.json").read_text())) == SMALL


def test_device_arrays_are_saved_like_numpy_ones(tmp_path):
    params = random_params(SMALL, "bfloat16")
    save_orbax(tmp_path / "model", SMALL, {**params, "embedding": jnp.asarray(params["embedding"])})
    assert_same_tensors(flat(load_orbax(tmp_path / "model")[1]), flat(params))


@pytest.mark.parametrize(("stored", "wanted"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_stated_dtype_casts_like_numpy(tmp_path, stored, wanted):
    params = random_params(SMALL, stored)
    save_orbax(tmp_path / "model", SMALL, params)
    _, read = load_orbax(tmp_path / "model", wanted)
    assert_same_tensors(flat(read), {path: leaf.astype(wanted) for path, leaf in flat(params).items()})


def test_leaves_are_known_without_weights(folder):
    config, leaves = orbax_leaves(folder)
    assert config == SMALL
    assert leaves == {path: (leaf.shape, leaf.dtype) for path, leaf in flat(random_params(SMALL)).items()}


def test_a_relative_path_is_fine(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_orbax("model")[0] == SMALL


def test_a_model_is_never_overwritten(folder):
    before = load_orbax(folder)[1]
    with pytest.raises(UserError, match="already holds a model"):
        save_orbax(folder, SMALL, random_params(SMALL, "bfloat16"))
    assert_same_tensors(flat(load_orbax(folder)[1]), flat(before))


def test_parameters_of_another_shape_are_not_saved(tmp_path):
    params = random_params(SMALL)
    with pytest.raises(UserError, match="1 parameters missing: final_norm"):
        save_orbax(tmp_path / "model", SMALL, {k: v for k, v in params.items() if k != "final_norm"})
    assert not (tmp_path / "model").exists()


@pytest.fixture
def not_saved(tmp_path, caplog):
    """Saves a model and returns the one line that refuses it; nothing may be logged, nor look like a model."""

    def save():
        with pytest.raises(UserError) as error:
            save_orbax(tmp_path / "model", SMALL, random_params(SMALL))
        assert "\n" not in str(error.value) and not caplog.records
        assert os.listdir(tmp_path / "model") == []
        return str(error.value)

    return save


def test_a_full_or_read_only_disk_is_one_line_before_orbax_begins(not_saved, tmp_path, monkeypatch):
    size = sum(leaf.nbytes for leaf in flat(random_params(SMALL)).values())
    remedy = "make room there or name a folder elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr(ocp, "StandardCheckpointer", None)
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - size, size))
        expected = f"the model takes up to {size + 2**20:,} bytes, the disk has {size:,} left; {remedy}"
        assert not_saved() == f"{tmp_path / 'model'}: {expected}"
        patch.undo()
        patch.setattr(ocp, "StandardCheckpointer", None)
        patch.setattr(tempfile, "TemporaryFile", raising(OSError(30, "Read-only file system", "/x")))
        assert not_saved() == f"{tmp_path / 'model'}: cannot be written: Read-only file system; {remedy}"


FULL = (
    'RESOURCE_EXHAUSTED: Error writing "final_norm/0" in OCDBT database at local file "/x": Failed to write 310 bytes to '
    "file 11: No space left on device [tensorstore_spec='{}'] [os_error_code='28']"
)


@pytest.mark.parametrize("error", [ValueError(FULL), OSError(28, "No space left on device", "/x")], ids=["ts", "os"])
def test_a_disk_that_fills_meanwhile_is_one_line(not_saved, tmp_path, monkeypatch, error):
    def save(*_):
        logging.getLogger("absl").error("a traceback")
        raise error

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", save)
    reason = "No space left on device; make room there or name a folder elsewhere"
    assert not_saved() == f"{tmp_path / 'model' / 'params'}: cannot be written: {reason}"
    assert not logging.getLogger("absl").disabled


def test_missing_parts_are_named(folder):
    os.rename(folder / "config.json", folder / "kept")
    refused(folder, "config.json", "no such file")
    os.rename(folder / "kept", folder / "config.json")
    shutil.rmtree(folder / "params")
    refused(folder, "params", "no such folder")


@pytest.mark.parametrize("how", ["delete", "empty", "halve"])
def test_damage_is_an_error_or_harmless_but_never_another_model(folder, tmp_path, how):
    expected = flat(random_params(SMALL))
    names = [p.relative_to(folder) for p in (folder / "params").rglob("*") if p.is_file()]
    errors = 0
    for i, name in enumerate(names):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(folder, copy)
        if how == "delete":
            (copy / name).unlink()
        else:
            data = (copy / name).read_bytes()
            (copy / name).write_bytes(data[: len(data) // 2] if how == "halve" else b"")
        try:
            assert_same_tensors(flat(load_orbax(copy)[1]), expected)
        except UserError as error:
            errors += 1
            assert str(copy / "params") in str(error)
            assert "\n" not in str(error)
    assert errors >= 3


def test_links_are_refused(folder, tmp_path):
    data = next(p for p in (folder / "params").rglob("*") if p.parent.name == "d")
    os.rename(data, tmp_path / "outside")
    data.symlink_to(tmp_path / "outside")
    refused(folder, data.name, "is a link")


def test_parameters_that_do_not_fit_the_config_are_refused(folder):
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"vocab_size": 9}))
    refused(folder, "embedding", "[7, 8]", "[9, 8]")


def test_another_tree_is_refused(folder):
    shutil.rmtree(folder / "params")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {"w": np.zeros(3, np.float32)})
    refused(folder, "parameters missing", "embedding")


def test_integers_are_refused(folder):
    shutil.rmtree(folder / "params")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {**random_params(SMALL), "final_norm": np.zeros(8, np.int8)})
    refused(folder, "final_norm is int8")
