"""From a data set to a table, by commands alone."""

import json

import pytest

from grm_jax.cli import _parser
from grm_jax.data.jsonl import read_lines
from grm_jax.data.records import judgement_from_json
from grm_jax.judge.voting import vote


def objects(path):
    return [json.loads(line) for _, line in read_lines(path)]


def commands(parser, prefix=()):
    """Every subcommand, at any depth, as a tuple of words."""
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, subparser in action.choices.items():
                yield (*prefix, name)
                yield from commands(subparser, (*prefix, name))


def test_there_are_the_commands_that_are_promised():
    assert set(commands(_parser())) >= {("judge",), ("report",), ("data", "arena"), ("train",), ("convert",), ("info",)}


@pytest.mark.parametrize("words", [(), *commands(_parser())], ids=" ".join)
def test_help_shows_an_example(grm, words):
    code, out, error = grm(*words, "--help")
    assert (code, error) == (0, "")
    example = out.partition("example")[2]
    assert " ".join(("grm", *words)) in example


def test_arena_judge_report_info(grm, scripted, tmp_path):
    data, run = tmp_path / "arena.jsonl", tmp_path / "run"
    code, out, _ = grm("data", "arena", "--split", "test", "--count", 30, "--seed", 1, "--output", data)
    assert (code, out) == (0, f"wrote 30 items to {data}\n")
    pairs = [item for item in objects(data) if len(item["responses"]) == 2]
    data.write_text("".join(json.dumps(item) + "\n" for item in pairs))

    code, out, error = grm("judge", "--model", scripted, "--input", data, "--output", run, "--k", 8, "--max-new", 64)
    assert code == 0, error
    written = "run.json config.gin items.jsonl samples.jsonl judgements.jsonl"
    assert {path.name for path in run.iterdir()} >= set(written.split())
    judgements = [judgement_from_json(obj, "here") for obj in objects(run / "judgements.jsonl")]
    assert [judgement.id for judgement in judgements] == [item["id"] for item in pairs]
    assert all(judgement.k == len(judgement.samples) == 8 for judgement in judgements)
    outcomes = {name: sum(j.outcomes.get(name, 0) for j in judgements) for name in ("ok", "no_block")}
    assert sum(outcomes.values()) == 8 * len(pairs)
    counted = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    assert out.splitlines()[0] == f"{len(pairs)} items, k = 8: {counted}"

    code, out, error = grm("report", run)
    assert (code, error) == (0, "")
    cells = [line.strip("│ ").split("│")[0].strip() for line in out.splitlines() if "│" in line]
    assert cells == ["1", "2", "4", "8"]

    code, out, _ = grm("report", run, "--json", "--k", "2,8", "--vote", "majority")
    report = json.loads(out)["all"]
    assert [row["k"] for row in report["rows"]] == [2, 8]
    labels = {item["id"]: item["label"] for item in pairs}
    voted = [vote(judgement, policy="majority") for judgement in judgements]
    untied = [j for j in voted if j.scores and len(set(j.scores)) > 1]
    right = sum(j.best == labels[j.id] for j in untied) + sum(0.5 for j in voted if j.scores and j not in untied)
    assert report["rows"][1]["accuracy"]["mean"] == pytest.approx(right / len(pairs))

    code, out, _ = grm("report", run, "--by", "domain", "--json")
    domains = json.loads(out)
    assert set(domains) == {"all", *(item["domain"] for item in pairs)}
    assert sum(domains[name]["items"] for name in domains if name != "all") == len(pairs)
    _, out, _ = grm("report", run, "--by", "domain")
    assert all(name in out for name in domains)

    plot, written = tmp_path / "plot.png", tmp_path / "voted.jsonl"
    code, _, _ = grm("report", run, "--plot", plot, "--judgements", written, "--vote", "mean", "--k", 3)
    assert code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert [judgement_from_json(obj, "here") for obj in objects(written)] == [
        vote(j, policy="mean", k=3) for j in judgements
    ]

    code, out, _ = grm("info", run, "--json")
    facts = json.loads(out)
    assert (code, facts["items"], facts["samples"]) == (0, len(pairs), 8 * len(pairs))
    assert facts["outcomes"] == dict(sorted(outcomes.items()))


def test_a_report_without_labels_is_a_table_of_ties_and_failures(grm, scripted, items, tmp_path):
    unlabelled = [{key: value for key, value in obj.items() if key != "label"} for obj in objects(items)]
    items.write_text("".join(json.dumps(obj) + "\n" for obj in unlabelled))
    assert grm("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 2)[0] == 0
    code, out, error = grm("report", tmp_path / "run")
    assert (code, error) == (0, "")
    assert "8 items, none with a label" in out
    code, out, _ = grm("report", tmp_path / "run", "--json")
    rows = json.loads(out)["all"]["rows"]
    assert [(row["k"], row["accuracy"]) for row in rows] == [(1, None), (2, None)]
    assert all(0 <= row["tie_rate"] < 1 for row in rows)


def test_a_prompt_that_does_not_fit_is_counted_and_exit_code_3(grm, scripted, items, tmp_path):
    long = {"id": "long", "prompt": "word " * 900, "responses": ["a", "b"], "label": 1}
    with open(items, "a") as file:
        file.write(json.dumps(long) + "\n")
    arguments = ("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 2)
    for _ in range(2):  # running it again neither samples nor stores anything
        code, out, _ = grm(*arguments)
        assert code == 3
        assert "1 prompt_too_long" in out.splitlines()[0]
        assert "1 not judged: 0 malformed lines, 1 prompts too long" in out
        assert len(objects(tmp_path / "run" / "samples.jsonl")) == 8 * 2 + 1
    judgement = objects(tmp_path / "run" / "judgements.jsonl")[-1]
    assert (judgement["id"], judgement["scores"], judgement["outcomes"]) == ("long", None, {"prompt_too_long": 1})
    assert grm("report", tmp_path / "run")[0] == 0


def test_a_run_can_grow_by_items_and_by_k_for_some_of_them(grm, scripted, items, tmp_path):
    arguments = ("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run")
    assert grm(*arguments, "--k", 2)[0] == 0
    code, out, _ = grm(*arguments, "--k", 4, "--limit", 3)
    assert (code, out.splitlines()[0].partition(":")[0]) == (0, "3 items, k = 4")
    assert [judgement["k"] for judgement in objects(tmp_path / "run" / "judgements.jsonl")] == [4] * 3 + [2] * 5
    code, _, _ = grm(*arguments, "--k", 1, "--vote", "mean")
    assert code == 0
    assert [(j["k"], j["vote"]) for j in objects(tmp_path / "run" / "judgements.jsonl")] == [(1, "mean")] * 8
