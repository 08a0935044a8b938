"""Laws of the paired comparison of two judges."""

import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.evaluate.comparison import compare
from grm_jax.evaluate.intervals import bootstrap_interval
from grm_jax.evaluate.protocol import Protocol
from tests.evaluate.stored_items import judged

RIGHT, WRONG, TIED = (9, 1), (1, 9), (5, 5)


def runs(first, second):
    return [[judged(f"i{i}", [row], 0) for i, row in enumerate(rows)] for rows in (first, second)]


def test_the_difference_is_that_of_each_item_and_its_interval_is_paired():
    """Both are right in half of the items, mostly in the same ones: apart, neither is known to 20 points."""
    rng = np.random.default_rng(0)
    hits = rng.random(200) < 0.5
    first = [RIGHT if hit else WRONG for hit in hits]
    second = [RIGHT if hit or i % 10 == 0 else WRONG for i, hit in enumerate(hits)]
    (row,) = compare(*runs(first, second), [1], Protocol())
    values = np.array([a == RIGHT for a in second], float) - np.array([a == RIGHT for a in first], float)
    expected = bootstrap_interval(values, seed=0)
    assert row.difference.mean == pytest.approx(expected.mean) and row.difference.count == 200
    assert row.difference.low == pytest.approx(expected.low, abs=0.01) and row.difference.low > 0
    assert row.first.high > row.second.low  # the intervals of the two overlap
    assert row.second.mean - row.first.mean == pytest.approx(row.difference.mean)


def test_only_items_of_both_count_and_other_items_are_refused():
    first, second = runs([RIGHT, WRONG, TIED], [WRONG, WRONG, RIGHT])
    (row,) = compare(first, second[1:], [1], Protocol())
    assert (row.first.mean, row.second.mean, row.difference.count) == (0.25, 0.5, 2)
    with pytest.raises(UserError, match="share no labelled item"):
        compare(first[:1], second[1:], [1], Protocol())
    changed = [judged("i0", [RIGHT], 1)]
    with pytest.raises(UserError, match="'i0' has another label"):
        compare(first, changed, [1], Protocol())
    with pytest.raises(UserError, match="k = 2 is asked"):
        compare(first, second, [2], Protocol())
