"""The likeliest words of each row without sorting the vocabulary: only the weight at their edge is searched for.

Letters: R rows, C words.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_BLOCK = 256  # the cumulative sum runs over blocks first, then inside one block
_BITS = 30  # of a float32 in [0, 1], whose bits count up as its value does
_CACHED = 2**18  # numbers that a CPU searches together, at most: the search reads them 30 times


def likeliest(weights: jax.Array, limit: jax.Array, amount: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Keeps words from the largest weight down, lower ids first where weights tie, while those before take less than a limit.

    Each bit of the weight at the edge takes one masked sum: 30 passes over the words, where a sort would take more and move them.

    Args:
        weights: [R, C] float32 in [0, 1].
        limit: [R] float32, positive.
        amount: what words of these weights take, elementwise: one each (top-k), or their weight (top-p).

    Returns:
        weights [R, C], 0 for words that are not kept.
    """

    def taken(weights: jax.Array, edge: jax.Array) -> jax.Array:
        """Of each row [...], by the words above its edge [...]."""
        return jnp.sum(jnp.where(weights > edge[..., None], amount(weights), 0.0), axis=-1)

    def search(weights: jax.Array, limit: jax.Array) -> jax.Array:
        """The smallest float32 [...] above which words take less than the limit [...]; it is the weight of a word, or 0."""

        def narrow(i: jax.Array, bits: jax.Array) -> jax.Array:
            bit = jnp.int32(1) << (_BITS - 1 - i)
            return jnp.where(taken(weights, _float(bits + bit - 1)) < limit, bits, bits + bit)

        return _float(jax.lax.fori_loop(0, _BITS, narrow, jnp.zeros(limit.shape, jnp.int32)))

    edge = _few_at_a_time(search, weights, limit)
    ties = weights == edge[:, None]
    # At least one: a sum that is compiled twice may round differently. A tie of weight 0 may be kept or not.
    count = jnp.maximum(jnp.ceil((limit - taken(weights, edge)) / amount(edge)), 1.0)
    last = first_beyond(ties.astype(jnp.float32), lambda _: count - 1.0)
    ids = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    return jnp.where((weights > edge[:, None]) | (ties & (ids <= last[:, None])), weights, 0.0)


def first_beyond(amounts: jax.Array, target: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns the first index at which the cumulative sum of amounts exceeds a target; never one of amount 0.

    Where rounding puts the target past the end it is the last index of a positive amount.

    Args:
        amounts: [R, C] float32, not negative, some positive.
        target: of the total [R] of each row.

    Returns:
        int32 [R].
    """
    R, C = amounts.shape
    block = min(_BLOCK, C)
    blocks = jnp.pad(amounts, ((0, 0), (0, -C % block))).reshape(R, -1, block)
    sums = jnp.sum(blocks, axis=-1)
    chosen, left = _step(sums, target(jnp.sum(sums, axis=-1)))
    inside = jnp.take_along_axis(blocks, chosen[:, None, None], axis=1)[:, 0]
    index, _ = _step(inside, left)
    return chosen * block + index


def _step(amounts: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds where the cumulative sum of amounts [R, C] passes target [R]; returns the index and what is left of target."""
    cumulative = jnp.cumsum(amounts, axis=-1)
    index = jnp.sum(cumulative <= target[:, None], axis=-1, dtype=jnp.int32)
    last = amounts.shape[-1] - 1 - jnp.argmax(amounts[:, ::-1] > 0, axis=-1).astype(jnp.int32)
    index = jnp.minimum(index, last)
    before = jnp.take_along_axis(cumulative - amounts, index[:, None], axis=-1)[:, 0]
    return index, target - before


def _float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _few_at_a_time(
    function: Callable[[jax.Array, jax.Array], jax.Array], weights: jax.Array, limit: jax.Array
) -> jax.Array:
    """Applies a function of rows to as many of them as stay in the cache of a CPU; elsewhere, or divided, to all."""
    R, C = weights.shape
    if jax.default_backend() != "cpu" or R * C <= _CACHED or not jax.sharding.get_abstract_mesh().empty:
        return function(weights, limit)
    return jax.lax.map(lambda row: function(*row), (weights, limit), batch_size=max(1, _CACHED // C))
