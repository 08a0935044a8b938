"""Laws of finding the likeliest words by a threshold, against sorting them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.sampling import thresholds
from grm_jax.sampling.policy import SamplingPolicy, candidates
from grm_jax.sampling.thresholds import first_beyond, likeliest


def sorted_candidates(logits: jax.Array, policy: SamplingPolicy) -> np.ndarray:
    """What `candidates` is to give, by sorting the whole vocabulary: the plain form of the same filters."""
    logits = logits / policy.temperature
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    weights, tokens = jax.lax.top_k(weights, logits.shape[-1])
    if policy.top_k:
        weights = weights.at[:, policy.top_k :].set(0.0)
    if policy.top_p < 1.0:
        before = jnp.cumsum(weights, axis=-1) - weights
        weights = jnp.where(before < policy.top_p * jnp.sum(weights, axis=-1, keepdims=True), weights, 0.0)
    weights = jnp.where(weights >= policy.min_p, weights, 0.0)
    back = np.zeros(logits.shape, np.float32)
    np.put_along_axis(back, np.asarray(tokens), np.asarray(weights), axis=-1)
    return back


def sorted_likeliest(weights: np.ndarray, limit: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """What `likeliest` is to keep, one sorted row after another, in float64."""
    kept = np.zeros_like(weights)
    for row, (w, a) in enumerate(zip(weights, amounts, strict=True)):
        order = np.argsort(-w, kind="stable")
        before = np.cumsum(np.float64(a[order])) - a[order]
        chosen = order[before < limit[row]]
        kept[row, chosen] = w[chosen]
    return kept


POLICIES = [
    SamplingPolicy(0.5, top_k=1),
    SamplingPolicy(1.0, top_k=40),
    SamplingPolicy(1.0, top_k=100_000),
    SamplingPolicy(0.7, top_p=0.9),
    SamplingPolicy(1.3, top_p=0.01),
    SamplingPolicy(1.0, top_k=50, top_p=0.8),
    SamplingPolicy(1.0, top_p=0.95, min_p=0.02),
    SamplingPolicy(0.9, top_k=200, top_p=0.7, min_p=0.01),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("words", [1, 2, 255, 257, 3011])
def test_the_same_words_as_by_sorting(words, policy):
    """Every bit of every weight; a few rows are all one value, or far apart, or as close as float32 tells apart."""
    logits = generator("thresholds", words).standard_normal((24, words)).astype(np.float32) * 3
    logits[0] = 0.25
    logits[1] *= 1e4
    logits[2] *= 1e-6
    logits[3] = -np.inf
    logits[3, words // 2] = -1e38
    logits[4] = np.where(np.arange(words) % 2, 0.0, -0.0)
    np.testing.assert_array_equal(
        candidates(jnp.asarray(logits), policy), sorted_candidates(jnp.asarray(logits), policy)
    )


@pytest.mark.parametrize("words", [3, 300, 1001])
@pytest.mark.parametrize("levels", [1, 2, 5, 60])
def test_ties_at_the_edge_fall_to_lower_ids(levels, words):
    """Weights of few values, whose sums are exact in float32: no rounding decides."""
    rng = generator("ties", levels, words)
    weights = (rng.integers(1, levels + 1, size=(64, words)) / 64).astype(np.float32)
    weights[:8] *= rng.integers(0, 2, size=(8, words))
    weights[:, rng.integers(words)] = 1.0
    share = (rng.integers(1, 256, size=64) / 256).astype(np.float32)
    limit = share * weights.sum(1)
    kept = likeliest(jnp.asarray(weights), jnp.asarray(limit), lambda weights: weights)
    np.testing.assert_array_equal(kept, sorted_likeliest(weights, limit, weights))
    count = rng.integers(1, words + 1, size=64).astype(np.float32)
    kept = likeliest(jnp.asarray(weights), jnp.asarray(count), jnp.ones_like)
    np.testing.assert_array_equal(kept, sorted_likeliest(weights, count, np.ones_like(weights)))


def test_a_few_rows_at_a_time_are_the_rows(monkeypatch):
    """How many rows a CPU takes together changes nothing, also where they do not divide."""
    logits = jnp.asarray(generator("rows").standard_normal((7, 501)).astype(np.float32))
    policy = SamplingPolicy(1.0, top_k=90, top_p=0.8)
    together = candidates(logits, policy)
    for cached in (1, 1002, 1503):
        monkeypatch.setattr(thresholds, "_CACHED", cached)
        np.testing.assert_array_equal(candidates(logits, policy), together)


def test_the_vocabulary_is_not_sorted():
    """The compiled program of the largest policy has no sort and no top-k."""
    policy = SamplingPolicy(0.9, top_k=200, top_p=0.7, min_p=0.01)
    program = jax.jit(lambda logits: candidates(logits, policy)).lower(jnp.zeros((4, 1000))).compile().as_text()
    operations = set(re.findall(r" ([a-z-]+)\(", program))
    assert "while" in operations and operations.isdisjoint({"sort", "topk", "custom-call"})


def test_a_target_beyond_the_total_means_the_last_positive_amount():
    amounts = jnp.zeros((1, 700)).at[0, jnp.array([3, 300, 512])].set(1.0)
    for target, expected in ((0.0, 3), (1.0, 300), (2.5, 512), (jnp.inf, 512)):
        assert int(first_beyond(amounts, lambda total, target=target: jnp.full_like(total, target))[0]) == expected
