"""The advantage of a group is what the equation says."""

import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.train.advantages import group_advantages


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [
        (1e-4, [-1.16180501, -0.38726834, 0.38726834, 1.16180501]),  # trl
        (1e-6, [-1.1618941, -0.38729803, 0.38729803, 1.1618941]),  # verl, tunix
        (1e-9, [-1.161895, -0.38729833, 0.38729833, 1.161895]),  # OpenRLHF
    ],
)
def test_golden_advantages(epsilon, expected):
    advantages, flat = group_advantages(np.array([[1.0, 2.0, 3.0, 4.0]]), epsilon=epsilon)
    np.testing.assert_allclose(advantages[0], expected, rtol=0, atol=1e-6)
    assert not flat.any()


def test_a_group_is_compared_with_itself_alone():
    rewards = generator("test", "advantages").standard_normal((5, 6)) * [[1], [1], [10], [0.01], [1]] + 3.0
    advantages, _ = group_advantages(rewards)
    for p in range(5):
        expected = (rewards[p] - rewards[p].mean()) / rewards[p].std(ddof=1)
        np.testing.assert_allclose(advantages[p], expected, rtol=1e-6, atol=1e-6)
    unscaled, _ = group_advantages(rewards, normalisation="none")
    np.testing.assert_allclose(unscaled, rewards - rewards.mean(-1, keepdims=True), rtol=1e-6, atol=1e-6)


def test_right_and_wrong_as_one_and_minus_one_or_zero_is_the_same_signal():
    signs = np.array([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, -1.0, 1.0]])
    np.testing.assert_allclose(group_advantages(signs)[0], group_advantages((signs + 1) / 2)[0], rtol=1e-6)


@pytest.mark.parametrize("normalisation", ["std", "none"])
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, 0.1 + 0.2])
def test_groups_without_variance_are_exactly_zero_and_counted(value, normalisation):
    rewards = np.full((3, 4), value)
    rewards[1] = [1.0, -1.0, 1.0, -1.0]
    rewards[2, 0] += 1e-12 if value else 0.0  # rounding is no difference
    advantages, flat = group_advantages(rewards, normalisation=normalisation)
    assert flat.tolist() == [True, False, True]
    assert not advantages[[0, 2]].any()
    assert advantages[1].any()


def test_rollouts_left_out_do_not_shift_the_others():
    rewards = np.array([[1.0, -1.0, 1.0, -1.0, 1.0], [1.0, 5.0, 5.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    counted = np.array([[True, True, True, False, False], [True, False, False, False, False], [False] * 5])
    advantages, flat = group_advantages(rewards, counted)
    np.testing.assert_array_equal(advantages[0, :3], group_advantages(rewards[:1, :3])[0][0])
    assert not advantages[~counted].any()
    assert flat.tolist() == [False, True, True]  # one rollout has nothing to be compared with
    assert not advantages[1:].any()
