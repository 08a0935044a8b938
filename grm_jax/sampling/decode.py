"""One jitted loop decodes rows that each draw a sample of any of the prompts that are held.

A row that has ended waits, and the loop ends when enough of them do: the host then gives each another sample (`schedule`).

Letters: R rows, N new tokens of a sample at most.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from grm_jax.model.attention import Sharing, Tokens
from grm_jax.model.gemma2 import CacheSegment, Gemma2, forward
from grm_jax.model.heads import next_token_logits
from grm_jax.sampling.policy import SamplingPolicy, next_token
from grm_jax.sampling.prefill import Params, Prompts, head_length
from grm_jax.sampling.segments import empty_segment, of_layers, present


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
    before = present(head, held)
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

    layers = of_layers(lambda old, x: old.map_tokens(written, x), segment, new)
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
