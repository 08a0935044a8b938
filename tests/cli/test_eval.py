"""`grm eval`: from a benchmark's own rows to its figures, kept in a run folder that is never filled twice."""

import json
import shutil

import pytest

from grm_jax.benchmarks.registry import BENCHMARKS
from tests.benchmarks.benchmark_rows import write
from tests.tiny_judge import Scripted

NAMES = sorted(set(BENCHMARKS) - {"arena"})


def stored(run):
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def record(run):
    return json.loads((run / "eval.json").read_text())


@pytest.fixture
def evaluated(grm, scripted, tmp_path):
    """Evaluates a few rows of a benchmark with the scripted judge: (name, further arguments) -> (run, error output)."""

    def run(name, *arguments, output="run", most=3, code=0):
        data = () if name == "arena" else ("--data", write(tmp_path, name, most), "--partial")
        given = ("eval", "--benchmark", name, *data, "--model", scripted, "--output", tmp_path / output)
        done, _, error = grm(*given, *arguments)
        assert done == code, error
        return tmp_path / output, error

    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_goes_from_rows_to_figures(name, evaluated):
    run, error = evaluated(name, "--k", "1,2")
    found = record(run)
    assert [row["k"] for row in found["rows"]] == [1, 2]
    samples = stored(run)
    assert (
        len({(line["id"], line["index"]) for line in samples})
        == len(samples)
        == found["items"] * 2 * BENCHMARKS[name].games
    )
    for row in found["rows"]:
        overall = next(iter(row["figures"].values()))
        assert 0 <= overall["low"] <= overall["mean"] <= overall["high"] <= 1.01
    assert found["policies"] == {
        "ties": BENCHMARKS[name].default.ties,
        "failures": BENCHMARKS[name].default.failures,
        "vote": "sum",
        "k_meta": None,
    }
    assert found["run"] == json.loads((run / "run.json").read_text())
    published = {
        whose: {"vote": "sum", "k_meta": None, "ties": each.ties, "failures": each.failures}
        for whose, each in BENCHMARKS[name].published.items()
    }
    assert found["published"] == published
    assert "PARTIAL, not the benchmark's figure: the data lacks rows: " in error


def test_figures_follow_from_the_stored_samples(evaluated):
    run, _ = evaluated("judgebench", "--k", 2, most=6)
    games = {}
    for line in sorted(stored(run), key=lambda line: line["index"]):
        games.setdefault(line["id"], {}).setdefault(line["order"][0], []).append(line["scores"] or [0, 0])
    label = {line["id"]: line["label"] for line in map(json.loads, (run / "items.jsonl").read_text().splitlines())}
    right = 0
    for name, by_order in games.items():
        assert [len(by_order[first]) for first in (0, 1)] == [2, 2]
        gaps = [sum(a - b for a, b in scores) * (1 - 2 * label[name]) for scores in by_order.values()]
        right += sum((gap > 0) - (gap < 0) for gap in gaps) > 0
    assert record(run)["rows"][0]["figures"]["overall"]["mean"] == pytest.approx(right / len(games))


def test_a_larger_k_draws_only_what_is_missing_and_other_policies_draw_nothing(evaluated, grm, tmp_path):
    run, _ = evaluated("rewardbench", "--k", 2)
    before = stored(run)
    evaluated("rewardbench", "--k", 4)
    assert stored(run)[: len(before)] == before and len(stored(run)) == 2 * len(before)
    strict = ("--ties", "strict", "--failures", "wrong", "--vote", "majority")
    data = ("--data", tmp_path / "rewardbench.jsonl", "--partial")
    code, out, _ = grm("eval", "--benchmark", "rewardbench", *data, "--output", run, "--k", "1,4", *strict, "--json")
    assert code == 0 and len(stored(run)) == 2 * len(before)
    assert json.loads(out)["policies"] == {"ties": "strict", "failures": "wrong", "vote": "majority", "k_meta": None}
    assert "Chat/alpacaeval-easy" in json.loads(out)["rows"][0]["figures"]


@pytest.mark.parametrize("failures", ["wrong", "resample"])
def test_an_interrupted_evaluation_goes_on_and_counts_nothing_twice(
    evaluated, grm, scripted, tmp_path, monkeypatch, failures
):
    whole, _ = evaluated("rm_bench", "--k", 4, "--failures", failures, output="whole", most=2)
    sample = Scripted.sample
    drawn = 0

    def interrupted(self, requests, *, alike=False):
        nonlocal drawn
        for result in sample(self, requests, alike=alike):
            drawn += 1
            if drawn % 50 == 0:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(Scripted, "sample", interrupted)
    codes = []
    while not codes or codes[-1] == 130:
        data = ("--data", tmp_path / "rm_bench.jsonl", "--partial")
        given = ("--model", scripted, "--output", tmp_path / "cut", "--k", 4, "--failures", failures)
        codes.append(grm("eval", "--benchmark", "rm_bench", *data, *given)[0])
    assert len(codes) > 2 and codes[-1] == 0
    assert record(tmp_path / "cut") == record(whole)

    def key(line):
        return line["id"], line["index"]

    assert sorted(stored(tmp_path / "cut"), key=key) == sorted(stored(whole), key=key)


def test_resample_draws_in_place_of_critiques_that_cannot_be_read(evaluated):
    plain, _ = evaluated("ppe_preference", "--k", 2, most=40)
    again, _ = evaluated("ppe_preference", "--k", 2, "--failures", "resample", output="again", most=40)
    read = {}
    for line in stored(again):
        read.setdefault(line["id"], []).append(line["outcome"] == "ok")
    assert len(stored(again)) > len(stored(plain))
    assert all(sum(outcomes) >= 2 or len(outcomes) == 8 for outcomes in read.values())
    assert all(len(outcomes) == 2 for outcomes in read.values() if all(outcomes))
    assert record(again)["rows"][0]["failed"] == 0.0
    assert record(again)["policies"]["failures"] == "resample"


