"""Causal attention over a list of cache segments, with one softmax over all of them.

A segment holds keys and values of consecutive tokens. Prefill and training attend to one segment: the tokens themselves.
Decoding attends to three: the prompt (shared by the k samples of a row), what the sample generated so far, and the new token.
A prompt segment of batch B serves k * B query rows as extra rows of the same product, so its keys are read once for k samples.
Which rows those are is their order, or is said (`Sharing`), so that a row may go on with another prompt than its neighbours.

Letters: R rows, B batch of a segment, k rows at most that share one of it, T query positions, S key positions, N query heads,
K key/value heads, G = N / K, H head width, A parts of rows and of a batch that share nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from grm_jax.model.layers import MASKED, soft_cap, visible
from grm_jax.model.quantization import quantize

QUERY_BLOCK = 1024  # longer sequences attend in blocks of this many queries: memory grows with T, not T * T


@struct.dataclass
class KeyValues:
    """Keys and values of one layer, or of stacked layers.

    Attributes:
        keys: [..., B, K, S, H]; by column [..., B, K, H, S].
        values: [..., B, K, S, H].
        key_scales: None, or [..., B, K, 1, S] float32: keys are int8, and stand for themselves times the scale of their token.
        value_scales: the same of values; keys and values are of one kind.
        by_column: how keys lie. Few queries against many keys are a product that a CPU does up to nine times as fast by column
            (`sampling.segments.keys_by_column`).
    """

    keys: jax.Array
    values: jax.Array
    key_scales: jax.Array | None = None
    value_scales: jax.Array | None = None
    by_column: bool = struct.field(pytree_node=False, default=False)

    def laid(self, by_column: bool) -> "KeyValues":
        """The same with keys that lie so."""
        if by_column == self.by_column:
            return self
        return dataclasses.replace(self, keys=self.keys.swapaxes(-1, -2), by_column=by_column)

    def quantized(self) -> "KeyValues":
        """The same in 8 bits, each token and head of it by itself."""
        if self.key_scales is not None:
            return self
        keys = quantize(self.keys, (-2,) if self.by_column else (-1,))
        values = quantize(self.values, (-1,))
        key_scales = keys.scales if self.by_column else keys.scales.swapaxes(-1, -2)
        return KeyValues(keys.values, values.values, key_scales, values.scales.swapaxes(-1, -2), self.by_column)

    def dequantized(self, dtype: jnp.dtype) -> "KeyValues":
        """What those in 8 bits stand for, in `dtype`; others stay as they are."""
        if self.key_scales is None or self.value_scales is None:
            return self
        key_scales = self.key_scales if self.by_column else self.key_scales.swapaxes(-1, -2)
        keys, values = self.keys * key_scales, self.values * self.value_scales.swapaxes(-1, -2)
        return KeyValues(keys.astype(dtype), values.astype(dtype), by_column=self.by_column)

    def like(self, other: "KeyValues") -> "KeyValues":
        """The same, not in 8 bits yet, laid as another and in 8 bits if that is."""
        laid = self.laid(other.by_column)
        return laid if other.key_scales is None else laid.quantized()

    def map_tokens(self, function: Callable[..., jax.Array], *others: "KeyValues") -> "KeyValues":
        """Applies function(axis of S, array, arrays of `others` made like these) to keys, to values, and to scales if there are."""
        rest = [other.like(self) for other in others]

        def mapped(name: str, from_end: int) -> Any:
            array = getattr(self, name)
            if array is None:
                return None
            return function(array.ndim - from_end, array, *(getattr(kv, name) for kv in rest))

        keys, values = mapped("keys", 1 if self.by_column else 2), mapped("values", 2)
        return KeyValues(keys, values, mapped("key_scales", 1), mapped("value_scales", 1), self.by_column)


@struct.dataclass
class Sharing:
    """Which rows share what of a segment, as a grid with a line for each of its B: a row stands in one place of it, and a place may
    be empty. Rows and lines come in A equal parts, which share nothing, so that a mesh may divide both alike.

    Attributes:
        rows: [A, B / A, k] int32: the row at each place, counted within its part; any row where the place is empty.
        places: [A, R / A] int32: the place of each row, line * k + column, counted within its part.
    """

    rows: jax.Array
    places: jax.Array

    def gather(self, x: jax.Array) -> jax.Array:
        """[R, ...] -> [B, k, ...]."""
        A, B, k = self.rows.shape
        taken = jax.vmap(lambda x, rows: x[rows])(x.reshape(A, -1, *x.shape[1:]), self.rows)
        return taken.reshape(A * B, k, *x.shape[1:])

    def spread(self, x: jax.Array) -> jax.Array:
        """[B, k, ...] -> [R, ...]: what stands at the place of each row."""
        A, B, k = self.rows.shape
        taken = jax.vmap(lambda x, places: x[places])(x.reshape(A, B * k, *x.shape[2:]), self.places)
        return taken.reshape(-1, *x.shape[2:])

    def of_rows(self, x: jax.Array) -> jax.Array:
        """[B, ...] -> [R, ...]: what each row shares."""
        A, B, k = self.rows.shape
        taken = jax.vmap(lambda x, places: x[places // k])(x.reshape(A, B, *x.shape[1:]), self.places)
        return taken.reshape(-1, *x.shape[1:])


@struct.dataclass
class Tokens:
    """Where the tokens of a segment stand, and who sees them.

    Attributes:
        positions: [B, S] int32.
        segments: [B, S] int32 ids. Id 0 is empty; ids see only their equals.
        sharing: the rows that share each of B; None for rows i * R / B ... of each i.
    """

    positions: jax.Array
    segments: jax.Array
    sharing: Sharing | None = None


# Attends queries of one token to a segment; returns the parts of a softmax, or None (`decode_attention.attend_segment`).
BySegment = Callable[..., tuple[jax.Array, jax.Array, jax.Array] | None]
# The largest logit of a segment [R, K, T, G]; and, given the largest of all, the sum of exponents relative to it [R, K, T, G]
# and of values so weighted [R, K, T, G, H].
Reduced = tuple[jax.Array, Callable[[jax.Array], tuple[jax.Array, jax.Array]]]


def attend(
    queries: jax.Array,
    where: Tokens,
    own: KeyValues,
    cache: Sequence[tuple[KeyValues, Tokens]],
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    by_segment: BySegment | None = None,
) -> jax.Array:
    """Attends queries [R, T, N, H] to their own tokens and to the cached segments; returns [R, T, N, H] in values' dtype.

    Key j is visible to query i when both have the same non-zero segment id, j <= i, and, with a window, i - j < window.
    Own tokens must stand in order: within a segment id, consecutive indices have consecutive positions.
    Where each row has one query, `by_segment` attends to the cached segments that it takes, none of them in 8 bits.
    """
    T = queries.shape[1]
    if T <= QUERY_BLOCK:
        return _attend_block(
            queries, where, [*cache, (own, where)], scale=scale, cap=cap, window=window, by_segment=by_segment
        )
    blocks = []
    for start in range(0, T, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, T)
        # Keys outside [first, stop) are invisible to these queries: later ones by causality, earlier ones by the window.
        first = 0 if window is None else max(0, start - window + 1)
        block = jax.checkpoint(
            lambda q, w, own, own_where, cache: _attend_block(
                q, w, [*cache, (own, own_where)], scale=scale, cap=cap, window=window
            )
        )
        own_slice = jax.tree.map(lambda x, a=first, b=stop: x[..., a:b, :], own)
        blocks.append(
            block(
                queries[:, start:stop], _slice(where, start, stop), own_slice, _slice(where, first, stop), list(cache)
            )
        )
    return jnp.concatenate(blocks, axis=1)


def _slice(where: Tokens, start: int, stop: int) -> Tokens:
    return jax.tree.map(lambda x: x[:, start:stop], where)


def _attend_block(
    queries: jax.Array,
    where: Tokens,
    parts: Sequence[tuple[KeyValues, Tokens]],
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    by_segment: BySegment | None = None,
) -> jax.Array:
    R, T, N, H = queries.shape
    queries = queries * scale
    reduced = []
    for kv, tokens in parts:
        taken = None
        if by_segment and T == 1 and tokens.positions.shape[1] > 1 and kv.key_scales is None:
            taken = _reduce_by(by_segment, queries, where, kv, tokens, cap, window)
        reduced.append(taken or _reduce(queries, where, kv, tokens, cap, window))
    # One softmax over all segments without joining them: a common maximum, then sums and products add up. The maximum cancels,
    # so its gradient is 0: computing that would cost as much as the rest of the backward pass.
    peak = jax.lax.stop_gradient(jnp.max(jnp.stack([peak for peak, _ in reduced]), axis=0))
    total: jax.Array | float = 0.0
    output: jax.Array | float = 0.0
    for _, relative in reduced:
        part_total, part_output = relative(peak)
        total, output = total + part_total, output + part_output
    attended = output / jnp.asarray(total)[..., None]
    return attended.transpose(0, 2, 1, 3, 4).reshape(R, T, N, H).astype(queries.dtype)


def _reduce(
    queries: jax.Array, where: Tokens, kv: KeyValues, tokens: Tokens, cap: float | None, window: int | None
) -> Reduced:
    logits = _logits(queries, where, kv, tokens, cap, window)

    def relative(peak: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights = jnp.exp(logits - jnp.swapaxes(_shared(peak, tokens), 1, 2)[..., None])
        product = jnp.einsum(
            "bkjtgs,bksh->bkjtgh",
            _scaled(weights, kv.value_scales).astype(queries.dtype),
            kv.values.astype(queries.dtype),
            preferred_element_type=jnp.float32,
        )
        return _rows(jnp.sum(weights, axis=-1), tokens), _rows(product, tokens)

    return _rows(jnp.max(logits, axis=-1), tokens), relative


def _reduce_by(
    by_segment: BySegment,
    queries: jax.Array,
    where: Tokens,
    kv: KeyValues,
    tokens: Tokens,
    cap: float | None,
    window: int | None,
) -> Reduced | None:
    """`_reduce` of a cached segment for one query of each row; None if `by_segment` leaves it."""
    grouped, kv = _grouped(queries, kv, tokens), kv.laid(by_column=False)
    B, K, k, _, G, H = grouped.shape
    positions, segments = (jnp.repeat(_shared(x, tokens)[..., 0], G, axis=1) for x in (where.positions, where.segments))
    parts = by_segment(
        grouped.reshape(B, K, k * G, H), positions, segments, kv.keys, kv.values, tokens.positions, tokens.segments,
        cap=cap, window=window,
    )  # fmt: skip
    if parts is None:
        return None
    own_peak, total, output = (_rows(part.reshape(B, K, k, 1, G, *part.shape[3:]), tokens) for part in parts)

    def relative(peak: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = jnp.exp(own_peak - peak)
        return factor * total, factor[..., None] * output

    return own_peak, relative


def _grouped(queries: jax.Array, kv: KeyValues, tokens: Tokens) -> jax.Array:
    """[R, T, N, H] -> [B, K, k, T, G, H]."""
    N, H = queries.shape[2:]
    K = kv.keys.shape[1]
    shared = _shared(queries, tokens)
    return shared.reshape(*shared.shape[:3], K, N // K, H).transpose(0, 3, 1, 2, 4, 5)


def _logits(
    queries: jax.Array, where: Tokens, kv: KeyValues, tokens: Tokens, cap: float | None, window: int | None
) -> jax.Array:
    """Capped, masked logits [B, K, k, T, G, S] of the rows that share each of B."""
    product = "bkjtgh,bkhs->bkjtgs" if kv.by_column else "bkjtgh,bksh->bkjtgs"
    logits = jnp.einsum(
        product, _grouped(queries, kv, tokens), kv.keys.astype(queries.dtype), preferred_element_type=jnp.float32
    )
    logits = soft_cap(_scaled(logits, kv.key_scales), cap)
    positions, segments = _shared(where.positions, tokens), _shared(where.segments, tokens)
    seen = visible(positions, segments, tokens.positions[:, None], tokens.segments[:, None], window)
    return jnp.where(seen[:, None, :, :, None], logits, MASKED)


def _scaled(x: jax.Array, scales: jax.Array | None) -> jax.Array:
    """x [B, K, k, T, G, S] times the scales [B, K, 1, S] of the tokens, so that no keys and values but those in 8 bits are held."""
    return x if scales is None else x * scales[:, :, :, None, None]


def _shared(x: jax.Array, tokens: Tokens) -> jax.Array:
    """[R, ...] -> [B, k, ...]: the rows that share each of a segment's B."""
    if tokens.sharing is not None:
        return tokens.sharing.gather(x)
    B = tokens.positions.shape[0]
    return x.reshape(B, x.shape[0] // B, *x.shape[1:])


def _rows(x: jax.Array, tokens: Tokens) -> jax.Array:
    """[B, K, k, T, G, ...] -> [R, K, T, G, ...]: the inverse of `_shared`."""
    x = jnp.swapaxes(x, 1, 2)
    return x.reshape(-1, *x.shape[2:]) if tokens.sharing is None else tokens.sharing.spread(x)
