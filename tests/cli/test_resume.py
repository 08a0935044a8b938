"""Nothing that was sampled is lost or sampled twice, however a run ends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.records import sample_from_json
from grm_jax.judge.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SAMPLING = ("--temperature", 1, "--max-new", 12, "--rows", 8)


def samples(run):
    """All stored samples by (item, index); each stands there once."""
    stored = {}
    for text in (run / "samples.jsonl").read_text().splitlines():
        obj = json.loads(text)
        sample = sample_from_json({key: value for key, value in obj.items() if key != "id"}, "here")
        assert (obj["id"], sample.index) not in stored
        stored[obj["id"], sample.index] = sample
    return stored


def assert_same(found, expected):
    """Equal in all but the last bits of log-probabilities, which may depend on what was computed together."""
    assert found.keys() == expected.keys()
    for key, sample in found.items():
        assert sample.logprob == pytest.approx(expected[key].logprob, abs=1e-4)
        assert sample == dataclasses.replace(expected[key], logprob=sample.logprob)


@pytest.fixture
def judge(grm, compiled, items):
    def run(output, k, *arguments):
        return grm("judge", "--model", compiled, "--input", items, "--output", output, "--k", k, *SAMPLING, *arguments)

    return run


@pytest.fixture
def uninterrupted(judge, tmp_path):
    assert judge(tmp_path / "whole", 4)[0] == 0
    return tmp_path / "whole"


def test_a_larger_k_adds_only_what_is_missing(judge, uninterrupted, tmp_path):
    run = tmp_path / "run"
    assert judge(run, 2)[0] == 0
    first = (run / "samples.jsonl").read_bytes()
    assert first.count(b"\n") == 16
    assert judge(run, 4)[0] == 0
    second = (run / "samples.jsonl").read_bytes()
    assert second.startswith(first)
    assert second.count(b"\n") == 32
    assert_same(samples(run), samples(uninterrupted))
    for k in (4, 3):
        assert judge(run, k)[0] == 0
        assert (run / "samples.jsonl").read_bytes() == second


@pytest.mark.parametrize("calls", [1, 9])
def test_an_interrupted_run_goes_on_where_it_stopped(judge, uninterrupted, tmp_path, monkeypatch, calls):
    run, left, append = tmp_path / "run", [calls], RunFolder.append

    def interrupted(self, item_id, new):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, item_id, new)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", interrupted)
        code, _, error = judge(run, 4)
    assert (code, error.splitlines()[-1]) == (130, "grm judge: interrupted; finished work is kept")
    kept = (run / "samples.jsonl").read_bytes()
    assert kept.count(b"\n") == 2 * calls  # two samples of one order at a time
    assert judge(run, 4)[0] == 0
    assert (run / "samples.jsonl").read_bytes().startswith(kept)
    assert_same(samples(run), samples(uninterrupted))
    assert_same_judgements(run, uninterrupted)


def assert_same_judgements(run, other):
    verdicts = [
        [(obj["id"], obj["scores"], obj["best"], obj["outcomes"]) for obj in map(json.loads, lines)]
        for lines in ((folder / "judgements.jsonl").read_text().splitlines() for folder in (run, other))
    ]
    assert verdicts[0] == verdicts[1]


def stop_midway(command, run, number, already):
    """Starts a run, sends it a signal as soon as it has stored some more samples, and returns its exit code."""
    log = run / "samples.jsonl"
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not log.exists() or log.read_bytes().count(b"\n") <= already:
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        return process.wait(60)
    finally:
        process.kill()


def test_a_run_that_is_terminated_and_then_killed_is_finished_by_a_third(judge, compiled, items, tmp_path):
    """Real processes and signals; enough items, one a batch, that they end in the middle of the work."""
    eight = [json.loads(text) for text in items.read_text().splitlines()]
    many = [{**obj, "id": f"{obj['id']} {block}"} for block in range(40) for obj in eight]
    write_jsonl(items, many)
    run, total = tmp_path / "run", 2 * len(many)
    given = ["judge", "--model", compiled, "--input", items, "--output", run, "--k", 2, *SAMPLING[:-1], 1]
    command = [sys.executable, "-m", "grm_jax", *map(str, given)]
    assert stop_midway(command, run, signal.SIGTERM, 0) == 130
    terminated = len(samples(run))
    assert 0 < terminated < total
    assert stop_midway(command, run, signal.SIGKILL, terminated) == -signal.SIGKILL
    killed = (run / "samples.jsonl").read_bytes().count(b"\n")
    assert terminated < killed < total
    assert judge(run, 2)[0] == 0
    assert judge(tmp_path / "whole", 2)[0] == 0
    assert_same(samples(run), samples(tmp_path / "whole"))
    assert len(samples(run)) == total
