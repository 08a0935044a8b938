"""Laws of drawing a token, against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.sampling.policy import SamplingPolicy, candidates, invert_cdf, next_token


def logits_of(rows: int, words: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    return (generator("logits", seed).standard_normal((rows, words)) * spread).astype(np.float32)


def kept(logits: np.ndarray, policy: SamplingPolicy) -> list[set[int]]:
    """The tokens that a policy may draw, by the definition: one sorted list a row, in float64."""
    sets = []
    for row in np.float64(logits) / policy.temperature:
        order = np.argsort(-row, kind="stable")
        if policy.top_k:
            order = order[: policy.top_k]
        probabilities = np.exp(row[order] - row[order[0]])
        if policy.top_p < 1:
            share = probabilities / probabilities.sum()
            reach = int(np.searchsorted(np.cumsum(share), policy.top_p)) + 1
            order, probabilities = order[:reach], probabilities[:reach]
        sets.append({int(token) for token, p in zip(order, probabilities, strict=True) if p >= policy.min_p})
    return sets


@pytest.mark.parametrize(
    "policy",
    [
        SamplingPolicy(1.0),
        SamplingPolicy(0.5, top_k=1),
        SamplingPolicy(1.0, top_k=7),
        SamplingPolicy(1.0, top_k=10_000),
        SamplingPolicy(0.7, top_p=0.9),
        SamplingPolicy(1.3, top_p=0.05),
        SamplingPolicy(1.0, top_p=0.999),
        SamplingPolicy(0.5, min_p=0.1),
        SamplingPolicy(1.0, top_k=20, top_p=0.8, min_p=0.05),
    ],
    ids=str,
)
def test_exactly_the_right_set_is_kept_with_the_right_odds(policy):
    logits = logits_of(12, 301)
    weights = np.asarray(candidates(jnp.asarray(logits), policy), np.float64)
    for row, expected in enumerate(kept(logits, policy)):
        alive = weights[row] > 0
        assert set(np.flatnonzero(alive).tolist()) == expected
        exact = np.exp(np.float64(logits[row, alive]) / policy.temperature)
        np.testing.assert_allclose(weights[row][alive] / weights[row].sum(), exact / exact.sum(), rtol=1e-4, atol=1e-7)


def test_top_p_takes_the_smallest_set_when_probabilities_tie():
    logits = jnp.log(jnp.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1]]))
    weights = np.asarray(candidates(logits, SamplingPolicy(1.0, top_p=0.5)))
    chosen = [set(np.flatnonzero(row).tolist()) for row in weights]
    assert chosen == [{0, 1}, {1, 2}]


def test_inversion_gives_the_index_that_numpy_gives():
    """Also across blocks: 1,000 words are four blocks."""
    rng = generator("inversion")
    weights = rng.exponential(size=(4000, 1000)).astype(np.float32)
    uniform = rng.uniform(size=4000).astype(np.float32)
    cumulative = np.cumsum(np.float64(weights), axis=1)
    target = np.float64(uniform) * cumulative[:, -1]
    expected = (cumulative <= target[:, None]).sum(1)
    got = np.asarray(invert_cdf(jnp.asarray(weights), jnp.asarray(uniform)))
    # float32 sums may cross a boundary by their rounding, never by more.
    rows = np.arange(4000)
    edge = np.minimum(
        np.abs(target - cumulative[rows, expected]), np.abs(target - (cumulative - weights)[rows, expected])
    )
    assert np.all((got == expected) | (edge < 1e-4 * cumulative[:, -1]))
    assert (got == expected).mean() > 0.995


@pytest.mark.parametrize("uniform", [0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))])
@pytest.mark.parametrize("words", [1, 3, 256, 257, 1000])
def test_a_word_of_weight_zero_is_never_drawn(words, uniform):
    for only in {0, words // 2, words - 1}:
        weights = np.zeros((1, words), np.float32)
        weights[0, only] = 0.3
        assert int(invert_cdf(jnp.asarray(weights), jnp.full(1, uniform, jnp.float32))[0]) == only


def test_rounding_at_the_upper_end_never_leaves_the_words_that_have_weight():
    """The sum and the last cumulative sum of a row round differently: a number just below 1 can pass both."""
    weights = generator("tail").exponential(size=(3000, 1000)).astype(np.float32)
    weights[:, -300:] = 0
    below_one = np.nextafter(np.float32(1), np.float32(0))
    index = np.asarray(invert_cdf(jnp.asarray(weights), jnp.full(3000, below_one, jnp.float32)))
    assert np.all(weights[np.arange(3000), index] > 0)


def test_draws_follow_the_distribution():
    """A chi-square test of 40,000 draws over 50 words; its statistic exceeds 90 once in 3,000 seeds."""
    logits = logits_of(1, 50, spread=1.0)
    draws = 40_000
    uniform = jax.random.uniform(jax.random.key(1), (draws,))
    tokens = next_token(jnp.broadcast_to(logits, (draws, 50)), uniform, SamplingPolicy(0.8))
    probabilities = np.exp(np.float64(logits[0]) / 0.8)
    probabilities /= probabilities.sum()
    counts = np.bincount(np.asarray(tokens), minlength=50)
    assert ((counts - draws * probabilities) ** 2 / (draws * probabilities)).sum() < 90


def test_greedy_takes_the_likeliest_whatever_the_number():
    logits = logits_of(9, 77)
    for number in (0.0, 0.999):
        tokens = next_token(jnp.asarray(logits), jnp.full(9, number), SamplingPolicy(0.0, top_p=0.5))
        np.testing.assert_array_equal(tokens, logits.argmax(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1},
        {"top_k": 1.5}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_policies_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        SamplingPolicy(**settings)
