"""`grm report --html`, `--markdown` and `--figures`: the judge report of a stored run."""

import json

import pytest

from grm_jax.data.jsonl import read_jsonl_items, write_jsonl


@pytest.fixture
def run(grm, scripted, items, tmp_path):
    code, _, error = grm("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 4)
    assert code == 0, error
    return tmp_path / "run"


def test_a_run_is_written_as_page_markdown_and_figures(grm, run, items, tmp_path):
    files = {option: tmp_path / f"report.{option}" for option in ("html", "markdown", "figures")}
    options = [part for option, path in files.items() for part in (f"--{option}", path)]
    code, out, error = grm("report", run, *options, "--items", items)
    assert code == 0 and "accuracy" in out, error
    figures = json.loads(files["figures"].read_text())
    assert [row["k"] for row in figures["accuracy"]["all"]] == [1, 2, 4]
    assert figures["run"]["items"] == len(read_jsonl_items(items)) == 8
    assert figures["length"] is not None
    assert "| all | 8 |" in files["markdown"].read_text() and "<!doctype html>" in files["html"].read_text()
    code, _, _ = grm("report", run, "--figures", files["figures"])  # without the texts
    assert code == 0 and json.loads(files["figures"].read_text())["length"] is None


def test_what_does_not_belong_to_the_run_is_refused(refused, run, items, tmp_path):
    assert "only --html, --markdown, --figures and --weaknesses need it" in refused("report", run, "--items", items)
    changed = tmp_path / "changed.jsonl"
    changed.write_text(items.read_text().replace("Is 3 odd?", "Is 3 even?"))
    error = refused("report", run, "--html", tmp_path / "r.html", "--items", changed)
    assert "item 'i3' had other texts when it was judged" in error and not (tmp_path / "r.html").exists()
    assert "--html" in refused("report", run, "--html", tmp_path / "nowhere" / "r.html")


def test_two_runs_are_compared_item_by_item(grm, refused, scripted, items, run, tmp_path):
    code, _, error = grm(
        "judge", "--model", scripted, "--input", items, "--output", tmp_path / "b", "--k", 4, "--seed", 1
    )
    assert code == 0, error
    code, out, error = grm("report", run, tmp_path / "b", "--k", "1,4")
    assert code == 0 and "b less run" in out and "all: 8 items judged in both runs" in out, error
    code, out, _ = grm("report", run, tmp_path / "b", "--k", "1,4", "--json")
    rows = json.loads(out)["all"]
    assert [row["k"] for row in rows] == [1, 4]
    assert all(row["difference"]["mean"] == pytest.approx(row["second"]["mean"] - row["first"]["mean"]) for row in rows)
    code, out, _ = grm("report", run, run, "--k", "4", "--json")
    assert json.loads(out)["all"][0]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "count": 8}
    assert "--html is of one run" in refused("report", run, run, "--html", tmp_path / "r.html")


def test_a_side_that_loses_is_told_by_the_items_sources(grm, refused, scripted, items, tmp_path):
    changed = tmp_path / "sided.jsonl"
    objects = [json.loads(line) for line in items.read_text().splitlines()]
    write_jsonl(changed, [{**item, "meta": {"sources": ["mine", "theirs"]}} for item in objects])
    code, _, error = grm("judge", "--model", scripted, "--input", changed, "--output", tmp_path / "run", "--k", 4)
    assert code == 0, error
    code, out, error = grm("report", tmp_path / "run", "--items", changed, "--weaknesses", "mine")
    assert code == 0 and "mine wins" in out and "of 8 items" in out, error
    shares = [
        json.loads(grm("report", tmp_path / "run", "--items", changed, "--weaknesses", name, "--json")[1])["all"][
            "mean"
        ]
        for name in ("mine", "theirs")
    ]
    assert sum(shares) == pytest.approx(1)
    assert "no item names it among its sources" in refused("report", tmp_path / "run", "--weaknesses", "mine")


def test_every_vote_is_shown_beside_both_baselines_with_its_cost(grm, refused, scripted, items, run, tmp_path):
    code, out, error = grm("report", run)
    assert code == 0, error
    for text in (
        "one sampled critique",
        "majority",
        "rank",
        "greedy",
        "not given",
        "--temperature 0 --k 1",
        "grm meta-score",
    ):
        assert text in out
    greedy = tmp_path / "greedy"
    given = ("judge", "--model", scripted, "--input", items, "--k", 1)
    assert grm(*given, "--output", greedy, "--temperature", 0)[0] == 0
    code, out, error = grm("report", run, "--greedy", greedy, "--json")
    assert code == 0, error
    curves = json.loads(out)["all"]["curves"]
    assert [curve["vote"] for curve in curves["curves"]] == ["sum", "mean", "majority", "rank"]
    assert all([point["k"] for point in curve["points"]] == [1, 2, 4] for curve in curves["curves"])
    alone = json.loads(grm("report", greedy, "--json")[1])["all"]
    assert curves["greedy"]["mean"] == alone["rows"][0]["accuracy"]["mean"] == alone["curves"]["one"]["mean"]
    assert curves["greedy"]["tokens"] == alone["curves"]["cost"]["by_k"][0]["tokens"] > 0
    cost = curves["cost"]
    assert cost["timed"] == 1.0 and [row["measured"] for row in cost["by_k"]] == [False, False, True]
    lines = [json.loads(line) for line in (run / "times.jsonl").read_text().splitlines()]
    assert [(line["what"], line["count"]) for line in lines] == [("critiques", 8 * 4)]
    assert cost["by_k"][2]["seconds"] == pytest.approx(lines[0]["seconds"] / 8)
    code, out, _ = grm("report", run, "--greedy", greedy)
    assert code == 0 and "not given" not in out
    assert "was sampled at temperature 0.5, not 0" in refused("report", run, "--greedy", run)
    assert grm(*given, "--output", tmp_path / "few", "--temperature", 0, "--limit", 3)[0] == 0
    assert "lacks item 'i3'; judge the same items greedily" in refused("report", run, "--greedy", tmp_path / "few")
    assert "--greedy is of one run" in refused("report", run, run, "--greedy", greedy)


def test_a_run_that_went_on_or_was_cut_off_knows_what_all_of_it_took(grm, scripted, items, run, tmp_path):
    given = ("judge", "--model", scripted, "--input", items, "--output", run)
    assert grm(*given, "--k", 6)[0] == 0 and grm(*given, "--k", 6)[0] == 0
    lines = [json.loads(line) for line in (run / "times.jsonl").read_text().splitlines()]
    assert [line["count"] for line in lines] == [32, 16]  # what draws nothing leaves no line
    cost = json.loads(grm("report", run, "--k", "4,6", "--json")[1])["all"]["curves"]["cost"]
    assert cost["by_k"][1]["measured"] and not cost["by_k"][0]["measured"]
    assert cost["by_k"][1]["seconds"] == pytest.approx(sum(line["seconds"] for line in lines) / 8)
    (run / "times.jsonl").write_text("{}\n")
    assert "times.jsonl:1: what: missing" in grm("report", run)[2]
