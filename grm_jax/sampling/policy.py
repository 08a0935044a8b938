"""How the next token is drawn from its logits.

Tokens are drawn by inverting the cumulative distribution with one uniform number a row, instead of a Gumbel number for every word
of the vocabulary. Letters: R rows, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from grm_jax.errors import UserError
from grm_jax.sampling.thresholds import first_beyond, likeliest


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
    return invert_cdf(candidates(logits, policy), uniform)


def candidates(logits: jax.Array, policy: SamplingPolicy) -> jax.Array:
    """Unnormalized probabilities [R, V] after temperature and filters, 0 for tokens that are filtered out.

    Ties at the edge of a filter are broken towards lower token ids, so the kept set is always the smallest one.
    """
    logits = logits / policy.temperature
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    if 0 < policy.top_k < logits.shape[-1]:
        weights = likeliest(weights, jnp.full(weights.shape[:1], float(policy.top_k)), jnp.ones_like)
    if policy.top_p < 1.0:
        weights = likeliest(weights, policy.top_p * jnp.sum(weights, axis=-1), lambda weights: weights)
    if policy.min_p > 0.0:
        weights = jnp.where(weights >= policy.min_p, weights, 0.0)  # the likeliest token has weight 1
    return weights


def invert_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Returns the first index whose cumulative weight exceeds uniform * total; never one of weight 0.

    Args:
        weights: [R, C] float32, not negative, some positive.
        uniform: [R] in [0, 1).
    """
    return first_beyond(weights, lambda total: uniform * total)
