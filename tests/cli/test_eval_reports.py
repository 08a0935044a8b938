"""What is made of evaluations: guided votes, the judge report of a benchmark's run, the paper's overall score."""

import json
import re

import pytest

from grm_jax.benchmarks.registry import PAPER_COLUMNS
from grm_jax.judge.meta import MetaModel
from tests.benchmarks.benchmark_rows import write
from tests.tiny_meta import write_meta


@pytest.fixture(scope="module")
def meta_folder(tmp_path_factory, judge_folder):
    return write_meta(tmp_path_factory.mktemp("meta") / "meta", judge_folder)


@pytest.fixture
def evaluate(grm, scripted, tmp_path):
    """Evaluates a few rows of a benchmark: (name, arguments) -> run folder; most: rows of each subset."""

    def run(name, *arguments, most=2, model=True, output=None):
        data = tmp_path / f"{name}.jsonl" if (tmp_path / f"{name}.jsonl").exists() else write(tmp_path, name, most)
        judge = ("--model", scripted) if model else ()
        folder = tmp_path / (output or f"run-{name}")
        given = ("eval", "--benchmark", name, "--data", data, "--partial", "--output", folder, *judge)
        code, _, error = grm(*given, *arguments)
        assert code == 0, error
        return folder

    return run


def record(run):
    return json.loads((run / "eval.json").read_text())


def test_a_guided_evaluation_scores_every_critique_once_and_can_be_voted_on_again(evaluate, meta_folder):
    guided = ("--k", 4, "--vote", "meta_topk", "--k-meta", 0.5)
    run = evaluate("rewardbench", *guided, "--meta-model", meta_folder)
    found = record(run)
    assert (found["policies"]["vote"], found["policies"]["k_meta"]) == ("meta_topk", 0.5)
    scored = (run / "meta_scores.jsonl").read_bytes()
    readable = sum(json.loads(line)["scores"] is not None for line in (run / "samples.jsonl").open())
    assert len(scored.splitlines()) == readable
    evaluate("rewardbench", *guided, "--meta-model", meta_folder)
    evaluate("rewardbench", *guided, model=False)  # stored scores do
    assert record(run)["rows"] == found["rows"] and (run / "meta_scores.jsonl").read_bytes() == scored
    evaluate("rewardbench", "--k", 4, "--vote", "meta_topk", "--k-meta", 4, model=False)
    kept = record(run)["rows"]
    evaluate("rewardbench", "--k", 4, model=False)
    assert record(run)["rows"] == kept != found["rows"]


def test_interrupted_scoring_goes_on_and_scores_nothing_twice(
    evaluate, grm, scripted, meta_folder, tmp_path, monkeypatch
):
    guided = ("--k", 4, "--vote", "meta_soft", "--meta-model", meta_folder)
    whole = evaluate("rewardbench", *guided, output="whole")
    score, scored = MetaModel.score, 0

    def interrupted(self, wanted):
        nonlocal scored
        for result in score(self, wanted):
            scored += 1
            if scored % 40 == 0:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(MetaModel, "score", interrupted)
    given = ("--data", tmp_path / "rewardbench.jsonl", "--partial", "--model", scripted, "--output", tmp_path / "cut")
    codes = []
    while not codes or codes[-1] == 130:
        codes.append(grm("eval", "--benchmark", "rewardbench", *given, *guided)[0])
    assert len(codes) > 1 and codes[-1] == 0
    assert record(tmp_path / "cut")["rows"] == record(whole)["rows"]
    lines = [json.loads(line) for line in (tmp_path / "cut" / "meta_scores.jsonl").open()]
    assert (
        len({(line["id"], line["index"]) for line in lines})
        == len(lines)
        == len((whole / "meta_scores.jsonl").open().readlines())
    )


