import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_items import judged

from grm_jax.errors import UserError
from grm_jax.evaluate.calibration import (
    ScoredCritiques,
    auc,
    calibration,
    reliability,
    scored_critiques,
    within_item_aucs,
)
from grm_jax.evaluate.reliability_plot import save_reliability_plot
from grm_jax.keys import generator
from grm_jax.spct.acceptance import accepted

laws = settings(max_examples=100, deadline=None, derandomize=True)


def scored(logits, right, items=None):
    items = np.zeros(len(logits), int) if items is None else np.array(items)
    return ScoredCritiques(np.array(logits, float), np.array(right, bool), items)


def brute_force(logits, right):
    """Every pair of a right and a wrong critique, ties half."""
    pairs = itertools.product(
        [x for x, good in zip(logits, right, strict=True) if good],
        [x for x, good in zip(logits, right, strict=True) if not good],
    )
    worth = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    return sum(worth) / len(worth) if worth else None


@laws
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=1, max_size=20))
def test_auc_is_the_share_of_pairs_in_order(critiques):
    logits, right, times = (list(column) for column in zip(*critiques, strict=True))
    expected = brute_force(logits, right)
    found = auc(np.array(logits, float), np.array(right))
    assert found == (expected if expected is None else pytest.approx(expected))
    repeated = [
        list(itertools.chain(*([x] * n for x, n in zip(column, times, strict=True)))) for column in (logits, right)
    ]
    weighted = auc(np.array(logits, float), np.array(right), np.array(times, float))
    expected = brute_force(*repeated)
    assert weighted == (expected if expected is None else pytest.approx(expected))


def test_within_items_only_pairs_of_one_item_count():
    """The second item's scores are all higher, which says nothing about either; the third has no wrong critique."""
    critiques = scored([0, 1, 10, 11, 12, 5], [0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 1, 2])
    assert within_item_aucs(critiques).tolist() == [1.0, 0.0]
    figures = calibration(critiques)
    assert (figures.within_item_auc.mean, figures.within_item_auc.count) == (0.5, 2)
    assert figures.auc.mean == pytest.approx(brute_force(critiques.logits, critiques.right))
    assert figures.auc.low <= figures.auc.mean <= figures.auc.high


def test_order_of_critiques_does_not_matter():
    rng = generator("test", "order")
    logits, items = rng.standard_normal(60), rng.integers(0, 9, 60)
    right = rng.random(60) < 0.4
    mixed = rng.permutation(60)
    one = calibration(scored(logits, right, items))
    other = calibration(scored(logits[mixed], right[mixed], items[mixed]))
    assert one.auc.mean == pytest.approx(other.auc.mean)
    assert one.within_item_auc.mean == pytest.approx(other.within_item_auc.mean)
    assert one.expected_error == pytest.approx(other.expected_error)


def test_calibration_by_hand():
    """Probabilities .15, .15, .85, .85, 1 of truths 0, 1, 1, 1, 1.

    Bins: [.1, .2) holds two at mean .15, half of them right: gap .35. [.8, .9) two at .85, both right: gap .15. The last holds 1:
    gap 0. Expected error (2 * .35 + 2 * .15 + 0) / 5 = .2. Brier (.0225 + .7225 + .0225 + .0225 + 0) / 5 = .158.
    """
    probability = np.array([0.15, 0.15, 0.85, 0.85, 1 - 1e-12])
    figures = calibration(scored(np.log(probability / (1 - probability)), [0, 1, 1, 1, 1]))
    assert figures.expected_error == pytest.approx(0.2)
    assert figures.brier == pytest.approx(0.158)
    assert figures.right == 0.8
    counts = {i: entry.count for i, entry in enumerate(figures.bins) if entry.count}
    assert counts == {1: 2, 8: 2, 9: 1}
    assert figures.bins[1].right == 0.5 and figures.bins[0].right is None


def test_probability_one_falls_into_the_last_bin():
    table = reliability(np.array([0.0, 0.25, 1.0]), np.array([False, True, True]), bins=4)
    assert [entry.count for entry in table] == [1, 1, 0, 1]


def test_scores_that_are_probabilities_have_a_small_error_and_extreme_ones_do_not_overflow():
    rng = generator("test", "calibrated")
    logits = rng.standard_normal(4_000) * 2
    right = rng.random(4_000) < 1 / (1 + np.exp(-logits))
    assert calibration(scored(logits, right)).expected_error < 0.03
    assert calibration(scored(logits * 3, right)).expected_error > 0.1
    assert calibration(scored([-1e6, 1e6], [0, 1])).brier == 0


def test_one_kind_alone_has_no_auc():
    figures = calibration(scored([1.0, 2.0], [1, 1]))
    assert figures.auc is None and figures.within_item_auc is None


def test_only_readable_scored_critiques_of_labelled_items_count():
    items = [
        judged("a", [(9, 1), None, (4, 4)], 0, meta=[1.5, None, -0.5]),
        judged("b", [(9, 1)], None, meta=[3.0]),
        judged("c", [(2, 7)], 0, meta=[0.25]),
        judged("d", [(2, 7)], 0),
    ]
    found = scored_critiques(items, accepted)
    assert found.logits.tolist() == [1.5, -0.5, 0.25]
    assert found.right.tolist() == [True, False, False]  # a tie at the top is not right
    assert found.items[0] == found.items[1] != found.items[2]


def test_the_plot_is_a_picture(tmp_path):
    rng = generator("test", "plot")
    figures = calibration(scored(rng.standard_normal(300), rng.random(300) < 0.6, rng.integers(0, 40, 300)))
    save_reliability_plot(tmp_path / "plot.png", figures)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be written"):
        save_reliability_plot(tmp_path, figures)
