import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_items import judged

from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import item_values, scaling
from grm_jax.evaluate.protocol import FAILURES, TIES, Protocol, item_accuracy
from grm_jax.judge.voting import vote
from grm_jax.keys import generator

laws = settings(max_examples=100, deadline=None, derandomize=True)


def item_accuracies(items, k):
    return item_values(items, k, Protocol()).accuracy.tolist()


def noisy(count, k, rng, accuracy=0.65):
    """Items of two responses whose samples name the label's response with a probability, with ties and failures."""
    items = []
    for i in range(count):
        label = int(rng.integers(2))
        rows = []
        for _ in range(k):
            low, high = sorted(rng.integers(1, 11, size=2).tolist())
            right = rng.random() < accuracy
            rows.append(None if rng.random() < 0.1 else ((high, low) if (label == 0) == right else (low, high)))
        items.append(judged(f"item {i}", rows, label))
    return items


@laws
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_tie_policies_against_brute_force(scores, data):
    """Breaking ties by every order of the responses gives "expected"; the others follow from the same count."""
    n = len(scores)
    label = data.draw(st.integers(0, n - 1))
    wins = [max(order, key=lambda i: scores[i]) == label for order in itertools.permutations(range(n))]
    expected = sum(wins) / len(wins)
    worth = {ties: item_accuracy(scores, label, n, Protocol(ties=ties)) for ties in TIES}
    assert worth["expected"] == pytest.approx(expected)
    tied = 0 < expected < 1
    assert worth["half"] == (0.5 if tied else expected)
    assert worth["strict"] == (0.0 if tied else expected)
    assert worth["shuffle_argmax"] in ((0.0, 1.0) if tied else (expected,))


def test_shuffle_argmax_is_expected_on_average_and_agrees_with_the_verdict():
    items = [judged(f"item {i}", [(4, 4, 2)], 1, n=3) for i in range(900)]
    values = item_values(items, 1, Protocol(ties="shuffle_argmax"))
    assert abs(values.accuracy.mean() - 0.5) < 4 * np.sqrt(0.25 / 900)
    best = [vote(entry.judgement).best for entry in items]
    assert (values.accuracy == (np.array(best) == 1)).all()


def test_failure_policies():
    for n, failures in itertools.product((2, 4), FAILURES):
        worth = item_accuracy(None, 1, n, Protocol(failures=failures))
        assert worth == (1 / n if failures == "chance" else 0)


def test_accuracy_counts_what_a_reader_would_count():
    items = [
        judged("right", [(9, 2), (8, 3)], 0),
        judged("wrong", [(9, 2), (8, 3)], 1),
        judged("tied", [(5, 2), (2, 5)], 0),
        judged("failed", [None, None], 0),
        judged("too long", [], 0, outcomes={"prompt_too_long": 1}),
        judged("unlabelled", [(1, 2), (1, 2)], None),
    ]
    report = scaling(items, [2, 1, 2], Protocol())
    assert [row.k for row in report.rows] == [1, 2]
    one, two = report.rows
    assert one.accuracy.mean == pytest.approx(2 / 5)  # at k = 1 the tied item is still right
    assert two.accuracy.mean == pytest.approx(1.5 / 5)
    assert (one.tie_rate, two.tie_rate) == (0, pytest.approx(1 / 5))
    assert one.failure_rate == two.failure_rate == pytest.approx(2 / 5)
    assert (report.items, report.unlabelled, two.accuracy.count) == (5, 1, 5)
    assert report.outcomes == {"ok": 8, "no_block": 2, "prompt_too_long": 1}
    assert two.absolute_error is None


def test_items_with_one_response_have_an_error_and_no_accuracy():
    items = [judged("a", [(7,), None, (4,)], 5, n=1), judged("b", [(2,), (2,), (2,)], 3.5, n=1)]
    row = scaling(items, [3], Protocol()).rows[0]
    assert row.accuracy is None
    assert row.absolute_error.mean == pytest.approx((0.5 + 1.5) / 2)
    both = scaling([*items, judged("c", [(9, 1)] * 3, 0)], [3], Protocol()).rows[0]
    assert (both.accuracy.mean, both.accuracy.count) == (1.0, 1)
    assert both.absolute_error == row.absolute_error
    with pytest.raises(ValueError, match="accuracy needs two"):
        item_accuracy((3,), 0, 1, Protocol())


