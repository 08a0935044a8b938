"""Preference sets in the wild: a golden record of each layout, and what is left out because nothing is guessed."""

import gzip
import json
from collections import Counter

import pytest

from grm_jax.cli import main
from grm_jax.data.jsonl import read_jsonl_items, write_jsonl
from grm_jax.data.layouts import LAYOUTS, NoUniqueBest, item_from_layout
from grm_jax.data.preferences import items_from_source
from grm_jax.data.records import Item, Turn
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError


def talk(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def helpsteer(response, helpfulness, prompt="p"):
    rest = {"correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, **rest}


ULTRA = {
    "source": "sharegpt",
    "instruction": "Which?",
    "models": ["m0", "m1", "m2"],
    "completions": [
        {"model": "m0", "response": "a", "fine-grained_score": 3.5, "overall_score": 10.0, "critique": "bad"},
        {"model": "m1", "response": "b", "fine-grained_score": 4.75, "overall_score": 8.0, "critique": "good"},
        {"model": "m2", "response": "c", "fine-grained_score": 3.5, "overall_score": 6.0, "critique": "fair"},
    ],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}
BINARIZED = {
    "prompt": "Which?",
    "prompt_id": "0f",
    "chosen": talk("Which?", "good"),
    "rejected": talk("Which?", "bad"),
    "messages": talk("Which?", "good"),
    "score_chosen": 8.5,
    "score_rejected": 4.0,
}
MULTI_TURN = "one\n<extra_id_1>Assistant\ntwo\n<extra_id_1>User\nthree"
PREFERENCE = {
    "split": "train",
    "prompt": MULTI_TURN,
    "response_1": "x",
    "response_2": "y",
    "preference_strength": -2,
    "preference_statement": "@Response 1 is better",
}
SKYWORK = {"chosen": talk("a", "b", "c", "good"), "rejected": talk("a", "b", "c", "bad"), "source": "magpie"}
OFFSETBIAS = {"instruction": "Which?", "output_1": "x", "output_2": "y", "label": 2}

USER = (Turn("user", "Which?"),)
THREE = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))
GOLDEN = {
    "ultrafeedback": (
        ULTRA,
        Item(
            "ultrafeedback-7", USER, ("a", "b", "c"), 1, domain="sharegpt",
            meta={
                "models": ["m0", "m1", "m2"], "correct_answers": ["None"], "incorrect_answers": ["None"],
                "scores": [3.5, 4.75, 3.5],
            },
        ),
    ),
    "ultrafeedback_binarized": (
        BINARIZED,
        Item(
            "ultrafeedback_binarized-7", USER, ("good", "bad"), 0,
            meta={
                "prompt": "Which?", "prompt_id": "0f", "messages": talk("Which?", "good"), "scores": [8.5, 4.0],
            },
        ),
    ),
    "helpsteer2": (
        [helpsteer("x", 2), helpsteer("y", 4)],
        Item("helpsteer2-7", (Turn("user", "p"),), ("x", "y"), 1, meta={"scores": [2, 4]}),
    ),
    "helpsteer2_preference": (
        PREFERENCE,
        Item(
            "helpsteer2_preference-7", THREE, ("x", "y"), 0, strength=2,
            meta={"split": "train", "preference_statement": "@Response 1 is better"},
        ),
    ),
    "skywork": (
        SKYWORK,
        Item(
            "skywork-7", (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")), ("good", "bad"), 0,
            domain="magpie",
        ),
    ),
    "offsetbias": (OFFSETBIAS, Item("offsetbias-7", USER, ("x", "y"), 1)),
}  # fmt: skip


def test_every_layout_has_a_golden_record():
    assert {*GOLDEN, "items", "judgebench"} == set(LAYOUTS)  # those two: test_records.py and test_layouts.py


@pytest.mark.parametrize("layout", GOLDEN)
def test_a_record_becomes_an_item(layout):
    record, item = GOLDEN[layout]
    assert item_from_layout(layout, record, "here", 7) == item


@pytest.mark.parametrize(("number", "label", "strength"), [(-3, 0, 3), (-1, 0, 1), (1, 1, 1), (3, 1, 3)])
def test_the_sign_names_the_best_and_the_size_its_strength(number, label, strength):
    item = item_from_layout("helpsteer2_preference", {**PREFERENCE, "preference_strength": number}, "here")
    assert (item.label, item.strength) == (label, strength)


def scored(*scores):
    completions = [{"response": f"r{i}", "fine-grained_score": score} for i, score in enumerate(scores)]
    return {**ULTRA, "completions": completions}


NO_BEST = [
    ("ultrafeedback", scored(4, 2, 4), "tie"),
    ("ultrafeedback", scored(4, None), "unscored"),
    ("ultrafeedback", scored(), "too few"),
    ("ultrafeedback", scored(4), "too few"),
    ("ultrafeedback_binarized", {**BINARIZED, "score_rejected": 8.5}, "tie"),
    ("helpsteer2", [helpsteer("x", 3), helpsteer("y", 3)], "tie"),
    ("helpsteer2_preference", {**PREFERENCE, "preference_strength": 0}, "tie"),
    ("skywork", {**SKYWORK, "rejected": SKYWORK["chosen"]}, "identical"),
    ("offsetbias", {**OFFSETBIAS, "output_1": "y"}, "identical"),
]


@pytest.mark.parametrize(("layout", "record", "reason"), NO_BEST)
def test_without_a_unique_best_there_is_no_item(layout, record, reason):
    with pytest.raises(NoUniqueBest, match=r"^here: .*; leave it out, as `grm data convert` does$") as error:
        item_from_layout(layout, record, "here")
    assert error.value.reason == reason


def test_a_tie_below_the_best_is_no_tie():
    assert item_from_layout("ultrafeedback", scored(1, 1, 2, 1), "here").label == 2


@pytest.mark.parametrize(
    ("layout", "record", "message"),
    [
        ("offsetbias", {**OFFSETBIAS, "label": 0}, "here: label: 0 is not known; use one of 1, 2"),
        ("offsetbias", {**OFFSETBIAS, "label": True}, "here: label: True is not known"),
        ("offsetbias", {**OFFSETBIAS, "label": [1]}, r"here: label: \[1\] is not known"),
        ("offsetbias", {"instruction": "x"}, "here: output_1: missing"),
        (
            "helpsteer2",
            [helpsteer("x", 3), helpsteer("y", 4, "q")],
            r"here: rows\[\*\]\.prompt: the 2 rows of an item have",
        ),
        ("helpsteer2", [helpsteer("x", 3), {"prompt": "p"}], r"here: rows\[1\]: response: missing"),
        (
            "helpsteer2_preference",
            {**PREFERENCE, "preference_strength": 4},
            "here: preference_strength: 4 is out of range",
        ),
        (
            "skywork",
            {**SKYWORK, "rejected": talk("a", "b", "d", "bad")},
            "here: rejected: is not the same conversation",
        ),
        ("skywork", {**SKYWORK, "chosen": talk("a", "b", "c")}, "here: chosen: is not the same conversation"),
        ("ultrafeedback", {**ULTRA, "completions": "x"}, "here: completions: must be an array"),
        ("ultrafeedback", scored("4", "5"), r"here: completions\[0\].fine-grained_score: must be a number"),
    ],
)
def test_a_malformed_record_is_refused_with_the_data_sets_own_field(layout, record, message):
    with pytest.raises(UserError, match=message) as error:
        item_from_layout(layout, record, "here")
    assert not isinstance(error.value, NoUniqueBest)


def convert(tmp_path, layout, source):
    output = tmp_path / "items.jsonl"
    return main(["data", "convert", "--from", str(source), "--layout", layout, "--output", str(output)]), output


def test_convert_writes_items_and_counts_what_it_leaves_out(tmp_path, capsys):
    rows = [ULTRA, scored(4, 4), scored(None, 4), scored(5, 5), ULTRA]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    code, output = convert(tmp_path, "ultrafeedback", tmp_path / "rows.jsonl")
    assert code == 0
    assert [item.id for item in read_jsonl_items(output)] == ["ultrafeedback-0", "ultrafeedback-4"]
    told = capsys.readouterr().out.splitlines()
    assert told == [f"wrote 2 items to {output}", "left out 3 of 5: 2 tie, 1 unscored"]


def test_rows_that_make_one_item_together_are_taken_in_turn(tmp_path, capsys):
    rows = [helpsteer(f"r{i}", i % 5, f"p{i // 2}") for i in range(6)]
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    dropped = Counter()
    items = list(items_from_source(open_source(str(tmp_path / "rows.jsonl.gz")), "helpsteer2", dropped))
    assert [(item.conversation[0].content, item.responses, item.label) for item in items] == [
        ("p0", ("r0", "r1"), 1),
        ("p1", ("r2", "r3"), 1),
        ("p2", ("r4", "r5"), 0),
    ]
    assert not dropped
    write_jsonl(tmp_path / "odd.jsonl", rows[:5])
    assert convert(tmp_path, "helpsteer2", tmp_path / "odd.jsonl")[0] == 2
    assert "odd.jsonl:5: 5 rows do not make whole items of 2 rows" in capsys.readouterr().err
    with pytest.raises(UserError, match="layout helpsteer2 has 2 lines an item; use `grm data convert` first"):
        read_jsonl_items(tmp_path / "odd.jsonl", layout="helpsteer2")


def test_convert_refuses_what_it_cannot_turn_into_items(tmp_path, capsys):
    write_jsonl(tmp_path / "ties.jsonl", [scored(4, 4)])
    write_jsonl(tmp_path / "twice.jsonl", [{"id": "a", "prompt": "p", "responses": ["x", "y"], "label": 0}] * 2)
    for layout, name, message in [
        ("ultrafeedback", "ties.jsonl", "ties.jsonl: no record has a unique best response; check --layout"),
        ("items", "twice.jsonl", "twice.jsonl:2: id: 'a' already stands at"),
        ("skyworks", "ties.jsonl", "grm data convert: --layout: 'skyworks' is not known; use one of items, judgebench"),
    ]:
        code, output = convert(tmp_path, layout, tmp_path / name)
        assert code == 2 and not output.exists()
        assert message in capsys.readouterr().err
