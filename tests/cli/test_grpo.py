"""`grm train grpo`: what it hands on, and what it refuses in one line before any compute."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import grm_jax.spct.grpo_stage
from grm_jax.cli import main
from grm_jax.data.jsonl import write_jsonl
from tests.tiny_judge import CONFIG, write_judge

STEPS = "--gin.Grpo.steps=2"


@pytest.fixture
def given(monkeypatch):
    """What the stage was given last; nothing is trained."""
    given = {}

    def stage(model, items, settings, output, **rest):
        given.update(rest, model=model, items=len(items), settings=settings, output=output)
        return output / "model"

    monkeypatch.setattr(grm_jax.spct.grpo_stage, "run_grpo_stage", stage)
    return given


@pytest.fixture
def sources(tmp_path):
    """Critiques to filter by: a file, and the run folder of a judge."""
    (tmp_path / "T").write_text("one\n")
    (tmp_path / "U").mkdir()
    (tmp_path / "U" / "samples.jsonl").write_text("two\n")
    return [str(tmp_path / "T"), str(tmp_path / "U")]


def test_the_stage_gets_what_is_given(given, sources, items, judge_folder, tmp_path, capsys):
    run, reference = tmp_path / "run", shutil.copytree(judge_folder, tmp_path / "R")
    arguments = ["--model", judge_folder, "--input", items, "--output", run, "--reference", reference]
    arguments += ["--template", "tiny", "--trajectories", sources[0], "--trajectories", sources[1]]
    arguments += ["--dtype", "bfloat16", STEPS, "--gin.Grpo.group=6"]
    assert main(["train", "grpo", *map(str, arguments)]) == 0
    assert (given["model"], given["items"], given["output"]) == (str(judge_folder), 8, run)
    assert (given["settings"].steps, given["settings"].group, given["settings"].kl_coefficient) == (2, 6, 0.08)
    assert (given["reference"], given["easy"], given["template"], given["dtype"]) == (
        str(reference),
        sources,
        "tiny",
        "bfloat16",
    )
    assert capsys.readouterr().out.splitlines()[-1] == f"saved {run / 'model'}"
    assert "Grpo.group = 6" in (run / "config.gin").read_text()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("group=1", "Grpo.group must be at least 2"),
        ("kl_coefficient=-0.1", "Grpo.kl_coefficient must be a finite number, not negative, not -0.1"),
        ("clip_high=0.0", "Grpo.clip_high must be positive"),
        ("clip_low=1.5", "Grpo.clip_low must be above 0 and below 1"),
        ("reduction='mean'", "Grpo.reduction must be one of grpo, dapo, dr_grpo, not mean"),
        ("beta=0.1", "beta"),
    ],
)
def test_settings_are_refused_in_one_line(refused, items, judge_folder, tmp_path, binding, message):
    arguments = ("train", "grpo", "--model", judge_folder, "--input", items, "--output", tmp_path / "run", STEPS)
    assert message in refused(*arguments, f"--gin.Grpo.{binding}")
    assert not (tmp_path / "run").exists()


def test_items_and_models_are_refused_in_one_line(refused, items, judge_folder, tmp_path):
    unlabelled = tmp_path / "unlabelled.jsonl"
    write_jsonl(unlabelled, [{"id": "u", "prompt": "p", "responses": ["a", "b"]}])
    run = tmp_path / "run"
    assert "item 'u' has no label" in refused(
        "train", "grpo", "--model", judge_folder, "--input", unlabelled, "--output", run, STEPS
    )
    assert "grpo: give --model and --input" in refused("train", "grpo", "--input", items, "--output", run, STEPS)
    assert "Grpo.steps not set" in refused("train", "grpo", "--model", judge_folder, "--input", items, "--output", run)
    assert not run.exists()


def test_a_wrong_reference_is_refused_before_anything_is_made(refused, items, judge_folder, tmp_path):
    wider = write_judge(tmp_path / "wider", dataclasses.replace(CONFIG, vocab_size=408))
    given = ("train", "grpo", "--model", judge_folder, "--input", items, "--output", tmp_path / "run", STEPS)
    for reference, message in ((wider, "another vocabulary than"), (tmp_path / "gone", "no such folder")):
        assert message in refused(*given, "--reference", reference)
        assert not (tmp_path / "run").exists()
    assert f"{tmp_path / 'gone'} cannot be read" in refused(*given, "--trajectories", tmp_path / "gone")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_only_from_what_it_was_begun_with(grm, refused, given, sources, items, judge_folder, tmp_path):
    run, other = tmp_path / "run", write_judge(tmp_path / "other", dataclasses.replace(CONFIG, head_dim=16))
    first, second = (("--trajectories", source) for source in sources)

    def command(model=judge_folder):
        return "train", "grpo", "--model", model, "--input", items, "--output", run, STEPS

    assert grm(*command(), *first, *second)[0] == 0
    (run / "checkpoints" / "1").mkdir(parents=True)
    kept = {path.name: path.read_bytes() for path in run.glob("*.*")}
    copy = shutil.copytree(judge_folder, tmp_path / "elsewhere" / judge_folder.name)
    assert grm(*command(copy), *first, *second)[0] == 0  # the same model and name, wherever it stands
    begun = "the run was begun with --"
    assert f"{begun}model random@" in refused(*command(other), *first, *second)
    assert f"{begun}reference left out, now other@" in refused(*command(), *first, *second, "--reference", other)
    assert f"{begun}trajectories T@" in refused(*command(), *first)
    Path(sources[1], "samples.jsonl").write_text("two\nthree\n")
    error = refused(*command(), *first, *second)
    assert f"{begun}trajectories T@" in error and "give it as it was, or another --output" in error
    assert {path.name: path.read_bytes() for path in run.glob("*.*")} == kept


@pytest.mark.slow
def test_a_judge_is_trained_and_judges(grm, items, judge_folder, tmp_path):
    run = tmp_path / "run"
    small = ("--gin.Grpo.prompts=2", "--gin.Grpo.group=2", "--gin.Grpo.max_new=4")
    arguments = ("train", "grpo", "--model", judge_folder, "--input", items, "--output", run, STEPS, *small)
    code, out, _ = grm(*arguments)
    assert code == 0 and out.splitlines()[-1] == f"saved {run / 'model'}"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert Path(run / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert grm("judge", "--model", run / "model", "--input", items, "--output", tmp_path / "judged", "--k", 1)[0] == 0
