"""Guided voting by commands: scores beside stored critiques, votes at any k_meta, and what is refused."""

import json

import pytest

from grm_jax.data.records import judgement_from_json
from grm_jax.judge.run_folder import read_run
from tests.tiny_meta import write_meta


@pytest.fixture(scope="module")
def meta_folder(tmp_path_factory, judge_folder):
    return write_meta(tmp_path_factory.mktemp("meta") / "meta", judge_folder)


@pytest.fixture
def judge(grm, scripted, items, tmp_path):
    def run(*arguments, k=4, output="run"):
        given = ("--input", items, "--output", tmp_path / output, "--k", k, "--limit", 4)
        return grm("judge", "--model", scripted, *given, *arguments)

    return run


def judgements(run):
    return [
        judgement_from_json(json.loads(line), "here") for line in (run / "judgements.jsonl").read_text().splitlines()
    ]


def scores(run):
    return {(j.id, s.index): s.meta_score for j in judgements(run) for s in j.samples}


def test_scores_come_with_the_critiques_or_after_them_and_are_the_same(grm, judge, items, tmp_path, meta_folder):
    guided = ("--meta-model", meta_folder, "--vote", "meta_topk", "--k-meta", 1)
    code, _, error = judge(*guided)
    assert code == 0, error
    run, later = tmp_path / "run", tmp_path / "later"
    for judgement in judgements(run):
        ok = [s for s in judgement.samples if s.outcome == "ok"]
        assert all((s.meta_score is not None) == (s.outcome == "ok") for s in judgement.samples)
        best = sorted(ok, key=lambda s: -s.meta_score)[:1]
        assert judgement.scores == tuple(sum(s.scores[i] for s in best) for i in range(2))
    assert len(set(scores(run).values())) > 4

    assert judge(output="later")[0] == 0
    sampled = (later / "samples.jsonl").read_bytes()
    code, out, error = grm("meta-score", later, "--meta-model", meta_folder, "--input", items)
    assert code == 0, error
    assert "critiques of 4 items" in out
    assert (later / "samples.jsonl").read_bytes() == sampled == (run / "samples.jsonl").read_bytes()
    assert judge(*guided, output="later")[0] == 0
    assert scores(later) == pytest.approx(scores(run), abs=1e-5)
    assert [j.scores for j in judgements(later)] == [j.scores for j in judgements(run)]

    stored = (run / "meta_scores.jsonl").read_bytes()
    assert judge(*guided)[0] == 0  # nothing is scored twice
    assert (run / "meta_scores.jsonl").read_bytes() == stored
    assert judge(*guided, k=5)[0] == 0  # a larger k scores only what is new
    assert (run / "meta_scores.jsonl").read_bytes().startswith(stored)
    assert {index for _, index in scores(run)} == set(range(5))

    for k_meta in (1, 3, 5):
        code, out, error = grm("report", run, "--vote", "meta_topk", "--k-meta", k_meta, "--json")
        assert (code, error) == (0, "")
        report = json.loads(out)["all"]
        assert [row["k"] for row in report["rows"]] == {1: [1, 2, 4], 3: [4], 5: [5]}[k_meta]
    counted = sum(s.outcome == "ok" for entry in read_run(run) for s in entry.judgement.samples)
    assert report["calibration"]["critiques"] == counted
    plot = tmp_path / "plot.png"
    code, out, _ = grm("report", run, "--vote", "meta_soft", "--calibration-plot", plot)
    assert code == 0 and plot.read_bytes().startswith(b"\x89PNG")
    assert "meta scores: AUC within items" in out and "calibration error" in out


def test_what_cannot_be_voted_is_refused_before_anything_is_made(refused, items, tmp_path, judge_folder, meta_folder):
    given = ("judge", "--model", judge_folder, "--input", items, "--output", tmp_path / "run", "--k", 4)
    for arguments, message in (
        (
            ("--vote", "meta_topk", "--k-meta", 5, "--meta-model", meta_folder),
            "--k-meta 5: does not fit --k 4; use 1..4",
        ),
        (("--vote", "meta_topk", "--k-meta", 0, "--meta-model", meta_folder), "--k-meta 0: does not fit --k 4"),
        (("--k-meta", 2, "--meta-model", meta_folder), "--k-meta 2: the vote 'sum' does not use it"),
        (("--vote", "meta_soft"), "without a --meta-model"),
        (("--meta-model", judge_folder), "has no scalar_head.safetensors, so it is no meta model"),
        (("--meta-model", "gone"), "gone: no such folder"),
    ):
        assert message in refused(*given, *arguments)
        assert not (tmp_path / "run").exists()


def test_what_cannot_be_reported_or_scored_is_refused(grm, refused, judge, items, tmp_path, meta_folder):
    run = tmp_path / "run"
    assert judge()[0] == 0
    assert "no labelled item has meta scores" in refused("report", run, "--calibration-plot", tmp_path / "plot.png")
    assert grm("meta-score", run, "--meta-model", meta_folder, "--input", items)[0] == 0
    topk = ("report", run, "--vote", "meta_topk", "--k-meta")
    assert "--k-meta 5: does not fit k = 4; use 1..4" in refused(*topk, 5)
    assert "--k-meta 3: does not fit k = 2" in refused(*topk, 3, "--k", "4,2")
    other = write_meta(tmp_path / "other", meta_folder, seed=1)
    scoring = ("meta-score", run, "--meta-model", other, "--input", items)
    assert "remove meta_scores.jsonl to have them scored anew" in refused(*scoring)
    items.write_text(items.read_text().replace("Is 3 odd?", "Is 3 even?"))
    assert "item 'i3' was stored with other texts" in refused(
        "meta-score", run, "--meta-model", meta_folder, "--input", items
    )
    items.write_text(json.dumps({"id": "new", "prompt": "p", "responses": ["a", "b"]}) + "\n")
    assert "holds no item of" in refused("meta-score", run, "--meta-model", meta_folder, "--input", items)
    assert "holds no run.json" in refused("meta-score", tmp_path, "--meta-model", meta_folder, "--input", items)
