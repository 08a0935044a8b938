"""Cache segments as sampling has them: empty ones, joined ones, and where on a mesh they live.

Letters: B batch, K key/value heads, S tokens, H head width.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from grm_jax.model.attention import KeyValues, Tokens
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import CacheSegment, Gemma2


def keys_by_column(backend: str) -> bool:
    """How keys lie that are decoded against, for a backend of jax ("cpu", "gpu", "tpu"); `scripts/bench_layouts` measures both."""
    return backend == "cpu"


def empty_segment(
    model: Gemma2, rows: int, size: int, dtype: jnp.dtype, *, by_column: bool, int8: bool = False
) -> CacheSegment:
    """An empty cache segment for `size` tokens a row, of `dtype` or in 8 bits."""
    c: Gemma2Config = model.config
    lines = (rows, c.num_kv_heads, size, c.head_dim)
    columns = (*lines[:2], *lines[:1:-1]) if by_column else lines
    scales = (*lines[:2], 1, size)

    def layers(leading: tuple[int, ...]) -> dict[str, KeyValues]:
        zeros = lambda shape, dtype: jnp.zeros((*leading, *shape), dtype)  # noqa: E731 - each leaf is its own buffer: they are donated
        one = lambda shape: zeros(shape, jnp.int8 if int8 else dtype)  # noqa: E731
        of_tokens = lambda: zeros(scales, jnp.float32) if int8 else None  # noqa: E731
        return {
            name: KeyValues(one(columns), one(lines), of_tokens(), of_tokens(), by_column)
            for name in ("local", "global")
        }

    stacked = tuple(layers(()) for _ in range(c.num_pairs)) if model.unrolled else layers((c.num_pairs,))
    empty = Tokens(positions=jnp.zeros((rows, size), jnp.int32), segments=jnp.zeros((rows, size), jnp.int32))
    return CacheSegment(layers=stacked, tokens=empty)


def names_of_axes(tree: Any, batch: str | None = "batch") -> Any:
    """Names of the axes of every leaf, as `PartitionSpec`s: a prompt or a row is one of the batch."""
    heads = {4: (), 5: (None,)}  # layers [B, K, S, H] and scales [B, K, 1, S], stacked [pairs, B, K, S, H]

    def names(leaf: jax.Array) -> PartitionSpec:
        if leaf.ndim in heads:
            return PartitionSpec(*heads[leaf.ndim], batch, "kv_heads", None, None)
        return PartitionSpec(*(batch, None)[: leaf.ndim])

    return jax.tree.map(names, tree)


def joined(first: CacheSegment, second: CacheSegment) -> CacheSegment:
    """One segment of both, tokens of the first before those of the second; the first may be one for all of the second's batch."""

    def one(axis: int, batch: int, a: jax.Array, b: jax.Array) -> jax.Array:
        a = jnp.broadcast_to(a, [b.shape[i] if i == batch else size for i, size in enumerate(a.shape)])
        return jnp.concatenate([a, b], axis=axis)

    def of_layer(kv: KeyValues, other: KeyValues) -> KeyValues:
        whole = kv.dequantized(other.values.dtype)
        return whole.map_tokens(lambda axis, a, b: one(axis, a.ndim - 4, a, b), other)

    layers = of_layers(of_layer, first, second)
    return CacheSegment(layers, jax.tree.map(functools.partial(one, 1, 0), first.tokens, second.tokens))


def present(*segments: CacheSegment | None) -> tuple[CacheSegment, ...]:
    """Those that are there."""
    return tuple(segment for segment in segments if segment is not None)


def of_layers(function: Callable[..., KeyValues], *segments: CacheSegment) -> Any:
    """Applies a function to the keys and values of every layer."""
    return jax.tree.map(function, *(segment.layers for segment in segments), is_leaf=lambda x: isinstance(x, KeyValues))
