"""`grm rft`: what is kept, what is counted, and that a run goes on where it stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import grm_jax.judge.judge
from grm_jax.data.examples import encode_example, example_from_json
from grm_jax.data.jsonl import write_jsonl
from grm_jax.judge.loading import model_folder
from grm_jax.judge.run_folder import RunFolder
from grm_jax.keys import stream_key
from grm_jax.spct.trajectories import read_trajectories
from grm_jax.text.template_file import load_template, template_text
from grm_jax.text.tokenizer import load_tokenizer
from tests.tiny_judge import Scripted

ROOT = Path(__file__).parents[2]
WRITTEN = ("accepted.jsonl", "trajectories.jsonl", "report.json")
# What the critic finds, by item: three samples without a hint, then the hinted one.
PLAN = {
    "easy": ("right", "right", "right", None),
    "mixed": ("right", "wrong", "tie", None),
    "one wrong": ("right", "right", "wrong", None),
    "hard": ("wrong", "no_block", "not_integer", "right"),
    "hopeless": ("tie", "wrong", "wrong", "wrong"),
}
REPLIES = {"no_block": "cannot say", "not_integer": "\\boxed{high, low}"}


def objects(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(run):
    return {name: (run / name).read_bytes() for name in WRITTEN}


@pytest.fixture
def planned(judge_folder, monkeypatch, tmp_path):
    """A critic that follows PLAN, and its items; returns the sampler, whose `requests` are what was asked."""
    tokenizer = load_tokenizer(judge_folder)
    places = {
        tuple(stream_key(stream, seed, name, index).tolist()): (name, 3 if hinted else index)
        for seed in (0, 1)
        for name in PLAN
        for hinted, stream in enumerate(("critique", "hinted critique"))
        for index in range(1 if hinted else 3)
    }

    def write(request, j):
        name, index = places[tuple(request.keys[j].tolist())]
        text = tokenizer.decode(request.ids.tolist())
        assert ("Best: Response" in text) == (index == 3)
        best, reply = int(re.search(r"Response (\d): good", text)[1]), PLAN[name][index]
        high, low = {"right": (9, 2), "wrong": (2, 9), "tie": (5, 5)}.get(reply, (0, 0))
        scores = f"{high}, {low}" if best == 1 else f"{low}, {high}"
        return f"{name} {index}: " + REPLIES.get(reply, f"\\boxed{{{scores}}}")

    sampler = Scripted(judge_folder, write)
    monkeypatch.setattr(grm_jax.judge.judge, "Sampler", lambda *args, **settings: sampler)
    items = [
        {"id": name, "prompt": "Which?", "responses": ["good", "bad"][:: 1 - 2 * (i % 2)], "label": i % 2}
        | {"domain": "d" if i < 2 else "e", "strength": 2, "reference": "ref", "principles": ["p"]}
        for i, name in enumerate(PLAN)
    ]
    write_jsonl(tmp_path / "items.jsonl", items)
    return sampler


@pytest.fixture
def rft(grm, judge_folder, tmp_path):
    def run(*arguments, output="run"):
        given = ("--model", judge_folder, "--input", tmp_path / "items.jsonl", "--output", tmp_path / output)
        return grm("rft", *given, *arguments)

    return run


def test_right_samples_are_kept_and_all_others_counted(rft, planned, tmp_path):
    code, out, error = rft()
    assert code == 0, error
    kept = [(example["meta"]["id"], example["meta"]["index"]) for example in objects(tmp_path / "run/accepted.jsonl")]
    assert kept == [("mixed", 0), ("one wrong", 0), ("one wrong", 1)]
    report = json.loads((tmp_path / "run/report.json").read_text())
    counts = {name: count for name, count in report["all"]["samples"].items() if count}
    assert counts == {"accepted": 3, "wrong": 7, "too_easy": 3, "no_block": 1, "not_integer": 1}
    assert (report["all"]["items"], report["all"]["too_easy"], report["all"]["hard"]) == (5, 1, 2)
    assert (report["all"]["kept"], report["all"]["yield"]) == (3, 3 / 15)
    assert [(name, part["items"], part["kept"]) for name, part in report["domains"].items()] == [
        ("d", 2, 1),
        ("e", 3, 2),
    ]
    assert out.startswith("5 items: 1 too easy, 2 without a right sample\n15 samples: 3 accepted, 7 wrong, 3 too_easy,")
    assert len(planned.requests) == 10  # two orders each; nothing was hinted


def test_every_sample_without_a_hint_is_a_trajectory(rft, planned, tmp_path):
    assert rft("--hinted")[0] == 0
    found = {(each.id, each.index): each for each in read_trajectories(tmp_path / "run/trajectories.jsonl")}
    assert list(found) == [(name, index) for name in PLAN for index in range(3)]
    for (name, index), each in found.items():
        assert each.text.startswith(f"{name} {index}: ")
        assert each.accepted == (PLAN[name][index] == "right")
        assert each.outcome == (PLAN[name][index] if PLAN[name][index] in REPLIES else "ok")
        assert sorted(each.order) == [0, 1]


def test_a_hint_is_given_where_nothing_is_right_and_never_stands_in_an_example(rft, planned, judge_folder, tmp_path):
    code, out, _ = rft("--hinted")
    assert code == 0
    assert "\n2 hinted samples: 1 accepted, 1 wrong\n" in out
    examples = objects(tmp_path / "run/accepted.jsonl")
    assert [example["meta"]["id"] for example in examples if example["meta"]["hinted"]] == ["hard"]
    assert "Best" not in (tmp_path / "run/accepted.jsonl").read_text()
    # An example's prompt is, id for id, one that the judge was shown without a hint.
    template, tokenizer = load_template(judge_folder / "template.toml"), load_tokenizer(judge_folder)
    hinted = [request for request in planned.requests if "Best:" in tokenizer.decode(request.ids.tolist())]
    assert len(hinted) == 2
    shown = {request.ids.tobytes() for request in planned.requests} - {request.ids.tobytes() for request in hinted}
    for example in examples:
        ids, weights = encode_example(example_from_json(example, "here"), template, tokenizer)
        assert ids[weights == 0].astype(np.int32).tobytes() in shown


def test_what_is_rejected_is_decided_anew_over_the_same_samples(rft, planned, tmp_path):
    run = tmp_path / "run"
    assert rft()[0] == 0
    stored, asked = (run / "samples.jsonl").read_bytes(), len(planned.requests)
    assert rft("--gin.Rft.reject_easy=False", "--gin.Rft.reject_wrong=False")[0] == 0
    assert ((run / "samples.jsonl").read_bytes(), len(planned.requests)) == (stored, asked)
    assert len(objects(run / "accepted.jsonl")) == 13  # of 15 all but the two that cannot be read
    assert rft("--samples", 2)[0] == 0  # a smaller N_RFT: the first two of each
    assert [each["meta"]["id"] for each in objects(run / "accepted.jsonl")] == ["mixed"]
    assert len(objects(run / "trajectories.jsonl")) == 10


def test_what_cannot_be_sampled_is_counted_and_exit_code_3(rft, planned, tmp_path):
    more = [
        {"id": "no label", "prompt": "q", "responses": ["a", "b"]},
        {"id": "long", "prompt": "word " * 900, "responses": ["a", "b"], "label": 0},
    ]
    with open(tmp_path / "items.jsonl", "a") as file:
        file.write("".join(json.dumps(each) + "\n" for each in more) + "not JSON\n")
    code, out, _ = rft("--on-error", "skip", "--hinted")
    assert code == 3
    assert "3 not sampled: 1 malformed lines, 1 without a label, 1 prompts too long\n" in out
    counts = json.loads((tmp_path / "run/report.json").read_text())["all"]
    assert (counts["items"], counts["unlabelled"], counts["prompt_too_long"], counts["hard"]) == (7, 1, 1, 2)
    assert len(objects(tmp_path / "run/trajectories.jsonl")) == 15


def test_items_that_teach_nothing_are_refused(refused, judge_folder, tmp_path, planned):
    write_jsonl(tmp_path / "bare.jsonl", [{"id": "x", "prompt": "q", "responses": ["a", "b"]}])
    given = ("rft", "--model", judge_folder, "--output", tmp_path / "run")
    assert "no item has a label" in refused(*given, "--input", tmp_path / "bare.jsonl")
    assert "Rft.samples is 0" in refused(*given, "--input", tmp_path / "items.jsonl", "--samples", 0)


def test_a_template_without_hints_is_refused_before_anything_is_sampled(refused, judge_folder, tmp_path, planned):
    bare = tmp_path / "bare.toml"
    bare.write_text(re.sub(r"(?m)^hint.*\n", "", template_text("tiny")))
    given = ("rft", "--model", judge_folder, "--input", tmp_path / "items.jsonl", "--output", tmp_path / "run")
    assert "has no block 'hint'" in refused(*given, "--template", bare, "--hinted")
    assert not planned.requests


@pytest.mark.parametrize("appends", [0, 4, 10, 11])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(rft, planned, tmp_path, monkeypatch, appends):
    """Ten appends are without a hint (two orders an item), two with one."""
    assert rft("--hinted", output="whole")[0] == 0
    left, append = [appends], RunFolder.append

    def interrupted(self, item_id, new):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, item_id, new)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", interrupted)
        code, _, error = rft("--hinted")
    assert (code, error.splitlines()[-1]) == (130, "grm rft: interrupted; finished work is kept")
    assert not any((tmp_path / "run" / name).exists() for name in WRITTEN)
    asked = len(planned.requests)
    assert rft("--hinted")[0] == 0
    assert len(planned.requests) - asked == 12 - appends  # nothing is sampled twice
    assert written(tmp_path / "run") == written(tmp_path / "whole")


def test_a_seed_names_the_samples(grm, scripted, items, tmp_path):
    """The critic's scores follow from the key alone."""
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        given = ("--input", items, "--output", tmp_path / name, "--seed", seed, "--hinted")
        assert grm("rft", "--model", scripted, *given)[0] == 0
    first, again, other = (written(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[name] != other[name] for name in WRITTEN)


def killed_midway(command, log, more):
    """Starts the command and kills it as soon as a log has some more lines."""
    goal = (log.read_bytes().count(b"\n") if log.exists() else 0) + more
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not log.exists() or log.read_bytes().count(b"\n") < goal:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()


@pytest.mark.slow
def test_a_run_killed_twice_ends_as_an_uninterrupted_one(grm, tmp_path):
    """Real processes, the shipped judge, SIGKILL once among the samples and once among the hinted ones."""
    model = shutil.copytree(model_folder("tiny"), tmp_path / "tiny")
    (model / "template.toml").write_text(template_text("tiny"))
    assert grm("data", "arena", "--split", "train", "--count", 24, "--output", tmp_path / "arena.jsonl")[0] == 0
    given = ["rft", "--model", model, "--input", tmp_path / "arena.jsonl", "--hinted", "--temperature", 1]
    given += ["--max-new", 120, "--rows", 4, "--output"]
    assert grm(*given, tmp_path / "whole")[0] in (0, 3)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "grm_jax", *map(str, given), str(run)]
    killed_midway(command, run / "samples.jsonl", 10)
    killed_midway(command, run / "hinted/samples.jsonl", 1)
    assert not (run / "accepted.jsonl").exists()
    assert grm(*given, run)[0] in (0, 3)
    assert written(run) == written(tmp_path / "whole")
    assert len(objects(run / "accepted.jsonl")) > 5
