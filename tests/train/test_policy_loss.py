"""Laws of the policy loss: golden figures, what a mask hides, and that parts add up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.train.policy_loss import LEVELS, REDUCTIONS, Objective, kl_estimate, log_ratios, policy_loss

P, G, T = 3, 4, 6

# One prompt, two rollouts; the last token of the second is padding. The figures follow from the equations in numpy.
GOLDEN = {
    "logprobs": [[-1, -0.5, -2], [-0.2, -1.5, -9]],
    "old": [[-1.2, -0.5, -1.5], [-0.7, -1.4, -9]],
    "reference": [[-1.1, -0.9, -2.2], [-0.2, -1, -9]],
    "mask": [[1, 1, 1], [1, 1, 0]],
}


@functools.cache
def compiled(objective, reference=True):
    def total(logprobs, old, advantages, mask, ref):
        terms = policy_loss(objective, logprobs, old, advantages, mask, ref if reference else None)
        return terms.total, terms

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def drawn(seed=0):
    """Arguments of `policy_loss`: log-ratios up to 2, an empty rollout, and a prompt without any."""
    rng = generator("test", "policy loss", seed)
    logprobs = -rng.exponential(1.0, (P, G, T))
    mask = (np.arange(T) < rng.integers(1, T + 1, (P, G, 1))).astype(np.float32)
    mask[0, 1] = mask[2] = 0
    old, reference = (logprobs + rng.normal(0, scale, (P, G, T)) for scale in (0.7, 0.5))
    arrays = (logprobs, old, rng.standard_normal((P, G)), mask, reference)
    return tuple(np.asarray(x, np.float32) for x in arrays)


@pytest.mark.parametrize(
    ("reduction", "plain", "with_kl"),
    [("grpo", 0.170635, 0.172748), ("dapo", -0.050594, -0.048654), ("dr_grpo", -0.015811, -0.015204)],
)
def test_golden_losses(reduction, plain, with_kl):
    logprobs, old, reference, mask = (jnp.asarray([GOLDEN[n]], jnp.float32) for n in GOLDEN)
    for kl, expected in ((0.0, plain), (0.04, with_kl)):
        objective = Objective(kl, reduction=reduction, length=8)
        terms = policy_loss(objective, logprobs, old, jnp.array([[1.0, -1.0]]), mask, reference)
        np.testing.assert_allclose(terms.total / terms.denominator, expected, rtol=0, atol=1e-6)


def test_golden_sequence_ratios():
    logprobs, old, _, mask = (jnp.asarray([GOLDEN[n]], jnp.float32) for n in GOLDEN)
    ratios = jnp.exp(log_ratios(logprobs, old, mask, "sequence"))
    np.testing.assert_allclose(ratios[0, :, 0], [0.904837, 1.221403], rtol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_is_what_the_equations_say_in_float64(reduction, level):
    """Written out with loops over rollouts and tokens."""
    objective = Objective(0.3, 0.1, 0.4, reduction, level, length=9)
    (total, terms), _ = compiled(objective)(*drawn())
    logprobs, old, A, mask, reference = (np.float64(x) for x in drawn())
    sums, means, tokens = [], [], 0
    for p, g in np.ndindex(P, G):
        held = mask[p, g] > 0
        log_ratio = (logprobs - old)[p, g, held]
        if level == "sequence" and held.any():
            log_ratio = np.full(held.sum(), log_ratio.mean())
        ratio, d = np.exp(log_ratio), (reference - logprobs)[p, g, held]
        gain = np.minimum(ratio * A[p, g], np.clip(ratio, 0.9, 1.4) * A[p, g])
        losses = -(gain - 0.3 * (np.exp(d) - d - 1))
        sums.append(losses.sum())
        means.append(losses.mean() if held.any() else 0.0)
        tokens += held.sum()
    expected = {
        "grpo": (np.sum(means), P * G),
        "dapo": (np.sum(sums), tokens),
        "dr_grpo": (np.sum(sums), P * G * 9),
    }[reduction]
    np.testing.assert_allclose(total, expected[0], rtol=1e-5)
    assert terms.denominator == expected[1]


def test_equal_policies_have_a_kl_of_exactly_zero_and_no_gradient_of_it():
    logprobs, _, _, mask, _ = drawn()
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(kl_estimate(x, logprobs, mask)))(logprobs)
    assert value == 0 and not gradient.any()
    (total, terms), gradient = compiled(Objective(0.3))(
        logprobs, logprobs, np.zeros((P, G), np.float32), mask, logprobs
    )
    assert total == 0 and terms.metrics["kl"][0] == 0 and not gradient.any()


def test_the_kl_keeps_its_digits_where_policies_hardly_differ_and_its_sign_where_they_do():
    d = np.float32([1e-3, -1e-3, 3e-3, 0.5, -4.0, 6.0])
    expected = np.expm1(np.float64(d)) - np.float64(d)
    kl = kl_estimate(np.zeros(6, np.float32), d, np.ones(6, np.float32))
    np.testing.assert_allclose(kl, expected, rtol=1e-3)
    assert (np.asarray(kl) > 0).all()


def test_bfloat16_is_computed_in_float32():
    arrays = [jnp.bfloat16(x) for x in drawn()]
    (total, _), _ = compiled(Objective(0.3))(*arrays)
    (expected, _), _ = compiled(Objective(0.3))(*(jnp.float32(x) for x in arrays))
    assert total.dtype == jnp.float32 and total == expected


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_is_masked_plays_no_part_bit_for_bit(reduction, level):
    function = compiled(Objective(0.3, reduction=reduction, level=level, length=9))
    logprobs, old, A, mask, reference = drawn()
    rubbish = [np.where(mask > 0, x, y) for x, y in ((logprobs, -1e30), (old, np.inf), (reference, np.nan))]
    (total, terms), gradient = function(rubbish[0], rubbish[1], A, mask, rubbish[2])
    (whole, whole_terms), whole_gradient = function(logprobs, old, A, mask, reference)
    assert (total, terms) == (whole, whole_terms)
    np.testing.assert_array_equal(gradient, whole_gradient)
    assert not gradient[mask == 0].any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_parts_of_a_batch_add_up_to_the_batch(reduction, level):
    """Prompt by prompt, though they differ in tokens, and one has none."""
    objective = Objective(0.3, reduction=reduction, level=level, length=9)
    (_, whole), gradient = compiled(objective)(*drawn())
    parts = [compiled(objective)(*(x[p : p + 1] for x in drawn())) for p in range(P)]
    added = jax.tree.map(lambda *xs: sum(xs), *(terms for (_, terms), _ in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), added, whole)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), gradient, rtol=1e-5, atol=1e-6)


def test_nothing_to_learn_from_is_zero_not_nan():
    logprobs, old, A, mask, reference = drawn()
    for reduction in REDUCTIONS:
        function = compiled(Objective(0.3, reduction=reduction, length=9))
        (total, terms), gradient = function(logprobs, old, A, 0 * mask, reference)
        assert total == 0 and not gradient.any()
        assert terms.metrics["kl"] == (0, 0)


def test_clipping_is_counted_where_it_takes_the_gradient_away():
    """Low only where A < 0, high only where A > 0; elsewhere the ratio may stray and still be learnt from."""
    ratios = np.float32([0.5, 0.79, 0.81, 1.19, 1.29, 1.31, 2.0])
    old = np.zeros((1, 2, 7), np.float32)
    A, mask = np.float32([[1.0, -1.0]]), np.ones((1, 2, 7), np.float32)
    logprobs = np.broadcast_to(np.log(ratios), (1, 2, 7))
    (_, terms), gradient = compiled(Objective(0.0, 0.2, 0.3), reference=False)(logprobs, old, A, mask, old)
    assert terms.metrics["clip_low"] == (2, 14) and terms.metrics["clip_high"] == (2, 14)
    np.testing.assert_array_equal(gradient[0, 0] == 0, ratios > 1.3)
    np.testing.assert_array_equal(gradient[0, 1] == 0, ratios < 0.8)
    np.testing.assert_allclose(terms.metrics["ratio"][0], 2 * ratios.sum(), rtol=1e-6)
    assert "kl" not in terms.metrics


def test_a_sequence_is_clipped_as_a_whole():
    """Its tokens' ratios cancel to a mean of 1, or go beyond the bound together."""
    logprobs = np.log(np.float32([[[0.25, 4.0], [2.0, 1.0]]]))
    old, A, mask = np.zeros((1, 2, 2), np.float32), np.float32([[1.0, 1.0]]), np.ones((1, 2, 2), np.float32)
    (_, terms), gradient = compiled(Objective(0.0, level="sequence"), reference=False)(logprobs, old, A, mask, old)
    assert terms.metrics["clip_high"] == (1, 2)  # sqrt(2) > 1.2
    assert (gradient[0, 0] != 0).all() and not gradient[0, 1].any()


@pytest.mark.parametrize("bad", [{"reduction": "bnpo"}, {"level": "turn"}, {"reduction": "dr_grpo"}])
def test_unknown_objectives_are_refused(bad):
    with pytest.raises(UserError, match=r"reduction '") as error:
        Objective(**bad)
    assert "\n" not in str(error.value)
