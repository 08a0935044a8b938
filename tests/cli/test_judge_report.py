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