def test_without_any_label_ties_and_failures_are_still_measured():
    items = [judged(f"tied {i}", [(5, 5), (9, 1)], None) for i in range(3)]
    items += [judged("failed", [None, None], None), judged("single", [(3,), (3,)], None, n=1)]
    report = scaling(items, [1, 2], Protocol())
    assert [(row.accuracy, row.tie_rate, row.failure_rate, row.absolute_error) for row in report.rows] == [
        (None, 0.75, 0.25, None),
        (None, 0.0, 0.25, None),
    ]
    assert (report.items, report.unlabelled) == (0, 5)
    labelled = scaling([*items, judged("right", [(9, 1), (9, 1)], 0)], [1], Protocol())
    assert (labelled.rows[0].accuracy.mean, labelled.rows[0].tie_rate) == (1.0, 0.0)
    assert (labelled.items, labelled.unlabelled) == (1, 5)


@pytest.mark.parametrize("subsets", [0, 5])
def test_all_samples_give_the_full_vote_by_prefix_and_by_subsets(subsets):
    items = noisy(60, 8, generator("test", "full"))
    values = item_values(items, 8, Protocol(subsets=subsets))
    full = [vote(entry.judgement) for entry in items]
    worth = [item_accuracy(j.scores, e.label, 2, Protocol()) for j, e in zip(full, items, strict=True)]
    assert values.accuracy.tolist() == worth


def test_a_prefix_never_sees_later_samples():
    items = noisy(40, 8, generator("test", "prefix"))
    cut = [judged(e.judgement.id, [s.scores for s in e.judgement.samples[:3]], e.label) for e in items]
    assert item_accuracies(items, 3) == item_accuracies(cut, 3)
    assert item_accuracies(items, 8) != item_accuracies(items, 3)


def test_subsets_agree_with_prefixes_in_expectation_and_vary_less():
    prefix, subset = [], []
    for world in range(25):
        items = noisy(60, 12, generator("test", "expectation", world))
        prefix.append(item_values(items, 3, Protocol()).accuracy.mean())
        subset.append(item_values(items, 3, Protocol(subsets=12)).accuracy.mean())
    standard_error = np.std(np.subtract(prefix, subset)) / 5
    assert abs(np.mean(prefix) - np.mean(subset)) < 4 * standard_error
    assert np.var(subset) < np.var(prefix)


def test_subset_averages_run_over_all_subsets_alike():
    """With 2 of 3 samples there are three subsets: right, right, tied; many draws come near their mean."""
    entry = judged("x", [(9, 1), (8, 2), (1, 9)], 0)
    exact = (1.0 + 0.5 + 0.0) / 3
    sums = [sum(r[0] - r[1] for r in pair) for pair in itertools.combinations([(9, 1), (8, 2), (1, 9)], 2)]
    assert sorted(np.sign(sums)) == [-1, 0, 1]
    values = item_values([entry], 2, Protocol(subsets=2000))
    assert values.accuracy[0] == pytest.approx(exact, abs=0.04)
    assert values.tied[0] == pytest.approx(1 / 3, abs=0.05)


def test_the_seed_of_the_protocol_decides_the_subsets():
    items = noisy(40, 8, generator("test", "seeded"))
    first, again, other = (
        item_values(items, 3, Protocol(subsets=2, seed=seed)).accuracy.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_meta_vote_can_differ_from_the_sum():
    items = [judged("x", [(9, 1), (2, 3), (2, 3)], 1, meta=[-4.0, 2.0, 1.0])]
    assert item_values(items, 3, Protocol()).accuracy[0] == 0
    assert item_values(items, 3, Protocol(vote="meta_topk")).accuracy[0] == 1
    assert item_values(items, 3, Protocol(vote="meta_topk", k_meta=3)).accuracy[0] == 0


def test_voting_helps_when_samples_are_better_than_chance():
    report = scaling(noisy(400, 16, generator("test", "curve")), [1, 4, 16], Protocol(subsets=4))
    low, middle, high = (row.accuracy.mean for row in report.rows)
    assert low < middle < high


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Protocol(ties="coin"), "ties: 'coin' is not known; use one of expected, half, strict, shuffle_argmax"),
        (lambda: Protocol(failures="skip"), "failures: 'skip' is not known; use one of wrong, chance"),
        (lambda: Protocol(subsets=-1), "subsets: -1 is negative"),
        (lambda: scaling([judged("x", [(1, 2)], 0)], [2], Protocol()), "item 'x': has 1 samples, k = 2 is asked"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
