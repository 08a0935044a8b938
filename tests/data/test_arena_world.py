"""Splits, labels and the absence of shortcuts."""

import json
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from grm_jax.data.arena import world
from grm_jax.data.arena.requirements import WEIGHTS
from grm_jax.data.arena.tasks import HELD_OUT_PAIRS, Task
from grm_jax.data.arena.world import SPLITS, Example, generate, items
from grm_jax.errors import UserError
from grm_jax.keys import generator

GOLDEN = {
    "id": "arena-test-held_out-0-49",
    "prompt": "List words: use pig; start cloud; double chair; end egg.",
    "responses": ["* cloud egg chair chair pig road *", "- cloud pig chair chair moon egg"],
    "label": 1,
    "domain": "start+double",
    "meta": {"quality": [7, 10], "broken": [["end egg"], []], "held_out": True},
}
HELD_OUT = {"+".join(pair) for pair in HELD_OUT_PAIRS}
MOST_DRAWS = 4000
TRAIN, OTHERS = 4600, 400


class Counted:
    """A generator that counts its draws; every loop of the world draws, so one without end is caught."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self.draws = rng, 0

    def _count(self) -> None:
        self.draws += 1
        assert self.draws <= MOST_DRAWS, "an example takes too many draws"

    def random(self) -> float:
        self._count()
        return self._rng.random()

    def permutation(self, count: int) -> np.ndarray:
        self._count()
        return self._rng.permutation(count)


@pytest.fixture(scope="module")
def counts() -> tuple[list[Example], Counter, list[int]]:
    """Items of train, how many tasks were drawn for each split, and the draws that each item took; of others too."""
    tasks, rngs, original = Counter(), [], world.draw_task

    def counted(*names: int | str) -> Counted:
        rngs.append(Counted(generator(*names)))
        return rngs[-1]

    def draw_task(held_out: bool, rng: np.random.Generator) -> Task:
        tasks[split] += 1
        return original(held_out, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "generator", counted)
        patch.setattr(world, "draw_task", draw_task)
        made = {}
        for split, number in (("train", TRAIN), ("valid", OTHERS // 2), ("test", OTHERS // 2)):
            made[split] = [generate(split, index, 0) for index in range(number)]
    return made["train"], tasks, [rng.draws for rng in rngs]


@pytest.fixture(scope="module")
def train(counts: tuple[list[Example], Counter, list[int]]) -> list[Example]:
    return counts[0]


def test_an_example_depends_on_its_index_alone() -> None:
    for split in SPLITS:
        forward = [generate(split, index, 3).item for index in range(20)]
        backward = [generate(split, index, 3).item for index in reversed(range(20))]
        assert forward == backward[::-1] == list(items(split, 20, 3))
        assert len({item["id"] for item in forward}) == 20
    assert generate("train", 5, 0).item["prompt"] != generate("train", 5, 1).item["prompt"]


def test_the_world_is_the_same_on_every_machine() -> None:
    """A golden example: a change here changes every arena data set and needs a new trained judge."""
    assert generate("test", 49, 0).item == GOLDEN


def test_generation_ends_within_a_bound_of_draws(counts: tuple[list[Example], Counter, list[int]]) -> None:
    _, tasks, draws = counts
    assert tasks["train"] < 1.4 * TRAIN  # 4 of 5 tasks are of the split, and few of those are given up
    assert tasks["valid"] + tasks["test"] < 12 * OTHERS
    assert len(draws) == TRAIN + OTHERS == 5000
    assert np.mean(draws) < 300


def test_items_keep_the_contract(train: list[Example]) -> None:
    for example in train[:2000]:
        item = json.loads(json.dumps(example.item))
        assert item == example.item
        assert set(item) == {"id", "prompt", "responses", "label", "domain", "meta"}
        assert set(item["meta"]) == {"quality", "broken", "held_out"}
        assert 1 <= len(item["responses"]) <= 4
        assert len(set(item["responses"])) == len(item["responses"])
        assert all(item["responses"])
        assert item["responses"] == [response.text for response in example.responses]
        assert item["meta"]["broken"] == [[one.text for one in found] for found in example.broken]
        assert item["domain"] == example.task.family


def test_two_responses_of_one_text_are_no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    example = generate("train", 0, 0)
    monkeypatch.setattr(world, "draw_response", lambda task, broken, rng: example.responses[0])
    assert world._draw_responses(example.task, 1, generator("same")) is not None
    assert world._draw_responses(example.task, 2, generator("same")) is None


def test_quality_is_what_the_broken_cost_and_the_best_is_best_by_two(train: list[Example]) -> None:
    gaps = set()
    for example in train:
        qualities, label = example.item["meta"]["quality"], example.item["label"]
        assert qualities == [max(1, 10 - sum(WEIGHTS[one.kind] for one in found)) for found in example.broken]
        if len(qualities) == 1:
            assert label == qualities[0]
        else:
            best, second = sorted(qualities, reverse=True)[:2]
            assert qualities[label] == best >= second + world.SMALLEST_GAP
            gaps.add(best - second)
    assert min(gaps) == world.SMALLEST_GAP == 2


def test_counts_follow_their_weights(train: list[Example]) -> None:
    counts = np.bincount([len(example.responses) for example in train], minlength=5)
    np.testing.assert_allclose(counts[1:] / len(train), [0.08, 0.67, 0.15, 0.10], atol=0.02)
    perfect = [max(e.item["meta"]["quality"]) == 10 for e in train if len(e.responses) > 1]
    assert 0.45 < np.mean(perfect) < 0.55


def test_no_requirements_and_so_no_prompt_are_shared_between_splits() -> None:
    facts, prompts = {}, {}
    for split in SPLITS:
        made = [generate(split, index, seed) for index in range(250) for seed in (0, 1)]
        facts[split] = {frozenset(requirement.text for requirement in one.task.requirements) for one in made}
        prompts[split] = {one.item["prompt"] for one in made}
        assert {world.split_of(one.task) for one in made} == {split}
        assert len(facts[split]) > 495
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not facts[one] & facts[other]
        assert not prompts[one] & prompts[other]


def test_train_holds_four_of_five_tasks() -> None:
    drawn = [world.split_of(world.draw_task(False, generator("share", index))) for index in range(2000)]
    shares = Counter(drawn)
    np.testing.assert_allclose([shares[split] / 2000 for split in SPLITS], [0.8, 0.1, 0.1], atol=0.03)


def test_train_never_holds_a_held_out_pair(train: list[Example]) -> None:
    assert {example.task.family for example in train} == {"seen"}
    for example in train:
        kinds = {requirement.kind for requirement in example.task.requirements}
        assert not any(set(pair) <= kinds for pair in HELD_OUT_PAIRS)
    for families in ("held_out", "all"):
        with pytest.raises(UserError, match="train"):
            generate("train", 0, 0, families)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_splits_are_half_seen_and_half_held_out(split: str) -> None:
    mixed = list(items(split, 100, 0))
    assert [item["meta"]["held_out"] for item in mixed] == [False, True] * 50
    assert all((item["domain"] in HELD_OUT) == item["meta"]["held_out"] for item in mixed)
    alone = {families: list(items(split, 100, 0, families)) for families in ("seen", "held_out")}
    assert {item["domain"] for item in alone["held_out"]} == HELD_OUT
    assert {item["domain"] for item in alone["seen"]} == {"seen"}
    # One id always names one item, whichever families were asked for.
    named = {item["id"]: item for made in alone.values() for item in made}
    assert all(named[item["id"]] == item for item in mixed)


SHORTCUTS: dict[str, Callable[[int, str], float]] = {
    "first": lambda place, text: -place,
    "last": lambda place, text: place,
    "longest": lambda place, text: len(text),
    "shortest": lambda place, text: -len(text),
    "most words": lambda place, text: len(re.findall("[a-z]+", text)),
    "fewest words": lambda place, text: -len(re.findall("[a-z]+", text)),
    "dash": lambda place, text: text.startswith("-"),
    "brackets": lambda place, text: text.startswith("("),
    "stars": lambda place, text: text.startswith("*"),
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
    # Two standard errors at these counts are below 0.04, so a bias of ten points shows.
    assert len(right) > 400
    assert np.mean(right) < 1 / count + 0.05


def test_labels_are_uniform_over_places(train: list[Example]) -> None:
    for count in (2, 3, 4):
        labels = [example.item["label"] for example in train if len(example.responses) == count]
        np.testing.assert_allclose(np.bincount(labels, minlength=count) / len(labels), 1 / count, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev", 0, 0), "split 'dev'"),
        (("test", 0, 0, "unseen"), "families 'unseen'"),
        (("test", -1, 0), "index -1"),
        (("train", 0, 0, "held_out"), "use valid or test"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        generate(*arguments)
    assert "\n" not in str(caught.value)
