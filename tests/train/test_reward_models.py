"""Laws of the loss that BTRM, PairRM and CLoud share."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.critique_reward import HEAD, zero_head
from grm_jax.model.gemma2 import Gemma2
from grm_jax.model.heads import scalar_head
from grm_jax.train.losses import bradley_terry
from grm_jax.train.reward_models import RewardModel, preference_loss, sequence_rewards
from tests.shapes import SHAPES, random_params

SHAPE = SHAPES["one_kv_head"]
MODEL = Gemma2(SHAPE)
P, S, T = 4, 9, 3


def params(head=True):
    drawn = {
        "w": 0.3 * generator("test", "head").standard_normal(SHAPE.model_dim).astype(np.float32),
        "b": np.float32(0.1),
    }
    return random_params(SHAPE) | {HEAD: drawn if head else zero_head(SHAPE)}


def batch(M, seed=0):
    rng = generator("test", "preferences", M, seed)
    signs = np.tile(np.float32([1, -1]), (P, 1)) if M == 2 else rng.choice([-1, 1], (P, 1)).astype(np.float32)
    return {
        "prompt_tokens": rng.integers(0, SHAPE.vocab_size, (P, M, S)).astype(np.int32),
        "prompt_lengths": rng.integers(2, S, (P, M)).astype(np.int32),
        "tokens": rng.integers(0, SHAPE.vocab_size, (P, M, T)).astype(np.int32),
        "lengths": rng.integers(1, T, (P, M)).astype(np.int32),
        "signs": signs,
    }


@functools.cache
def compiled():
    def total(params, batch):
        terms = preference_loss(MODEL, params, batch)
        return terms.total, (terms, sequence_rewards(MODEL, params, batch))

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("M", [1, 2])
def test_the_loss_is_minus_log_sigmoid_of_the_margin_in_float64(M):
    (total, (terms, rewards)), _ = compiled()(params(), batch(M))
    rewards, signs = np.float64(rewards), batch(M)["signs"]
    margins = rewards[:, 0] - rewards[:, 1] if M == 2 else rewards[:, 0] * signs[:, 0]
    np.testing.assert_allclose(total, np.log1p(np.exp(-margins)).sum(), rtol=1e-5)
    hits, count = terms.metrics["accuracy"]
    assert (hits, count, terms.denominator) == ((margins > 0).sum(), P, P)
    np.testing.assert_allclose(terms.metrics["margin"][0], margins.sum(), rtol=1e-5, atol=1e-6)


def test_the_formula_holds_where_numbers_are_large():
    margins = np.array([-90.0, -30.0, -2.0, 0.0, 1e-3, 5.0, 20.0, 40.0])
    expected = np.logaddexp(0.0, -margins)
    np.testing.assert_allclose(bradley_terry(jnp.float32(margins)), expected, rtol=1e-6)


@pytest.mark.torch
def test_the_formula_is_that_of_trl():
    """trl's reward trainer: -logsigmoid(rewards_chosen - rewards_rejected)."""
    import torch

    chosen, rejected = generator("test", "trl").standard_normal((2, 64)).astype(np.float32) * 8
    theirs = -torch.nn.functional.logsigmoid(torch.tensor(chosen) - torch.tensor(rejected))
    np.testing.assert_allclose(bradley_terry(jnp.asarray(chosen - rejected)), theirs, rtol=1e-5)


def test_a_head_of_zeros_costs_log_2():
    (total, _), gradient = compiled()(params(head=False), batch(2))
    np.testing.assert_allclose(total / P, math.log(2), rtol=1e-6)
    assert float(jnp.abs(gradient[HEAD]["w"]).max()) > 0  # it does not stay there


@pytest.mark.parametrize("M", [1, 2])
def test_a_step_against_the_gradient_rewards_what_is_better_more(M):
    before = compiled()(params(), batch(M))
    moved = jax.tree.map(lambda w, g: w - 1e-3 * g / optimal(before[1]), params(), before[1])
    margin = lambda found: float(found[0][1][0].metrics["margin"][0])  # noqa: E731
    assert margin(compiled()(moved, batch(M))) > margin(before)


def optimal(gradient):
    return math.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient)))


def test_what_is_better_is_pushed_up_and_what_is_worse_down():
    """The derivative by a reward is -sigmoid(-margin) for the chosen and +sigmoid(-margin) for the rejected one."""
    chosen, rejected = jnp.float32([2.0, -1.0]), jnp.float32([0.5, 3.0])
    up, down = jax.grad(lambda c, r: jnp.sum(bradley_terry(c - r)), argnums=(0, 1))(chosen, rejected)
    expected = 1 / (1 + np.exp(np.float64(chosen) - np.float64(rejected)))
    np.testing.assert_allclose(up, -expected, rtol=1e-6)
    np.testing.assert_allclose(down, expected, rtol=1e-6)


def test_exchanging_chosen_and_rejected_turns_the_margin_round():
    _, (terms, rewards) = compiled()(params(), batch(2))[0]
    turned = {name: value[:, ::-1] if name != "signs" else value for name, value in batch(2).items()}
    _, (other, exchanged) = compiled()(params(), turned)[0]
    np.testing.assert_allclose(exchanged[:, ::-1], rewards, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.metrics["margin"][0], -terms.metrics["margin"][0], rtol=1e-4, atol=1e-5)


def test_a_reward_is_read_at_the_last_token():
    """That of the same module over the whole sequence, at its last position; padding says nothing."""
    one = batch(2)
    found = compiled()(params(), one)[0][1][1]
    for p in range(P):
        for m in range(2):
            prompt = one["prompt_tokens"][p, m, : one["prompt_lengths"][p, m]]
            tokens = np.concatenate([prompt, one["tokens"][p, m, : one["lengths"][p, m]]])[None]
            padded = np.pad(tokens, ((0, 0), (0, S + T - tokens.shape[1])))
            hidden, _ = forward_compiled()(params(), padded)
            expected = scalar_head(hidden[0, tokens.shape[1] - 1], params()[HEAD])
            np.testing.assert_allclose(found[p, m], expected, rtol=1e-4, atol=1e-4)


@functools.cache
def forward_compiled():
    from grm_jax.model.gemma2 import forward

    return jax.jit(lambda params, tokens: forward(MODEL, params, tokens))


def test_parts_of_a_batch_add_up_to_the_batch():
    whole = preference_loss(MODEL, params(), batch(2))
    halves = [
        preference_loss(MODEL, params(), {n: v[part] for n, v in batch(2).items()}) for part in (slice(2), slice(2, 4))
    ]
    added = jax.tree.map(jnp.add, *halves)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), added, whole)


@pytest.mark.parametrize("bad", [{"preferences": 0}, {"preferences": 3, "accumulate": 2}, {"learning_rate": -1.0}])
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(UserError, match=r"RewardModel\."):
        RewardModel(steps=1, **bad)
