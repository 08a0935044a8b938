"""Laws of continuation: it is the plain forward pass of every [prompt; completion], values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.continuation import continue_hidden, last_hidden
from grm_jax.model.gemma2 import Gemma2, forward
from tests.shapes import SHAPES, random_params

P, G, S, T = 3, 4, 11, 7
PROMPT_LENGTHS = np.array([11, 1, 6], np.int32)
SHAPE = SHAPES["one_kv_head"]  # its window of 5 reaches from a completion into its prompt, and past it
PARAMS = random_params(SHAPE)


@pytest.fixture(scope="module")
def batch():
    """Prompts, completions, their lengths, and random weights [P, G, T, D] of the states inside them."""
    rng = generator("test", "continuation")
    lengths = rng.integers(1, T, (P, G)).astype(np.int32)
    lengths[0, 0], lengths[1, 2], lengths[2, 1] = T, 1, 0
    inside = np.arange(T) < lengths[..., None]
    return {
        "prompts": rng.integers(0, SHAPE.vocab_size, (P, S)).astype(np.int32),
        "tokens": rng.integers(0, SHAPE.vocab_size, (P, G, T)).astype(np.int32),
        "lengths": lengths,
        "weights": (rng.standard_normal((P, G, T, SHAPE.model_dim)) * inside[..., None]).astype(np.float32),
    }


@functools.cache
def continued(remat: bool):
    """Jitted: batch -> ((weighted sum, (states, last states)), gradient)."""
    model = Gemma2(SHAPE, remat=remat)

    def total(params, batch):
        given = (model, params, batch["prompts"], PROMPT_LENGTHS, batch["tokens"])
        states = continue_hidden(*given)
        return jnp.sum(states * batch["weights"]), (states, last_hidden(*given, batch["lengths"]))

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    return lambda batch: run(PARAMS, batch)


@pytest.fixture(scope="module")
def plain(batch):
    """The same from one row for each completion: ((sum, (states that predict [P, G, T, D], states at the tokens)), gradient)."""
    rows = np.zeros((P, G, S + T), np.int32)
    for p, length in enumerate(PROMPT_LENGTHS):
        rows[p, :, :length] = batch["prompts"][p, :length]
        rows[p, :, length : length + T] = batch["tokens"][p]
    at = (PROMPT_LENGTHS[:, None] + np.arange(T))[:, None, :, None]

    def total(params):
        hidden, _ = forward(Gemma2(SHAPE), params, jnp.asarray(rows.reshape(P * G, -1)))
        hidden = hidden.reshape(P, G, S + T, -1)
        states = jnp.take_along_axis(hidden, at - 1, axis=2)
        return jnp.sum(states * batch["weights"]), (states, jnp.take_along_axis(hidden, at, axis=2))

    return jax.jit(jax.value_and_grad(total, has_aux=True))(PARAMS)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["stored", "rematerialized"])
def test_continuation_equals_the_plain_forward_of_every_row(batch, plain, remat):
    (_, (expected, _)), gradient = plain
    (_, (states, _)), own = continued(remat)(batch)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-5)
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(own), strict=True):
        scale = float(np.max(np.abs(leaf)))
        assert scale > 0
        np.testing.assert_allclose(other, leaf, rtol=0, atol=1e-5 * scale, err_msg=jax.tree_util.keystr(path))


def test_padding_has_no_influence(batch):
    """Neither the prompt's padding nor what stands after a completion changes a state that counts, or a gradient."""
    after = np.arange(T) >= batch["lengths"][..., None]
    beyond = np.arange(S) >= PROMPT_LENGTHS[:, None]
    other = {
        **batch,
        "tokens": np.where(after, (batch["tokens"] + 1) % SHAPE.vocab_size, batch["tokens"]),
        "prompts": np.where(beyond, (batch["prompts"] + 1) % SHAPE.vocab_size, batch["prompts"]),
    }
    assert after.any() and beyond.any()
    (total, (_, last)), gradient = continued(False)(batch)
    (other_total, (_, other_last)), other_gradient = continued(False)(other)
    jax.tree.map(np.testing.assert_array_equal, (total, last, gradient), (other_total, other_last, other_gradient))


def test_the_last_state_is_that_of_the_last_token(batch, plain):
    (_, (predicting, at)), _ = plain
    (_, (_, last)), _ = continued(False)(batch)
    for p, g in np.ndindex(P, G):
        length = batch["lengths"][p, g]  # an empty completion ends with its prompt
        expected = at[p, g, length - 1] if length else predicting[p, g, 0]
        np.testing.assert_allclose(last[p, g], expected, rtol=0, atol=1e-5)
