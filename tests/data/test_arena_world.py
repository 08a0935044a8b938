"""Splits, labels and the absence of shortcuts."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from grm_jax.data.arena.corpus import corpus
from grm_jax.data.arena.faults import SEVERITY
from grm_jax.data.arena.tasks import HELD_OUT_FAMILIES, SEEN_FAMILIES
from grm_jax.data.arena.world import SPLITS, Example, generate, items
from grm_jax.errors import UserError

GOLDEN = {
    "id": "arena-test-held_out-0-7",
    "prompt": "Here is a list: fork bread rain lamp. Drop the word rain, "
    "then order the words from a to z. Put it in brackets.",
    "responses": ["lamp fork bread", "( bread fork lamp )"],
    "label": 1,
    "domain": "drop+sort",
    "meta": {
        "answer": "( bread fork lamp )",
        "quality": [3, 10],
        "faults": [["swapped words", "wrong form"], []],
        "family": "drop+sort",
        "held_out": True,
    },
}

HELD_OUT = {"+".join(family) for family in HELD_OUT_FAMILIES}
SEEN = {"+".join(family) for family in SEEN_FAMILIES}


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return [generate("train", index, 0) for index in range(10_000)]


def test_an_example_depends_on_its_index_alone() -> None:
    for split in SPLITS:
        forward = [generate(split, index, 3).item for index in range(20)]
        backward = [generate(split, index, 3).item for index in reversed(range(20))]
        assert forward == backward[::-1] == list(items(split, 20, 3))
        assert len({item["id"] for item in forward}) == 20
    assert generate("train", 5, 0).item["prompt"] != generate("train", 5, 1).item["prompt"]


def test_the_world_is_the_same_on_every_machine() -> None:
    """A golden example: a change here changes every arena data set and needs a new trained judge."""
    assert generate("test", 7, 0).item == GOLDEN


def test_items_keep_the_contract(train: list[Example]) -> None:
    for example in train[:2000]:
        item = json.loads(json.dumps(example.item))
        assert item == example.item
        assert set(item) == {"id", "prompt", "responses", "label", "domain", "meta"}
        assert 1 <= len(item["responses"]) <= 4
        assert len(set(item["responses"])) == len(item["responses"])
        assert all(item["responses"])
        assert item["domain"] == item["meta"]["family"] == example.task.family


def test_quality_is_what_the_faults_cost_and_the_best_is_unique(train: list[Example]) -> None:
    for example in train:
        meta, label = example.item["meta"], example.item["label"]
        assert meta["quality"] == [max(1, 10 - sum(SEVERITY[fault] for fault in found)) for found in meta["faults"]]
        if len(meta["quality"]) == 1:
            assert label == meta["quality"][0]
        else:
            best, second = sorted(meta["quality"], reverse=True)[:2]
            assert meta["quality"][label] == best >= second + 2


def test_no_list_and_so_no_prompt_is_shared_between_splits() -> None:
    lists = {
        split: {
            example.task.given for example in (generate(split, index, seed) for index in range(1500) for seed in (0, 1))
        }
        for split in SPLITS
    }
    prompts = {split: {item["prompt"] for item in items(split, 1500, 2)} for split in SPLITS}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not lists[one] & lists[other]
        assert not prompts[one] & prompts[other]


def test_train_never_holds_a_held_out_family(train: list[Example]) -> None:
    assert {example.task.family for example in train} == SEEN
    for families in ("held_out", "all"):
        with pytest.raises(UserError, match="train"):
            generate("train", 0, 0, families)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_splits_are_half_seen_and_half_held_out(split: str) -> None:
    mixed = list(items(split, 400, 0))
    assert sum(item["meta"]["held_out"] for item in mixed) == 200
    assert all((item["domain"] in HELD_OUT) == item["meta"]["held_out"] for item in mixed)
    assert {item["domain"] for item in items(split, 100, 0, "held_out")} == HELD_OUT
    assert {item["domain"] for item in items(split, 400, 0, "seen")} == SEEN
    # One id always names one item, whichever families were asked for.
    alone = {item["id"]: item for families in ("seen", "held_out") for item in items(split, 400, 0, families)}
    assert all(alone[item["id"]] == item for item in mixed)


SHORTCUTS: dict[str, Callable[[int, str], float]] = {
    "first": lambda place, text: -place,
    "last": lambda place, text: place,
    "longest": lambda place, text: len(text),
    "shortest": lambda place, text: -len(text),
    "most words": lambda place, text: len(text.split()),
    "fewest words": lambda place, text: -len(text.split()),
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_shortcut_beats_chance(train: list[Example], shortcut: str, count: int) -> None:
    right = []
    for example in train:
        responses = example.item["responses"]
        if len(responses) == count:
            values = np.array([SHORTCUTS[shortcut](place, text) for place, text in enumerate(responses)])
            ties = values == values.max()
            right.append(ties[example.item["label"]] / ties.sum())
    # Two standard errors at these counts are below 0.03, so a bias of five points shows.
    assert len(right) > 800
    assert np.mean(right) < 1 / count + 0.05


def test_labels_are_uniform_over_places(train: list[Example]) -> None:
    for count in (2, 3, 4):
        labels = [example.item["label"] for example in train if len(example.responses) == count]
        np.testing.assert_allclose(np.bincount(labels, minlength=count) / len(labels), 1 / count, atol=0.05)


def test_corpus_holds_prompts_responses_and_critiques() -> None:
    texts = list(corpus("train", 30, 0))
    assert texts == list(corpus("train", 30, 0))
    assert all({item["prompt"], *item["responses"]} <= set(texts) for item in items("train", 30, 0))
    assert sum(text.startswith("Principles:") for text in texts) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev", 0, 0), "split 'dev'"),
        (("test", 0, 0, "unseen"), "families 'unseen'"),
        (("test", -1, 0), "index -1"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        generate(*arguments)
    assert "\n" not in str(caught.value)
