"""Prompts are computed once, and held for the samples that are drawn of them.

What all prompts begin with, the head, is computed once for all of them; prompts here are what comes after it. What some of them
begin with after it is computed once for these.

Letters: H tokens of the head, P prompts, S tokens of a prompt (padded), D model width, A parts of a batch that share nothing.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from grm_jax.model.attention import KeyValues
from grm_jax.model.gemma2 import CacheSegment, Gemma2, forward
from grm_jax.sampling.segments import empty_segment, joined, of_layers, present

Params = dict[str, Any]


@struct.dataclass
class Prompts:
    """P prompts, computed: their cache segment, the hidden state [P, D] that predicts the next token, their lengths int32 [P]."""

    segment: CacheSegment
    hidden: jax.Array
    lengths: jax.Array


def head_length(head: CacheSegment | None) -> int:
    """H."""
    return 0 if head is None else head.tokens.positions.shape[1]


def compute_head(
    model: Gemma2, params: Params, tokens: jax.Array, *, by_column: bool, int8: bool = False
) -> CacheSegment:
    """Computes a head [A, H] int32, of A rows that are the same (a mesh may want several), as a cache segment of batch 1."""
    _, segment = forward(model, params, tokens)
    first = lambda axis: lambda x: jax.lax.slice_in_dim(x, 0, 1, axis=axis)  # noqa: E731

    def kept(kv: KeyValues) -> KeyValues:
        one = jax.tree.map(first(kv.values.ndim - 4), kv).laid(by_column)
        return one.quantized() if int8 else one

    return CacheSegment(of_layers(kept, segment), jax.tree.map(first(0), segment.tokens))


def prefill(
    model: Gemma2, params: Params, tokens: jax.Array, lengths: jax.Array, head: CacheSegment | None = None
) -> Prompts:
    """Computes prompts [P, S] int32, right-padded, of the given lengths [P], after a head. Pure; `Holding` has the jitted form."""
    return _prefill(model, params, tokens, lengths, jnp.full_like(lengths, head_length(head)), head)


def prefill_after(
    model: Gemma2,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    shared: Prompts,
    which: jax.Array,
    head: CacheSegment | None = None,
) -> Prompts:
    """As `prefill`, of prompts of which each goes on with one of `shared`, computed after the same head.

    `which` of them, int32 [A, P / A], is counted within each of A parts. What is returned holds all but the head.
    """
    first = _taken(shared, which)
    before = first.segment if head is None else joined(head, first.segment)
    rest = _prefill(model, params, tokens, lengths, head_length(head) + first.lengths, before)
    return Prompts(joined(first.segment, rest.segment), rest.hidden, first.lengths + lengths)


def _prefill(
    model: Gemma2,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    start: jax.Array,
    before: CacheSegment | None,
) -> Prompts:
    """Computes prompts whose first tokens stand at `start` [P]."""
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    inside = places < lengths[:, None]
    hidden, segment = forward(model, params, tokens, places + start[:, None], inside.astype(jnp.int32), present(before))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return Prompts(segment=segment, hidden=last, lengths=lengths)


def _taken(prompts: Prompts, which: jax.Array) -> Prompts:
    """Those that are named, int32 [A, n] within each of A parts."""
    A = which.shape[0]

    def taken(axis: int, leaf: jax.Array) -> jax.Array:
        split = leaf.reshape(*leaf.shape[:axis], A, -1, *leaf.shape[axis + 1 :])
        found = jax.vmap(lambda x, which: jnp.take(x, which, axis=axis), (axis, 0), axis)(split, which)
        return found.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 1 :])

    layers = of_layers(lambda kv: jax.tree.map(lambda leaf: taken(leaf.ndim - 4, leaf), kv), prompts.segment)
    tokens, hidden, lengths = jax.tree.map(
        functools.partial(taken, 0), (prompts.segment.tokens, prompts.hidden, prompts.lengths)
    )
    return Prompts(CacheSegment(layers, tokens), hidden, lengths)


def empty_prompts(
    model: Gemma2, count: int, size: int, dtype: jnp.dtype, *, by_column: bool, int8: bool = False
) -> Prompts:
    """Room for `count` prompts of up to `size` tokens."""
    hidden = jnp.zeros((count, model.config.model_dim), dtype)
    segment = empty_segment(model, count, size, dtype, by_column=by_column, int8=int8)
    return Prompts(segment, hidden, jnp.ones(count, jnp.int32))


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
    layers = of_layers(
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

    layers = of_layers(lambda kv: kv.map_tokens(wider), held.segment)
    tokens = jax.tree.map(functools.partial(wider, 1), held.segment.tokens)
    return dataclasses.replace(held, segment=CacheSegment(layers, tokens))
