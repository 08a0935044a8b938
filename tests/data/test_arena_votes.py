"""One critique sees a part of the truth; a vote sees more of it, and keeps the biases that all critiques share."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from grm_jax.data.arena.oracle import SALIENCE, Noise, critique
from grm_jax.data.arena.world import Example, generate
from grm_jax.keys import generator
from tests.data.test_arena_oracle import parse

ITEMS = 1000
STEPS = (1, 2, 4, 8, 16, 32)


@cache
def pairs() -> list[Example]:
    """The first `ITEMS` of the test split that have two responses."""
    made = (generate("test", index, 1) for index in range(2 * ITEMS))
    return [example for example in made if len(example.responses) == 2][:ITEMS]


def votes(noise: Noise, most: int, **options: bool) -> np.ndarray:
    """Returns [items, most]: 1 where the summed vote of k critiques is right, one half for ties; orders alternate."""
    scores = np.zeros((ITEMS, most, 2))
    for row, example in enumerate(pairs()):
        rng = generator("vote", row)
        for sample in range(most):
            order = (0, 1) if sample % 2 else (1, 0)
            found = parse(critique(example, order, rng, noise, **options), 2)
            if found:
                scores[row, sample, list(order)] = found
    sums = scores.cumsum(axis=1)
    labels = np.array([example.item["label"] for example in pairs()])
    margin = sums[np.arange(ITEMS), :, labels] - sums[np.arange(ITEMS), :, 1 - labels]
    return (margin > 0) + 0.5 * (margin == 0)


@cache
def usual() -> np.ndarray:
    return votes(Noise(), 32)


def test_more_critiques_know_more() -> None:
    assert len(pairs()) == ITEMS
    accuracy = [usual()[:, k - 1].mean() for k in STEPS]
    for found, expected in zip(accuracy, (0.63, 0.67, 0.73, 0.78, 0.81, 0.815), strict=True):
        assert found == pytest.approx(expected, abs=0.03)
    assert sorted(accuracy) == accuracy


def margins(worth: Callable[[Example, int], float]) -> np.ndarray:
    """By how much the best of each pair is ahead in `worth` (example, place)."""
    labels = [example.item["label"] for example in pairs()]
    return np.array([worth(one, label) - worth(one, 1 - label) for one, label in zip(pairs(), labels, strict=True)])


def test_going_by_length_is_what_a_vote_does_not_correct() -> None:
    longer = margins(lambda example, place: len(example.responses[place].words))
    accuracy = usual()[:, 31]
    assert accuracy[longer > 0].mean() > 0.98
    assert accuracy[longer == 0].mean() > 0.92
    assert accuracy[longer < 0].mean() < 0.5
    assert votes(replace(Noise(), spurious=0.0), 32)[longer < 0, 31].mean() > 0.94


def test_without_errors_a_vote_corrects_all_but_salience() -> None:
    """What is wrong after many true critiques is what weighs much and is seldom thought of."""
    seen = margins(lambda example, place: -sum(one.weight * SALIENCE[one.kind] for one in example.broken[place]))
    right = votes(Noise.none(), 16)
    assert right[:, 0].mean() < 0.80
    assert right[seen > 0, 15].mean() > 0.97
    assert 10 < (seen < 0).sum() < 40
    assert right[seen < 0, 15].mean() < 0.6


def test_a_hint_helps() -> None:
    accuracy = votes(Noise(), 8, hinted=True).mean(axis=0)
    assert accuracy[0] > 0.78
    assert accuracy[7] > 0.97