def test_an_empty_file_is_refused_before_anything_is_made(refused, scripted, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    given = ("--data", tmp_path / "rows.jsonl", "--model", scripted, "--output", tmp_path / "run")
    assert "rows.jsonl: holds no rows; check that it is the right file" in refused("eval", "--benchmark", "rmb", *given)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_is_scored_by_a_meta_model_later_and_by_no_other(
    evaluate, grm, refused, scripted, meta_folder, tmp_path
):
    run = evaluate("judgebench", "--k", 2)
    sampled = (run / "samples.jsonl").read_bytes()
    given = ("eval", "--benchmark", "judgebench", "--data", tmp_path / "judgebench.jsonl", "--partial", "--output", run)
    assert "has no meta score, which the vote 'meta_soft' needs" in refused(*given, "--k", 2, "--vote", "meta_soft")
    evaluate("judgebench", "--k", 2, "--vote", "meta_soft", "--meta-model", meta_folder, model=False)
    assert record(run)["policies"]["vote"] == "meta_soft" and (run / "samples.jsonl").read_bytes() == sampled
    other = write_meta(tmp_path / "other", meta_folder, seed=1)
    assert "remove meta_scores.jsonl to have them scored anew" in refused(*given, "--k", 2, "--meta-model", other)


@pytest.mark.parametrize("name", ["rewardbench", "realmistake", "judgebench", "rmb", "rewardbench2"])
def test_the_judge_report_of_a_benchmark_has_its_own_protocol_and_its_subsets(evaluate, grm, tmp_path, name):
    run = evaluate(name, "--k", "1,2")
    files = {option: tmp_path / f"report.{option}" for option in ("html", "markdown", "figures")}
    options = [part for option, path in files.items() for part in (f"--{option}", path)]
    data = tmp_path / (f"{name}.jsonl" if (tmp_path / f"{name}.jsonl").exists() else name)
    code, out, error = grm("report", run, *options, "--items", data)
    assert code == 0, error
    figures = json.loads(files["figures"].read_text())
    assert figures["benchmark"]["record"] == record(run)
    overall, interval = next(iter(record(run)["rows"][1]["figures"].items()))
    cell = f"{100 * interval['mean']:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
    markdown = files["markdown"].read_text()
    assert f"## {name} by its own protocol (%)" in markdown
    (line,) = [line for line in markdown.partition("## ")[2].splitlines() if line.startswith(f"| {overall} |")][:1]
    assert line.endswith(f"{cell} |") and cell in files["html"].read_text() and cell in out
    assert "PARTIAL: the data lacks rows" in out and "PARTIAL" in files["html"].read_text()
    if name == "rewardbench":
        assert "| Chat/alpacaeval-easy | 2 |" in markdown  # accuracy of single items, by subset
    if name != "realmistake":
        assert figures["curves"]["items"] > 0
    if name == "realmistake":
        assert figures["curves"] is None and "pooled AUC" in out and "macro AUC" in out
    code, out, _ = grm("report", run, "--json")
    assert json.loads(out)["all"]["benchmark"] == record(run)


def test_a_record_that_is_damaged_is_refused(evaluate, refused):
    run = evaluate("judgebench", "--k", 1)
    text = (run / "eval.json").read_text()
    (run / "eval.json").write_text(text.replace('"cases"', '"case"'))
    assert f"{run / 'eval.json'}: 'case': unknown field; did you mean 'cases'?" in refused("report", run)
    (run / "eval.json").write_text(text[: len(text) // 2])
    assert f"{run / 'eval.json'}: not valid JSON" in refused("report", run)


def test_realmistake_has_the_metrics_of_a_detector_where_a_threshold_is_given(evaluate):
    run = evaluate("realmistake", "--k", 2, "--error-below", 6, most=30)
    found = record(run)
    assert "a mean score below 6 says error" in found["title"]
    figures = found["rows"][0]["figures"]
    models = ("gpt-4-0613", "Llama-2-70b-chat-hf")
    names = [f"{metric} {model}" for model in models for metric in ("accuracy", "precision", "recall", "f1")]
    assert set(names) <= set(figures) and {"pooled AUC", "macro AUC"} <= set(figures)
    assert all(0 <= figures[name]["low"] <= figures[name]["mean"] <= figures[name]["high"] <= 1 for name in names)
    evaluate("realmistake", "--k", 2, most=30, model=False)
    assert not set(names) & set(record(run)["rows"][0]["figures"])


@pytest.fixture
def four(evaluate):
    """Evaluations of the paper's four benchmarks with the overall scores that it prints for its 27B judge."""
    printed = dict(zip(PAPER_COLUMNS, (0.860, 0.647, 0.598, 0.690), strict=True))
    runs = []
    for name, overall in printed.items():
        run = evaluate(name, "--k", "1,2", most=1)
        found = record(run)
        first = next(iter(found["rows"][0]["figures"]))
        found["rows"][0]["figures"][first] = {"mean": overall, "low": overall, "high": overall}
        (run / "eval.json").write_text(json.dumps(found) + "\n")
        runs.append(run)
    return runs


def test_the_papers_overall_score_is_the_mean_of_its_four_columns(grm, four):
    code, out, error = grm("overall", *four)
    assert code == 0, error
    (row,) = [line for line in out.splitlines() if re.search(r"│\s+1 │", line)]
    assert row.replace("│", " ").split() == ["1", "69.9", "86.0", "64.7", "59.8", "69.0"]
    assert "PARTIAL: rewardbench: the data lacks rows" in out and "not as the paper scores" in out
    found = json.loads(grm("overall", *four[::-1], "--json")[1])
    assert found["rows"][0]["overall"] == pytest.approx(0.69875) and [row["k"] for row in found["rows"]] == [1, 2]


def test_what_has_no_overall_score_is_refused(refused, evaluate, four):
    assert "there is no run of rmb; the overall score is of rewardbench" in refused("overall", *four[:3])
    assert "is a second run of rewardbench" in refused("overall", *four, four[0])
    assert "is of judgebench, which is not in the paper's overall score" in refused("overall", evaluate("judgebench"))
    assert "holds no eval.json" in refused("overall", four[0].parent)
    found = record(four[1])
    found["run"]["model"] = "another"
    (four[1] / "eval.json").write_text(json.dumps(found))
    assert "its model is 'another'" in refused("overall", *four)
    found = record(four[1]) | {"run": record(four[0])["run"], "rows": [{**found["rows"][0], "k": 7}]}
    (four[1] / "eval.json").write_text(json.dumps(found))
    assert "evaluated at no common k" in refused("overall", *four)
