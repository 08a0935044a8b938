"""Prompts are computed once; then one jitted loop decodes rows that each draw a sample of any of them.

A row that has ended waits, and the loop ends when enough of them do: the host then gives each another sample (`schedule`). What all
prompts begin with, the head, is computed once for all of them; prompts here are what comes after it.

Letters: H tokens of the head, P prompts held at once, S tokens of a prompt (padded), R rows, N new tokens of a sample at most, D
model width.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec

from grm_jax.model.attention import KeyValues, Sharing, Tokens
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import CacheSegment, Gemma2, forward
from grm_jax.model.heads import next_token_logits
from grm_jax.sampling.policy import SamplingPolicy, next_token

Params = dict[str, Any]


@struct.dataclass
class Prompts:
    """P prompts, computed: their cache segment, the hidden state [P, D] that predicts the next token, their lengths int32 [P]."""

    segment: CacheSegment
    hidden: jax.Array
    lengths: jax.Array


@struct.dataclass
class Rows:
    """R samples in the making.

    Of what they generate, cache, tokens and log-probabilities are rings: at every step all rows write at the same place, the
    cursor, wherever in its sample each may be. A sample has N tokens at most, so it never meets its own beginning.

    Attributes:
        cache: [R, N] keys and values, of the places that belong to a row's sample.
        tokens: [R, N] int32, those drawn.
        logprobs: [R, N] float32: log-probability of each under the model itself (temperature 1, no filter).
        last: [R] int32: the token drawn last.
        lengths: [R] int32: tokens drawn.
        running: [R] bool: the sample has not ended.
        stopped: [R] bool: it was ended by a stop token, not by the limit N.
        steps: [] int32 since the beginning; the cursor is its remainder by N.
    """

    cache: CacheSegment
    tokens: jax.Array
    logprobs: jax.Array
    last: jax.Array
    lengths: jax.Array
    running: jax.Array
    stopped: jax.Array
    steps: jax.Array


@struct.dataclass
class Drawn:
    """What the host needs to know of `Rows`; same names, same arrays."""

    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    running: jax.Array
    stopped: jax.Array
    steps: jax.Array


def compute_head(
    model: Gemma2, params: Params, tokens: jax.Array, *, by_column: bool, int8: bool = False
) -> CacheSegment:
    """Computes a head [A, H] int32, of A rows that are the same (a mesh may want several), as a cache segment of batch 1."""
    _, segment = forward(model, params, tokens)
    first = lambda axis: lambda x: jax.lax.slice_in_dim(x, 0, 1, axis=axis)  # noqa: E731

    def kept(kv: KeyValues) -> KeyValues:
        one = jax.tree.map(first(kv.values.ndim - 4), kv).laid(by_column)
        return one.quantized() if int8 else one

    return CacheSegment(_of_layers(kept, segment), jax.tree.map(first(0), segment.tokens))


def prefill(
    model: Gemma2, params: Params, tokens: jax.Array, lengths: jax.Array, head: CacheSegment | None = None
) -> Prompts:
    """Computes prompts [P, S] int32, right-padded, of the given lengths [P], after a head. Pure; `Sampler` has the jitted form."""
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    inside = places < lengths[:, None]
    positions = jnp.broadcast_to(places + head_length(head), tokens.shape)
    hidden, segment = forward(model, params, tokens, positions, inside.astype(jnp.int32), _segments(head))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return Prompts(segment=segment, hidden=last, lengths=lengths)


def head_length(head: CacheSegment | None) -> int:
    """H."""
    return 0 if head is None else head.tokens.positions.shape[1]


def _segments(*segments: CacheSegment | None) -> tuple[CacheSegment, ...]:
    return tuple(segment for segment in segments if segment is not None)


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


def empty_prompts(
    model: Gemma2, count: int, size: int, dtype: jnp.dtype, *, by_column: bool, int8: bool = False
) -> Prompts:
    """Room for `count` prompts of up to `size` tokens."""
    hidden = jnp.zeros((count, model.config.model_dim), dtype)
    segment = empty_segment(model, count, size, dtype, by_column=by_column, int8=int8)
    return Prompts(segment, hidden, jnp.ones(count, jnp.int32))


def empty_rows(model: Gemma2, rows: int, new: int, dtype: jnp.dtype, *, by_column: bool, int8: bool = False) -> Rows:
    """Rows that wait."""
    integers, flags = (
        (lambda: jnp.zeros(rows, jnp.int32)),
        (lambda: jnp.zeros(rows, bool)),
    )  # each its own: they are donated
    return Rows(
        cache=empty_segment(model, rows, new, dtype, by_column=by_column, int8=int8),
        tokens=jnp.zeros((rows, new), jnp.int32),
        logprobs=jnp.zeros((rows, new), jnp.float32),
        last=integers(),
        lengths=integers(),
        running=flags(),
        stopped=flags(),
        steps=jnp.int32(0),
    )


def names_of_axes(tree: Prompts | Rows | CacheSegment, batch: str | None = "batch") -> Any:
    """Names of the axes of every leaf, as `PartitionSpec`s: a prompt or a row is one of the batch."""
    heads = {4: (), 5: (None,)}  # layers [B, K, S, H] and scales [B, K, 1, S], stacked [pairs, B, K, S, H]

    def names(leaf: jax.Array) -> PartitionSpec:
        if leaf.ndim in heads:
            return PartitionSpec(*heads[leaf.ndim], batch, "kv_heads", None, None)
        return PartitionSpec(*(batch, None)[: leaf.ndim])

    return jax.tree.map(names, tree)


def put(held: Prompts, new: Prompts, places: jax.Array) -> Prompts:
    """Puts new prompts in the places of old ones. Donate those that are held.

    Args:
        held: P prompts, in A equal parts, which a mesh may have apart.
        new: of no more tokens, as many for each part.
        places: int32 [A, new prompts of a part]: where each goes within its part; negative for one that goes nowhere.
    """
    A = places.shape[0]

    def one(axis: int, old: jax.Array, new: jax.Array, places: jax.Array) -> jax.Array:
        for i in range(places.shape[0]):
            slab = jax.lax.slice_in_dim(new, i, i + 1, axis=axis).astype(old.dtype)
            start = [places[i] if a == axis else 0 for a in range(old.ndim)]
            kept = jax.lax.dynamic_slice(old, start, slab.shape)
            old = jax.lax.dynamic_update_slice(old, jnp.where(places[i] < 0, kept, slab), start)
        return old

    def in_parts(axis: int, old: jax.Array, new: jax.Array) -> jax.Array:
        if A == 1:
            return one(axis, old, new, places[0])
        split = lambda x: x.reshape(*x.shape[:axis], A, -1, *x.shape[axis + 1 :])  # noqa: E731
        return jax.vmap(functools.partial(one, axis), (axis, axis, 0), axis)(split(old), split(new), places).reshape(
            old.shape
        )

    # Of keys and values only what belongs to the new prompt is written: nobody sees what an earlier one left behind it.
    layers = _of_layers(
        lambda old, x: old.map_tokens(lambda axis, *leaves: in_parts(leaves[0].ndim - 4, *leaves), x),
        held.segment,
        new.segment,
    )
    S = held.segment.tokens.positions.shape[1]
    pad = lambda x: jnp.pad(x, ((0, 0), (0, S - x.shape[1])))  # noqa: E731
    whole = functools.partial(in_parts, 0)
    tokens = jax.tree.map(lambda old, x: whole(old, pad(x)), held.segment.tokens, new.segment.tokens)
    return Prompts(CacheSegment(layers, tokens), whole(held.hidden, new.hidden), whole(held.lengths, new.lengths))


def grow(held: Prompts, size: int) -> Prompts:
    """The same prompts with room for `size` tokens each."""

    def wider(axis: int, leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, [(0, size - leaf.shape[a] if a == axis else 0) for a in range(leaf.ndim)])

    layers = _of_layers(lambda kv: kv.map_tokens(wider), held.segment)
    tokens = jax.tree.map(functools.partial(wider, 1), held.segment.tokens)
    return dataclasses.replace(held, segment=CacheSegment(layers, tokens))


def _of_layers(function: Callable[..., KeyValues], *segments: CacheSegment) -> Any:
    """Applies a function to the keys and values of every layer."""
    return jax.tree.map(function, *(segment.layers for segment in segments), is_leaf=lambda x: isinstance(x, KeyValues))


def decode(
    model: Gemma2,
    params: Params,
    prompts: Prompts,
    rows: Rows,
    keys: jax.Array,
    fresh: jax.Array,
    sharing: Sharing,
    patience: jax.Array,
    head: CacheSegment | None = None,
    *,
    policy: SamplingPolicy,
    stop_ids: tuple[int, ...],
) -> tuple[Rows, Drawn]:
    """Goes on with samples, and begins those of fresh rows, until `patience` of them have ended. Pure.

    Args:
        model: the module.
        params: in the model's form (stacked or unrolled).
        prompts: those that are held.
        rows: as the last call returned them. Donate them: they are updated in place.
        keys: raw key data uint32 [R, 2]; a sample's draws depend on its own key and the number of the token alone.
        fresh: bool [R]: the row begins another sample.
        sharing: which of the prompts each row continues.
        patience: int32 []: how many must end; none of them beyond those that run is waited for.
        head: what all prompts that are held begin with.
        policy: how tokens are drawn.
        stop_ids: a sample ends with any of these tokens.

    Returns:
        The rows, and what the host reads of them: arrays of their own, so that the rows can be donated again.
    """
    R, N = rows.tokens.shape
    held = dataclasses.replace(prompts.segment, tokens=dataclasses.replace(prompts.segment.tokens, sharing=sharing))
    before = _segments(head, held)
    start, first = head_length(head) + sharing.of_rows(prompts.lengths), sharing.of_rows(prompts.hidden)
    sample_keys = jax.random.wrap_key_data(keys)
    rows = _begin(rows, fresh)
    left = jnp.sum(rows.running) - patience

    def unfinished(carry: tuple[Rows, jax.Array]) -> jax.Array:
        running = jnp.sum(carry[0].running)
        return (running > 0) & (running > left)

    def step(carry: tuple[Rows, jax.Array]) -> tuple[Rows, jax.Array]:
        rows, fresh = carry
        position = (start + rows.lengths - 1)[:, None]
        inside = (rows.running & ~fresh)[:, None]
        hidden, new = forward(
            model, params, rows.last[:, None], position, jnp.ones((R, 1), jnp.int32), (*before, rows.cache)
        )
        # A fresh row's first token follows its prompt, whose state is known: what it computed here is not used.
        hidden = jnp.where(fresh[:, None], first, hidden[:, 0])
        logits = next_token_logits(hidden, params["embedding"], model.config)
        uniform = jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n)))(sample_keys, rows.lengths)
        token = next_token(logits, uniform, policy)
        logprob = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        # The write waits for the drawn token, and so for every read of the cache: only then can XLA update it in place. (Token
        # ids are never negative: this adds 0, which the compiler cannot know.)
        cursor = (rows.steps + jnp.minimum(token[0], 0)) % N
        where = Tokens(positions=new.tokens.positions, segments=inside.astype(jnp.int32))
        cache = write(rows.cache, CacheSegment(layers=new.layers, tokens=where), cursor)
        return _record(dataclasses.replace(rows, cache=cache), token, logprob, cursor, stop_ids), jnp.zeros_like(fresh)

    rows, _ = jax.lax.while_loop(unfinished, step, (rows, fresh))
    return rows, Drawn(**{field.name: getattr(rows, field.name) for field in dataclasses.fields(Drawn)})


def _begin(rows: Rows, fresh: jax.Array) -> Rows:
    """Fresh rows have drawn nothing, and none of their places holds anything."""
    tokens = rows.cache.tokens
    segments = jnp.where(fresh[:, None], 0, tokens.segments)
    return dataclasses.replace(
        rows,
        cache=dataclasses.replace(rows.cache, tokens=dataclasses.replace(tokens, segments=segments)),
        lengths=jnp.where(fresh, 0, rows.lengths),
        running=rows.running | fresh,
        stopped=rows.stopped & ~fresh,
    )


def write(segment: CacheSegment, new: CacheSegment, index: jax.Array) -> CacheSegment:
    """Writes the one token of `new` at place `index` of a segment."""

    def written(axis: int, old: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), index, axis=axis)

    layers = _of_layers(lambda old, x: old.map_tokens(written, x), segment, new)
    tokens = jax.tree.map(functools.partial(written, 1), segment.tokens, new.tokens)
    return CacheSegment(layers, tokens)


def _record(rows: Rows, token: jax.Array, logprob: jax.Array, cursor: jax.Array, stop_ids: tuple[int, ...]) -> Rows:
    """Notes what running rows have drawn; what others have drawn before stays."""

    def noted(ring: jax.Array, new: jax.Array) -> jax.Array:
        old = jax.lax.dynamic_slice_in_dim(ring, cursor, 1, axis=1)
        kept = jnp.where(rows.running[:, None], new[:, None], old)
        return jax.lax.dynamic_update_slice_in_dim(ring, kept, cursor, axis=1)

    hit = jnp.isin(token, jnp.array(stop_ids, jnp.int32)) if stop_ids else jnp.zeros_like(rows.running)
    lengths = rows.lengths + rows.running
    return dataclasses.replace(
        rows,
        tokens=noted(rows.tokens, token),
        logprobs=noted(rows.logprobs, logprob),
        last=token,
        lengths=lengths,
        running=rows.running & ~hit & (lengths < rows.tokens.shape[1]),
        stopped=rows.stopped | (rows.running & hit),
        steps=rows.steps + 1,
    )