def test_a_run_of_something_else_is_refused(evaluated, refused, scripted, tmp_path):
    run, _ = evaluated("rmb", "--k", 1)
    data = tmp_path / "rmb"

    def message(name="rmb", data=data, model=scripted, *arguments):
        given = ("--benchmark", name, "--data", data, "--partial", "--output", run, "--k", 1)
        return refused("eval", *given, *(("--model", model) if model else ()), *arguments)

    assert "made with benchmark = 'rmb', now 'rmb_pairs'" in message("rmb_pairs")
    assert "made with benchmark = 'rmb', now 'rmb_pairs'" in message("rmb_pairs", data, None)
    assert "made with template = 'tiny@" in message("rmb", data, scripted, "--template", "grm")
    assert "made with seed = 0, now 1" in message("rmb", data, scripted, "--seed", 1)
    assert "made with seed = 0, now 1" in message("rmb", data, None, "--seed", 1)
    other = tmp_path / "other"
    shutil.copytree(scripted, other)
    assert "made with model = " in message("rmb", data, other)
    file = sorted(data.rglob("*.jsonl"))[0]
    file.write_text(file.read_text().replace("loser1", "changed"))
    assert "made with data = '" in message() and "made with data = '" in message("rmb", data, None)


def test_what_was_not_drawn_is_not_voted_on(evaluated, refused, tmp_path):
    run, _ = evaluated("rewardbench", "--k", 1, "--limit", 5)
    given = (
        "eval",
        "--benchmark",
        "rewardbench",
        "--data",
        tmp_path / "rewardbench.jsonl",
        "--partial",
        "--output",
        run,
    )
    assert "has 1 samples, k = 2 is asked" in refused(*given, "--limit", 5, "--k", 2)
    assert "is not judged yet; give --model to judge it" in refused(*given)
    assert "holds no run.json" in refused(*given[:-1], tmp_path / "none")
    assert record(run)["cases"] == 5 and record(run)["cases_there"] == 69


def test_a_limit_is_called_a_part(evaluated):
    run, error = evaluated("arena", "--k", 1, "--limit", 4)
    assert record(run)["cases"] == 4 and len(stored(run)) == 4
    assert "PARTIAL, not the benchmark's figure: 4 of " in error


def test_prompts_that_do_not_fit_are_failures_and_exit_code_3(grm, scripted, tmp_path):
    path = write(tmp_path, "ppe_preference", 3)
    path.write_text(path.read_text().replace('"q1"', json.dumps("long " * 3000)))
    given = ("--data", path, "--partial", "--model", scripted, "--output", tmp_path / "run")
    assert grm("eval", "--benchmark", "ppe_preference", *given)[0] == 3
    assert record(tmp_path / "run")["outcomes"]["prompt_too_long"] == 1
    assert record(tmp_path / "run")["rows"][0]["failed"] >= 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "mtbench"), "--benchmark: 'mtbench' is not known; use one of rewardbench, "),
        (("--ties", "half"), "--ties half: judgebench has its own rule for ties; leave it out"),
        (("--failures", "skip"), "failures: 'skip' is not known here; use one of wrong, chance, resample"),
        (("--vote", "loudest"), "vote: 'loudest' is not known here; use one of sum, mean, majority, rank, meta_topk"),
        (
            ("--vote", "meta_topk"),
            "--vote meta_topk: critiques have no meta scores without a --meta-model; give --meta-model",
        ),
        (("--k-meta", "1"), "k_meta: the vote 'sum' does not use it"),
        (
            ("--k", "2,4", "--vote", "meta_topk", "--k-meta", "3"),
            "--k-meta 3: does not fit --k 2; use 1..2, or a share",
        ),
        (("--meta-model", "gone"), "gone: no such folder"),
        (("--error-below", "6"), "--error-below 6: is of realmistake, not of judgebench"),
        (("--revision", "0" * 40), "--data is given; leave out one of them"),
        (("--benchmark", "rewardbench", "--ties", "own"), "--ties own: not known"),
        (("--k", "1,x"), "--k 1,x: write numbers with commas"),
        (("--k", "0"), "--k 0: every k must be at least 1"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        ((), "judgebench.jsonl: is not all of judgebench: mmlu-pro 1 of 154 rows, livebench-reasoning 1 of 98"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_is_made(refused, tmp_path, arguments, message):
    given = ("--benchmark", "judgebench", "--data", write(tmp_path, "judgebench", 1), "--output", tmp_path / "run")
    assert message in refused("eval", *given, "--model", "tiny", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_judge_that_really_samples_is_evaluated(grm, compiled, tmp_path):
    data = write(tmp_path, "rewardbench", 1)
    given = (
        "--data",
        data,
        "--partial",
        "--limit",
        2,
        "--model",
        compiled,
        "--output",
        tmp_path / "run",
        "--max-new",
        8,
    )
    code, out, error = grm("eval", "--benchmark", "rewardbench", *given)
    assert code == 0, error
    assert "ties half, failures chance, as RewardBench, generative judges" in " ".join(out.split())
    assert len(stored(tmp_path / "run")) == 2


def test_the_help_names_every_benchmark(grm):
    _, out, _ = grm("eval", "--help")
    names = out.partition("benchmarks:")[2].partition("examples:")[0].replace(",", " ").split()
    assert names == list(BENCHMARKS)
