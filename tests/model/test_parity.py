"""Our logits are those of transformers' Gemma-2: against stored figures always, live where torch is installed."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import Gemma2
from grm_jax.model.heads import next_token_logits
from tests.shapes import SHAPES, jitted, random_params, random_tokens

GOLDENS = Path(__file__).parents[1] / "goldens" / "gemma2_logits.npz"
TOLERANCE = 1e-4


def logits(config: Gemma2Config, params, tokens, dtype=None) -> np.ndarray:
    hidden, _ = jitted(Gemma2(config, dtype=dtype))(params, jnp.asarray(tokens))
    return np.asarray(next_token_logits(hidden, params["embedding"], config))


@functools.cache
def ours(name: str) -> np.ndarray:
    return logits(SHAPES[name], random_params(SHAPES[name]), random_tokens(SHAPES[name]))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_stored_logits_of_transformers(name):
    with np.load(GOLDENS, allow_pickle=False) as goldens:
        np.testing.assert_allclose(ours(name), goldens[name], rtol=0, atol=TOLERANCE)


@pytest.mark.torch
@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_transformers_eager_attention(name, tmp_path):
    from tests.reference import transformers_logits

    config = SHAPES[name]
    expected = transformers_logits(config, random_params(config), random_tokens(config), tmp_path)
    np.testing.assert_allclose(ours(name), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.torch
@pytest.mark.parametrize("name", SHAPES)
def test_bfloat16_differs_from_float32_as_little_as_that_of_transformers(name, tmp_path):
    from tests.reference import transformers_logits

    config, params, tokens = SHAPES[name], random_params(SHAPES[name]), random_tokens(SHAPES[name])
    exact = ours(name)
    error = np.abs(logits(config, params, tokens, jnp.bfloat16) - exact).mean()
    theirs = np.abs(transformers_logits(config, params, tokens, tmp_path, dtype="bfloat16") - exact).mean()
    assert error < 1.25 * theirs, (error, theirs)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "change",
    [
        {"attention_soft_cap": None},
        {"final_soft_cap": None},
        {"window": 64},
        {"query_pre_attn_scalar": None},
        {"rope_theta": 10.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_trait_of_gemma2_shows_in_the_logits_compared(name, change):
    """Without this, parity could hold because a cap never bites or no query sees past the window."""
    config = SHAPES[name]
    if "query_pre_attn_scalar" in change:
        change = {"query_pre_attn_scalar": config.head_dim}
    other = logits(dataclasses.replace(config, **change), random_params(config), random_tokens(config))
    assert np.abs(other - ours(name)).max() > 100 * TOLERANCE
