"""How the next token is drawn from its logits.

Tokens are drawn by inverting the cumulative distribution with one uniform number a row, instead of a Gumbel number for every word
of the vocabulary. Letters: R rows, V vocabulary, C candidates.
"""

import dataclasses

import jax
import jax.numpy as jnp

from grm_jax.errors import UserError

_BLOCK = 256  # the cumulative sum runs over blocks first, then inside one block


@dataclasses.dataclass(frozen=True)
class SamplingPolicy:
    """Temperature, then top-k, top-p and min-p, in that order.

    Attributes:
        temperature: divides the (soft-capped) logits; 0 is greedy. The paper samples its votes at 0.5.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of most likely tokens whose probability reaches p; 1 keeps all.
        min_p: keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    """

    temperature: float = 0.5
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be 0 (greedy) or a positive number, not {self.temperature!r}")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise UserError(f"top_k must be 0 (off) or a positive integer, not {self.top_k!r}")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if not 0.0 <= self.min_p <= 1.0:
            raise UserError(f"min_p must be between 0 and 1, not {self.min_p!r}")


def next_token(logits: jax.Array, uniform: jax.Array, policy: SamplingPolicy) -> jax.Array:
    """Draws one token a row: logits [R, V] float32, uniform [R] in [0, 1) -> int32 [R]."""
    if policy.temperature == 0.0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    weights, tokens = candidates(logits, policy)
    index = invert_cdf(weights, uniform)
    return index if tokens is None else jnp.take_along_axis(tokens, index[:, None], axis=-1)[:, 0]


def candidates(logits: jax.Array, policy: SamplingPolicy) -> tuple[jax.Array, jax.Array | None]:
    """Unnormalized probabilities after temperature and filters.

    Ties at the edge of a filter are broken towards lower token ids, so the kept set is always the smallest one.

    Returns:
        weights [R, C], 0 for tokens that are filtered out, and the token ids [R, C] they belong to; None when C = V in id order.
    """
    logits = logits / policy.temperature
    tokens = None
    if policy.top_k or policy.top_p < 1.0:
        count = policy.top_k if 0 < policy.top_k < logits.shape[-1] else logits.shape[-1]
        logits, tokens = jax.lax.top_k(logits, count)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    if policy.top_p < 1.0:
        before = jnp.cumsum(weights, axis=-1) - weights
        weights = jnp.where(before < policy.top_p * jnp.sum(weights, axis=-1, keepdims=True), weights, 0.0)
    if policy.min_p > 0.0:
        weights = jnp.where(weights >= policy.min_p, weights, 0.0)  # the likeliest token has weight 1
    return weights, tokens


def invert_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Returns the first index whose cumulative weight exceeds uniform * total; never one of weight 0.

    Args:
        weights: [R, C] float32, not negative, some positive.
        uniform: [R] in [0, 1).
    """
    R, C = weights.shape
    block = min(_BLOCK, C)
    blocks = jnp.pad(weights, ((0, 0), (0, -C % block))).reshape(R, -1, block)
    sums = jnp.sum(blocks, axis=-1)
    target = uniform * jnp.sum(sums, axis=-1)
    chosen, target = _step(sums, target)
    inside = jnp.take_along_axis(blocks, chosen[:, None, None], axis=1)[:, 0]
    index, _ = _step(inside, target)
    return chosen * block + index


def _step(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds where the cumulative sum of weights [R, C] passes target [R]; returns the index and what is left of target."""
    cumulative = jnp.cumsum(weights, axis=-1)
    index = jnp.sum(cumulative <= target[:, None], axis=-1, dtype=jnp.int32)
    # Rounding can put the target past the end: then the last index of positive weight is meant.
    last = weights.shape[-1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1).astype(jnp.int32)
    index = jnp.minimum(index, last)
    before = jnp.take_along_axis(cumulative - weights, index[:, None], axis=-1)[:, 0]
    return index, target - before
