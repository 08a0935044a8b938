"""Anytime voting in use: a run that stops early is the full run's beginning, however it came about, and reports say so."""

import json

import pytest

from grm_jax.data.jsonl import read_jsonl_items
from grm_jax.data.records import judgement_from_json
from grm_jax.judge.anytime import Stopping
from grm_jax.judge.judge import Judge
from grm_jax.judge.run_folder import RunFolder, read_run
from grm_jax.judge.voting import vote

STOP = ("--stop", "confident", "--confidence", 0.8, "--round", 2)
RULE = Stopping("confident", 2, 0.8)
OF_FULL = ("full", "difference", "full_tokens", "same", "kept", "stated")


def critiques(run):
    return {entry.judgement.id: entry.judgement.samples for entry in read_run(run)}


def judgements(run):
    return [
        judgement_from_json(json.loads(line), "here") for line in (run / "judgements.jsonl").read_text().splitlines()
    ]


@pytest.fixture
def judge(grm, scripted, items):
    def run(output, *arguments, k=8):
        return grm(
            "judge", "--model", scripted, "--input", items, "--output", output, "--k", k, "--max-new", 64, *arguments
        )

    return run


@pytest.fixture
def full(judge, tmp_path):
    assert judge(tmp_path / "full")[0] == 0
    return tmp_path / "full"


@pytest.fixture
def early(judge, tmp_path):
    code, out, error = judge(tmp_path / "early", *STOP)
    assert code == 0, error
    taken = [judgement.k for judgement in judgements(tmp_path / "early")]
    assert 2 == min(taken) < max(taken)
    stopped = sum(k < 8 for k in taken)
    assert f"{sum(taken) / 8:.1f} critiques an item: {stopped} of 8 stopped early (confident)" in out
    return tmp_path / "early"


def test_live_is_replay(grm, early, full, scripted, items):
    whole, part = critiques(full), critiques(early)
    _, out, _ = grm("report", full, *STOP, "--json", "--judgements", full / "replayed.jsonl")
    replayed = [
        judgement_from_json(json.loads(line), "here") for line in (full / "replayed.jsonl").read_text().splitlines()
    ]
    made = judgements(early)
    assert [len(part[judgement.id]) for judgement in made] == [judgement.k for judgement in made]
    assert {name: whole[name][: len(samples)] for name, samples in part.items()} == part
    for live, replay in zip(made, replayed, strict=True):
        assert (live.k, live.scores, live.best, live.stop) == (replay.k, replay.scores, replay.best, replay.stop)
        assert live.stop == {"rule": "confident", "round": 2, "confidence": 0.8, "k": 8, "vote": "sum"}
    figures = json.loads(out)["all"]["anytime"]
    assert figures["mean_k"] == sum(judgement.k for judgement in made) / len(made)
    assert figures["early"] == sum(judgement.k < 8 for judgement in made)
    by_id = {entry.judgement.id: entry for entry in read_run(full)}
    same = [vote(by_id[live.id].judgement).best == live.best for live in made]
    assert figures["same"] <= sum(same) / len(same)  # a tie at k is another verdict
    batch = Judge.load(scripted, max_new=64).score_batch(read_jsonl_items(items), 8, stop=RULE)
    assert [(j.k, j.scores, j.stop) for j in batch] == [(j.k, j.scores, j.stop) for j in made]


@pytest.mark.parametrize("calls", [1, 5, 14])
def test_an_interrupted_run_decides_as_before(judge, early, tmp_path, monkeypatch, calls):
    run, left, append = tmp_path / "run", [calls], RunFolder.append

    def interrupted(self, item_id, new):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, item_id, new)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", interrupted)
        assert judge(run, *STOP)[0] == 130
    assert judge(run, *STOP)[0] == 0
    assert critiques(run) == critiques(early)
    assert judgements(run) == judgements(early)


def test_another_rule_or_none_draws_what_it_lacks(grm, judge, early, full):
    before = (early / "samples.jsonl").read_bytes()
    assert judge(early, "--stop", "exact")[0] == 0  # random critiques decide nothing for sure
    assert (early / "samples.jsonl").read_bytes().startswith(before)
    assert {judgement.stop["rule"] for judgement in judgements(early)} == {"exact"}
    assert judge(early)[0] == 0
    assert critiques(early) == critiques(full)
    assert judgements(early) == judgements(full)
    assert {judgement.stop for judgement in judgements(early)} == {None}
    code, out, error = grm("report", early, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["all"]["rows"] == json.loads(grm("report", full, "--json")[1])["all"]["rows"]


def test_a_report_has_no_curve_beyond_what_all_items_have(grm, judge, early, full, tmp_path):
    """What stopped items lack is lacking for what they said: their first critiques are comparable, the others are not."""
    code, out, error = grm("report", early, "--json", "--subsets", 5)
    assert code == 0
    assert "items stopped early, with 2 to 8 critiques: tables are about the first 2 of each" in error
    found = json.loads(out)["all"]
    assert judge(tmp_path / "two", k=2)[0] == 0
    two = json.loads(grm("report", tmp_path / "two", "--json", "--subsets", 5)[1])["all"]
    assert found["rows"] == two["rows"]
    assert found["curves"]["curves"] == two["curves"]["curves"]
    assert found["curves"]["one"] == two["curves"]["one"]
    replayed = json.loads(grm("report", full, "--json", *STOP)[1])["all"]["anytime"]
    assert found["anytime"] == {**replayed, **dict.fromkeys(OF_FULL)}
    assert found["anytime"]["full"] is None and replayed["full"]["count"] == 8
    assert "has 2 samples, k = 8 is asked" in grm("report", early, "--k", 8)[2]
    _, out, _ = grm("report", early, full, "--json")
    assert [row["k"] for row in json.loads(out)["all"]] == [1, 2]
    _, out, _ = grm("report", full, early, "--k", "1,2", "--json")
    assert [row["k"] for row in json.loads(out)["all"]] == [1, 2]
    _, out, _ = grm("report", early, "--figures", tmp_path / "figures.json", "--markdown", tmp_path / "report.md")
    line = f"anytime (confident at 80%, rounds of 2, vote sum): {found['anytime']['mean_k']:.1f} of 8 critiques an item"
    assert line in out and line in (tmp_path / "report.md").read_text()
    assert (
        json.loads((tmp_path / "figures.json").read_text())["anytime"]["figures"]["early"] == found["anytime"]["early"]
    )


def test_a_rule_that_asks_for_more_than_there_is(grm, early):
    code, _, error = grm("report", early, "--stop", "exact", "--k", 1)
    assert code == 2 and "run `grm judge` with this rule to the end" in error


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--confidence", 0.9), "there is no --stop"),
        (("--round", 2), "there is no --stop"),
        (("--stop", "exact", "--confidence", 0.9), "always certain"),
        (("--stop", "confident", "--confidence", 1.5), "above 0.5 and below 1"),
        (("--stop", "exact", "--round", 0), "--round must be at least 1"),
        (("--stop", "exact", "--vote", "meta_soft", "--meta-model", "tiny_meta"), "cannot stop early"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_loaded(refused, items, tmp_path, arguments, problem):
    error = refused("judge", "--model", "nowhere", "--input", items, "--output", tmp_path / "run", *arguments)
    assert problem in error
