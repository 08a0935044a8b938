"""`grm data overlap`: planted questions are found, by items and by benchmark."""

import json

from grm_jax.data.jsonl import write_jsonl

PLANTED = "name the seven colours of the rainbow in the order in which they appear from the outside"


def files(tmp_path):
    items = [
        {"id": "planted", "prompt": PLANTED + ", please", "responses": ["red", "blue"], "label": 0, "domain": "x"},
        {"id": "clean", "prompt": " ".join(f"word{i}" for i in range(20)), "responses": ["a", "b"], "label": 0, "domain": "y"},
        {"id": "short", "prompt": "hello", "responses": ["a", "b"], "label": 0, "domain": "y"},
    ]  # fmt: skip
    write_jsonl(tmp_path / "items.jsonl", items)
    rows = [{"text": "nothing of that"}, {"messages": [{"role": "user", "content": f"Please {PLANTED.upper()}!"}]}]
    write_jsonl(tmp_path / "train.jsonl", rows)
    return tmp_path / "items.jsonl", tmp_path / "train.jsonl"


def test_a_planted_question_is_found_and_named(grm, tmp_path):
    items, train = files(tmp_path)
    code, out, error = grm("data", "overlap", "--train", train, "--input", items, "--output", tmp_path / "found.jsonl")
    assert code == 0, error
    assert "100% of planted:" in " ".join(out.split()) or "% of planted:" in out
    assert "train.jsonl:2" in out.replace("\n", "")
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [bool(each["row"]) for each in found] == [True, False, False]
    code, out, _ = grm("data", "overlap", "--train", train, "--train", train, "--input", items, "--json")
    groups = json.loads(out)["groups"]
    assert groups["all"] == {"questions": 3, "prompt": 1, "responses": 0, "either": 1, "half": 1, "too_short": 1}
    assert groups["y"]["either"] == 0
    assert (
        json.loads(grm("data", "overlap", "--train", train, "--input", items, "--words", 30, "--json")[1])["groups"][
            "all"
        ]["too_short"]
        == 3
    )


def test_what_is_wrong_is_told_in_one_line(refused, tmp_path):
    items, train = files(tmp_path)
    given = ("data", "overlap", "--train", train)
    assert "--data belongs to a --benchmark" in refused(*given, "--input", items, "--data", items)
    assert "--words must be at least 1" in refused(*given, "--input", items, "--words", 0)
    assert "nothing.jsonl" in refused("data", "overlap", "--train", tmp_path / "nothing.jsonl", "--input", items)
    assert "--benchmark" in refused(*given, "--benchmark", "nonesuch")


def test_what_stands_in_brackets_is_no_markup(grm, tmp_path):
    items, train = files(tmp_path)
    items.write_text(
        items.read_text().replace('"domain":"x"', '"domain":"[/x]"').replace('"domain": "x"', '"domain": "[/x]"')
    )
    code, out, error = grm("data", "overlap", "--train", train, "--input", items)
    assert code == 0 and "[/x]" in out, error
