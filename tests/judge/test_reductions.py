"""Laws of the reductions that paradigms are compared by, on cases made by hand."""

import numpy as np
import pytest

from grm_jax.judge.reductions import decided, majority, mean_rewards, wins
from grm_jax.keys import generator

NAN = np.nan


def voters(*sets, K=4):
    members = np.zeros((len(sets), K), bool)
    for row, chosen in enumerate(sets):
        members[row, list(chosen)] = True
    return members


def test_the_mean_is_over_the_rewards_that_are_there():
    """Eq 12 of arXiv 2504.02495."""
    rewards = np.array([[1.0, 4.0], [3.0, NAN], [NAN, 2.0], [NAN, NAN]])
    found = mean_rewards(rewards, voters({0}, {0, 1}, {0, 1, 2}, {0, 3}, {1}, {3}))
    assert found.failed.tolist() == [False, False, False, False, True, True]
    np.testing.assert_allclose(found.totals[:4], [[1, 4], [2, 4], [2, 3], [1, 4]])


def test_the_mean_of_k_is_numpy_s_mean_in_float64():
    rewards = generator("test", "rewards").standard_normal((9, 3))
    members = voters({0, 4, 5}, {8}, set(range(9)), K=9)
    found = mean_rewards(rewards, members)
    np.testing.assert_allclose(found.totals, [rewards[row].mean(axis=0) for row in members], rtol=1e-14)


def test_of_two_responses_the_one_that_more_verdicts_name_wins():
    """Eq 13."""
    verdicts = np.array([[1.0], [0.0], [1.0], [NAN]])
    found = majority(verdicts, voters({0}, {1}, {0, 1, 2}, {0, 1}, {1, 3}, {3}), 2)
    assert found.totals[:5].tolist() == [[1, 0], [0, 1], [1, 0], [0.5, 0.5], [0, 1]]
    assert found.failed.tolist() == [False, False, False, False, False, True]


def test_a_sure_verdict_outweighs_two_unsure_ones():
    verdicts, weights = np.array([[0.0], [1.0], [1.0]]), np.array([[0.9], [0.4], [0.4]])
    members = voters({0, 1, 2}, {1, 2}, {0, 1}, K=3)
    assert majority(verdicts, members, 2).totals.tolist() == [[1, 0], [1, 0], [0.5, 0.5]]
    assert majority(verdicts, members, 2, weights).totals.tolist() == [[0, 1], [1, 0], [0, 1]]


def test_equal_weights_are_plain_majority():
    rng = generator("test", "verdicts")
    verdicts = rng.choice([0.0, 1.0, NAN], (8, 3))
    members = voters(range(8), {1, 2, 5}, {0}, K=8)
    for plain, weighted in zip(
        majority(verdicts, members, 3), majority(verdicts, members, 3, np.full((8, 3), 0.25)), strict=True
    ):
        np.testing.assert_array_equal(plain, weighted)


def test_many_responses_are_a_round_robin_of_counted_wins():
    """Pairs 01, 02, 12: a circle of wins is level; with 0 winning both of its pairs it is ahead."""
    circle = np.array([[1.0, 0.0, 1.0]])
    assert majority(circle, voters({0}, K=1), 3).totals.tolist() == [[1, 1, 1]]
    ahead = np.array([[1.0, 1.0, NAN]])
    assert majority(ahead, voters({0}, K=1), 3).totals.tolist() == [[2, 0.5, 0.5]]
    assert wins(np.array([1.0, 1.0, 1.0, 0.0, 0.5, 1.0]), 4).tolist() == [3, 0.5, 2, 0.5]


def test_each_pair_is_decided_by_its_own_majority_not_by_all_votes_together():
    verdicts = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert majority(verdicts, voters({0, 1, 2}, K=3), 3).totals.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_sign_decides_a_pair(n):
    """Eq 5: y = y_floor((3 - sgn S) / 2), the first or the second of a pair."""
    rng = generator("test", "pairs", n)
    for _ in range(20):
        forward = rng.standard_normal(n * (n - 1) // 2)
        found = decided(forward, -forward, n)
        totals = np.zeros(n)
        for S, pair in zip(forward, [(i, j) for i in range(n) for j in range(i + 1, n)], strict=True):
            totals[pair[int(np.floor((3 - np.sign(S)) / 2)) - 1]] += 1
        assert found.totals.tolist() == [totals.tolist()] and not found.failed.any()


def test_a_decision_does_not_depend_on_which_response_stands_first():
    """Exchanging two responses exchanges what they win, also for a model that prefers a place: antisymmetry."""
    rng = generator("test", "exchanged")
    for bias in (0.0, 0.4, 5.0):
        forward, backward = rng.standard_normal(2)[:, None] + bias
        straight = decided(forward, backward, 2).totals[0]
        exchanged = decided(backward, forward, 2).totals[0]
        assert straight.tolist() == exchanged[::-1].tolist()
    assert decided(np.array([3.0]), np.array([3.0]), 2).totals.tolist() == [[0.5, 0.5]]  # it prefers a place alone
