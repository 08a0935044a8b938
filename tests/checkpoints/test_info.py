"""`grm info`."""

import argparse
import json

import pytest
from model_folders import SMALL, hugging_face_tensors, random_params, write_hugging_face

import grm_jax.checkpoints.safetensors_io as safetensors_io
from grm_jax.checkpoints import fingerprint, save_hugging_face, save_orbax
from grm_jax.cli import info as command
from grm_jax.errors import UserError


def grm_info(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["info", *map(str, arguments)])
    return args.run(args)


def facts(path, capsys):
    assert grm_info(path, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("name", "save"), [("huggingface", save_hugging_face), ("orbax", save_orbax)])
def test_a_model(tmp_path, capsys, name, save, dtype):
    save(tmp_path / "m", SMALL, random_params(SMALL, dtype))
    (tmp_path / "m" / "tokenizer.model").write_bytes(b"123")
    (tmp_path / "m" / "template.toml").write_text('name = "grm"')
    found = facts(tmp_path / "m", capsys)
    count = sum(t.size for t in hugging_face_tensors(SMALL).values())
    assert (found["kind"], found["dtype"], found["parameters"]) == (name, dtype, count)
    assert found["weight_bytes"] == count * (4 if dtype == "float32" else 2)
    assert found["context"] == SMALL.max_length
    assert found["config"]["num_heads"] == SMALL.num_heads
    assert found["tokenizer"] == "sentencepiece (tokenizer.model)"
    assert found["template"] == "grm"
    assert found["fingerprint"] == fingerprint(tmp_path / "m")
    assert found["files"]["tokenizer.model"] == 3


def test_a_model_for_people(small_folder, capsys):
    (small_folder / "tokenizer.json").write_text("{}")
    assert grm_info(small_folder) == 0
    out = capsys.readouterr().out
    for part in ("huggingface", "float32", "tokenizers (tokenizer.json)", fingerprint(small_folder), "vocab_size: 7"):
        assert part in out


def test_weights_are_not_loaded(small_folder, capsys, monkeypatch):
    def loaded(*_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(safetensors_io, "open_tensors", loaded)
    monkeypatch.setattr("grm_jax.checkpoints.huggingface.open_tensors", loaded)
    assert facts(small_folder, capsys)["parameters"] > 0


def test_a_broken_model_is_reported(tmp_path):
    tensors = hugging_face_tensors(SMALL)
    tensors.pop("model.norm.weight")
    with pytest.raises(UserError, match=r"1 tensors missing: model\.norm\.weight"):
        grm_info(write_hugging_face(tmp_path / "m", SMALL, tensors))
    tensors = hugging_face_tensors(SMALL)
    folder = write_hugging_face(tmp_path / "n", SMALL, tensors)
    (folder / "template.toml").write_text("name = ")
    with pytest.raises(UserError, match=r"template\.toml: not valid TOML"):
        grm_info(folder)


# runs


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"model": "0f3a", "seed": 3, "sampling": {"temperature": 0.5}}))
    lines = [
        {"id": "a", "index": 0, "outcome": "ok"},
        {"id": "a", "index": 1, "outcome": "truncated"},
        {"id": "b", "index": 0, "outcome": "ok"},
        {"id": "c", "outcome": "prompt_too_long", "tokens": 900, "limit": 256},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_run(run_folder, capsys):
    found = facts(run_folder, capsys)
    assert found["kind"] == "run" and found["model"] == "0f3a"
    assert found["settings"] == {"seed": 3, "sampling": {"temperature": 0.5}}
    assert (found["items"], found["samples"]) == (3, 3)
    assert found["outcomes"] == {"ok": 2, "prompt_too_long": 1, "truncated": 1}
    assert grm_info(run_folder) == 0
    assert "temperature: 0.5" in capsys.readouterr().out


def test_a_torn_last_line_is_left_out(run_folder, capsys):
    with (run_folder / "samples.jsonl").open("a") as f:
        f.write('{"id": "d", "outcome": "o')
    assert facts(run_folder, capsys)["items"] == 3


def test_a_run_without_samples_yet(run_folder, capsys):
    (run_folder / "samples.jsonl").unlink()
    found = facts(run_folder, capsys)
    assert (found["items"], found["samples"], found["outcomes"]) == (0, 0, {})


@pytest.mark.parametrize("line", ["{", "3", '{"id": 1, "outcome": "ok"}', '{"id": "a"}'])
def test_a_corrupt_line_is_named(run_folder, line):
    with (run_folder / "samples.jsonl").open("a") as f:
        f.write(line + "\n")
    with pytest.raises(UserError, match=r"samples.jsonl:5: not"):
        grm_info(run_folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_corrupt_run_file_is_named(run_folder, text):
    (run_folder / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run.json: "):
        grm_info(run_folder)


def test_anything_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "gone"):
        with pytest.raises(UserError, match="model folder"):
            grm_info(path)
