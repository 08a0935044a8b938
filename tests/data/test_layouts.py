from collections import Counter
from pathlib import Path

import pytest

from grm_jax.data.jsonl import read_jsonl_items, write_jsonl
from grm_jax.data.layouts import item_from_layout
from grm_jax.data.records import Item, Turn
from grm_jax.errors import UserError

JUDGEBENCH = Path(__file__).parents[2].parent / "shared" / "data" / "judgebench" / "gpt.jsonl"

RECORD = {
    "pair_id": "p1",
    "original_id": 17,
    "source": "mmlu-pro-law",
    "question": "Which?",
    "response_model": "m",
    "response_A": "this",
    "response_B": "that",
    "label": "B>A",
}


def test_a_judgebench_record_becomes_an_item():
    assert item_from_layout("judgebench", RECORD, "here") == Item(
        id="p1",
        conversation=(Turn("user", "Which?"),),
        responses=("this", "that"),
        label=1,
        domain="mmlu-pro-law",
        meta={"original_id": 17, "response_model": "m"},
    )
    assert item_from_layout("judgebench", {**RECORD, "label": "A>B"}, "here").label == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "A=B"}, "here: label: 'A=B' is not known; use one of A>B, B>A"),
        ({"response_B": None}, "here: response_B: must be a string, found null"),
        ({"pair_id": ""}, "here: pair_id: is empty"),
    ],
)
def test_errors_name_the_field_of_the_data_set(change, message):
    with pytest.raises(UserError, match=message):
        item_from_layout("judgebench", {**RECORD, **change}, "here")
    with pytest.raises(UserError, match="here: question: missing"):
        item_from_layout("judgebench", {k: v for k, v in RECORD.items() if k != "question"}, "here")


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    write_jsonl(tmp_path / "f.jsonl", [RECORD])
    with pytest.raises(UserError, match="layout: 'judge_bench' is not known; use one of items, judgebench"):
        read_jsonl_items(tmp_path / "f.jsonl", layout="judge_bench")


@pytest.mark.skipif(not JUDGEBENCH.exists(), reason="the JudgeBench data is not beside this checkout")
def test_the_published_judgebench_split_has_its_known_counts():
    items = read_jsonl_items(JUDGEBENCH, layout="judgebench")
    assert Counter(item.label for item in items) == {0: 193, 1: 157}
    sections = Counter(
        next(
            s
            for s in ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
            if item.domain.startswith(s)
        )
        for item in items
    )
    assert sections == {"mmlu-pro": 154, "livebench-reasoning": 98, "livebench-math": 56, "livecodebench": 42}
