"""New tokens, one a row, attend to a cached segment by a kernel for GPUs (Pallas, Triton): logits are never held, and keys are read
in blocks, but for those of which no row sees anything.

Rows of a ring cache begin at different times and places, so half of what a ring has room for is seen on the average, and with it
half of the bytes that a step must read. The kernel yields the parts of a softmax, which `attention.attend` joins with those of
other segments.

Letters: B batch of the segment, M queries that share one of it (rows times query heads of a key/value head), S key positions, K
key/value heads, H head width, C blocks of keys.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec

from grm_jax.model.layers import MASKED, soft_cap, visible
from grm_jax.model.mesh_axes import mesh_axes, parts

WIDTHS = (16, 32, 64, 128)  # of heads: powers of two, as the blocks of the kernel must be; 256 was not measured
_KEYS = 64  # multiplied at once
_QUERIES = (16, 32, 64)  # the same; a product on tensor cores has 16 rows at least
_PROGRAMS = 64  # of the kernel that keep a GPU busy; with fewer XLA is faster

Parts = tuple[jax.Array, jax.Array, jax.Array]


def attend_segment(
    queries: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    key_positions: jax.Array,
    key_segments: jax.Array,
    *,
    cap: float | None,
    window: int | None,
    interpret: bool = False,
) -> Parts | None:
    """Attends to one segment, or leaves it to XLA where that is faster: of float32, and of few rows and heads.

    Where a mesh is active each device attends with its own rows and heads; an axis that does not divide stays whole.

    Args:
        queries: [B, K, M, H], scaled; H is one of `WIDTHS`.
        positions: int32 [B, M], of the queries.
        segments: int32 [B, M], their ids; 0 sees nothing.
        keys: [B, K, S, H].
        values: [B, K, S, H].
        key_positions: int32 [B, S].
        key_segments: int32 [B, S].
        cap: soft cap of the logits.
        window: a query sees keys at most so far back, itself included.
        interpret: the kernel is run without a GPU, slowly, whatever is faster.

    Returns:
        None if it is left; else the largest logit [B, K, M] (`MASKED` where none is seen), the sum [B, K, M] of exponents relative
        to it, and the values' sum [B, K, M, H] so weighted; float32.
    """
    B, K, M, _ = queries.shape
    block = next((size for size in _QUERIES if size >= M), _QUERIES[-1])
    programs = B * K * pl.cdiv(M, block)
    if not interpret and (programs < _PROGRAMS or keys.dtype == jnp.float32):
        return None
    attend = functools.partial(_attend_here, block=block, cap=cap, window=window, interpret=interpret)
    arguments = (queries, positions, segments, keys, values, key_positions, key_segments)
    if jax.sharding.get_abstract_mesh().empty:
        return attend(*arguments)
    axes, heads = mesh_axes("batch"), mesh_axes("kv_heads")
    batch, heads = () if B % parts(axes) else axes, () if K % parts(heads) else heads
    # All devices have a segment that cannot be divided; if it is one, each then attends with its own rows.
    rows = axes if B == 1 and not batch and not M % parts(axes) else ()
    of_queries, of_rows = PartitionSpec(batch, heads, rows), PartitionSpec(batch, rows)
    of_keys, of_places = PartitionSpec(batch, heads), PartitionSpec(batch)
    specs = (of_queries, of_rows, of_rows, of_keys, of_keys, of_places, of_places)
    return jax.shard_map(attend, in_specs=specs, out_specs=(of_queries,) * 3, check_vma=False)(*arguments)


def _attend_here(
    queries: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    key_positions: jax.Array,
    key_segments: jax.Array,
    *,
    block: int,
    cap: float | None,
    window: int | None,
    interpret: bool,
) -> Parts:
    """`attend_segment` on one device, so many queries at a time."""
    B, K, M, H = queries.shape
    S = keys.shape[2]
    order, count = _blocks(visible(positions, segments, key_positions, key_segments, window))
    of_head = lambda *shape: pl.BlockSpec((None, None, *shape), lambda b, k, m: (b, k, *(0 for _ in shape)))  # noqa: E731
    of_line = lambda *shape: pl.BlockSpec((None, *shape), lambda b, k, m: (b, *(0 for _ in shape)))  # noqa: E731
    found = pl.pallas_call(
        functools.partial(_kernel, block=block, cap=cap, window=window),
        grid=(B, K, pl.cdiv(M, block)),
        in_specs=[
            of_head(M, H), of_line(M), of_line(M), of_head(S, H), of_head(S, H), of_line(S), of_line(S),
            of_line(order.shape[1]), of_line(),
        ],
        out_specs=[of_head(M), of_head(M), of_head(M, H)],
        out_shape=[jax.ShapeDtypeStruct((B, K, M, *last), jnp.float32) for last in ((), (), (H,))],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="attend_segment",
    )(queries, positions, segments, keys, values, key_positions, key_segments, order, count)  # fmt: skip
    return tuple(found)


def _blocks(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of bool [B, M, S] the blocks of keys, those that any query sees first: int32 [B, C]; and how many these are: int32 [B]."""
    B, _, S = seen.shape
    C = pl.cdiv(S, _KEYS)
    some = jnp.pad(jnp.any(seen, axis=1), ((0, 0), (0, C * _KEYS - S))).reshape(B, C, _KEYS).any(axis=-1)
    return jnp.argsort(~some, axis=-1, stable=True).astype(jnp.int32), jnp.sum(some, axis=-1, dtype=jnp.int32)


def _kernel(
    queries: Any, positions: Any, segments: Any, keys: Any, values: Any, key_positions: Any, key_segments: Any, order: Any,
    count: Any, peak: Any, total: Any, output: Any, *, block: int, cap: float | None, window: int | None,
) -> None:  # fmt: skip
    """Some queries of one key/value head: references without the axes B and K."""
    (M, H), S = queries.shape, keys.shape[0]
    first = pl.program_id(2) * block
    these, inside = pl.ds(first, block), first + jnp.arange(block) < M
    q = triton.load(queries.at[these, :], mask=inside[:, None], other=0.0)
    stand, ids = (triton.load(ref.at[these], mask=inside, other=0) for ref in (positions, segments))
    precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
    product = functools.partial(jnp.dot, precision=precision, preferred_element_type=jnp.float32)

    def add(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        last, total, output = carry
        begin = order[i] * _KEYS
        here, exists = pl.ds(begin, _KEYS), begin + jnp.arange(_KEYS) < S
        k, v = (triton.load(ref.at[here, :], mask=exists[:, None], other=0.0) for ref in (keys, values))
        key_stand, key_ids = (triton.load(ref.at[here], mask=exists, other=0) for ref in (key_positions, key_segments))
        seen = visible(stand, ids, key_stand, key_ids, window)
        logits = jnp.where(seen, soft_cap(product(q, k.T), cap), MASKED)
        peak = jnp.maximum(last, jnp.max(logits, axis=-1))
        weights = jnp.where(seen, jnp.exp(logits - peak[:, None]), 0.0)
        fading = jnp.exp(last - peak)
        total, output = fading * total + jnp.sum(weights, axis=-1), fading[:, None] * output
        return peak, total, output + product(weights.astype(v.dtype), v)

    nothing = jnp.full(block, MASKED, jnp.float32), jnp.zeros(block, jnp.float32), jnp.zeros((block, H), jnp.float32)
    found = jax.lax.fori_loop(0, count[()], add, nothing)
    for ref, x in zip((peak, total), found[:2], strict=True):
        triton.store(ref.at[these], x, mask=inside)
    triton.store(output.at[these, :], found[2], mask=inside[:, None])
