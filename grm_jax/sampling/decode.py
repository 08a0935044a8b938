"""Prefill once, then decode k samples a prompt in one jitted loop.

Letters: B prompts, k samples a prompt, R = B * k rows, P prompt length (padded), S new tokens (at most), D model width.
"""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec

from grm_jax.model.attention import KeyValues, Tokens
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import CacheSegment, Gemma2, forward
from grm_jax.model.heads import next_token_logits
from grm_jax.sampling.policy import SamplingPolicy, next_token

Params = dict[str, Any]


@struct.dataclass
class Prefilled:
    """B prompts, computed: their cache segment, the hidden state [B, D] that predicts the next token, their lengths [B]."""

    segment: CacheSegment
    hidden: jax.Array
    lengths: jax.Array


@struct.dataclass
class Generation:
    """What was sampled.

    Attributes:
        tokens: [R, S] int32; a stop token is the last one of its row, the rest is 0.
        logprobs: [R, S] float32: log-probability of each token under the model itself (temperature 1, no filter).
        lengths: [R] int32 tokens sampled, stop token included.
        stopped: [R] bool: ended by a stop token, not by the limit S.
        steps: [] int32 decode steps that were run.
    """

    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    stopped: jax.Array
    steps: jax.Array


def prefill(model: Gemma2, params: Params, tokens: jax.Array, lengths: jax.Array) -> Prefilled:
    """Computes prompts [B, P] int32, right-padded, of the given lengths [B]. Pure; see `Sampler` for the jitted form."""
    inside = jnp.arange(tokens.shape[1], dtype=jnp.int32) < lengths[:, None]
    hidden, segment = forward(model, params, tokens, segments=inside.astype(jnp.int32))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return Prefilled(segment=segment, hidden=last, lengths=lengths)


def empty_segment(model: Gemma2, rows: int, size: int, dtype: jnp.dtype) -> CacheSegment:
    """An empty cache segment for `size` tokens a row."""
    c: Gemma2Config = model.config
    shape = (rows, c.num_kv_heads, size, c.head_dim)

    def layers(leading: tuple[int, ...]) -> dict[str, KeyValues]:
        zeros = lambda: jnp.zeros((*leading, *shape), dtype)  # noqa: E731 - each leaf is its own buffer: they are donated
        return {name: KeyValues(keys=zeros(), values=zeros()) for name in ("local", "global")}

    stacked = tuple(layers(()) for _ in range(c.num_pairs)) if model.unrolled else layers((c.num_pairs,))
    empty = Tokens(positions=jnp.zeros((rows, size), jnp.int32), segments=jnp.zeros((rows, size), jnp.int32))
    return CacheSegment(layers=stacked, tokens=empty)


def segment_axes(segment: CacheSegment) -> CacheSegment:
    """Names of the axes of every leaf of a segment, as `PartitionSpec`s."""
    rows = {2: (), 4: (), 5: (None,)}  # tokens [B, S]; layers [B, K, S, H], stacked [pairs, B, K, S, H]

    def names(leaf: jax.Array) -> PartitionSpec:
        heads = ("kv_heads", None, None) if leaf.ndim > 2 else (None,)
        return PartitionSpec(*rows[leaf.ndim], "batch", *heads)

    return cast(CacheSegment, jax.tree.map(names, segment))


def append(segment: CacheSegment, new: CacheSegment, index: jax.Array) -> CacheSegment:
    """Writes the one token of `new` at place `index` of a segment."""
    layers = jax.tree.map(
        lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), index, axis=old.ndim - 2),
        segment.layers, new.layers,
    )  # fmt: skip
    tokens = jax.tree.map(
        lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, index, axis=1), segment.tokens, new.tokens
    )
    return CacheSegment(layers=layers, tokens=tokens)


def decode(
    model: Gemma2,
    params: Params,
    prompts: Prefilled,
    cache: CacheSegment,
    keys: jax.Array,
    active: jax.Array,
    *,
    policy: SamplingPolicy,
    stop_ids: tuple[int, ...],
) -> tuple[Generation, CacheSegment]:
    """Samples up to S tokens for each of R rows; rows i * k ... (i + 1) * k - 1 continue prompt i. Pure.

    Args:
        model: the module.
        params: in the model's form (stacked or unrolled).
        prompts: B prefilled prompts.
        cache: a segment [R, S], whatever it holds: it is emptied first. Donate it: it is updated in place and returned.
        keys: raw key data uint32 [R, 2]; a row's draws depend on its own key and the step alone.
        active: bool [R]; rows of padding are False and generate nothing.
        policy: how tokens are drawn.
        stop_ids: a row ends with any of these tokens.

    Returns:
        The generation and the cache's buffers.
    """
    R, S = cache.tokens.segments.shape
    k = R // prompts.lengths.shape[0]
    start = jnp.repeat(prompts.lengths, k)
    sample_keys = jax.random.wrap_key_data(keys)

    def draw(hidden: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = next_token_logits(hidden, params["embedding"], model.config)
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, step)))(sample_keys)
        token = next_token(logits, uniform, policy)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        return token, chosen - jax.nn.logsumexp(logits, axis=-1)

    def record(out: Generation, token: jax.Array, logprob: jax.Array, running: jax.Array) -> Generation:
        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(old, jnp.where(running, new, 0)[:, None], out.steps, axis=1)

        hit = jnp.isin(token, jnp.array(stop_ids, jnp.int32)) if stop_ids else jnp.zeros_like(running)
        return Generation(
            tokens=put(out.tokens, token),
            logprobs=put(out.logprobs, logprob),
            lengths=out.lengths + running,
            stopped=out.stopped | (running & hit),
            steps=out.steps + 1,
        )

    def unfinished(carry: tuple[Generation, jax.Array, CacheSegment]) -> jax.Array:
        out = carry[0]
        return (out.steps < S) & jnp.any(active & ~out.stopped)

    def step(carry: tuple[Generation, jax.Array, CacheSegment]) -> tuple[Generation, jax.Array, CacheSegment]:
        out, token, generated = carry
        position = start + out.steps - 1
        hidden, new = forward(
            model, params, token[:, None], position[:, None], jnp.ones((R, 1), jnp.int32),
            (prompts.segment, generated),
        )  # fmt: skip
        token, logprob = draw(hidden[:, 0], out.steps)
        # The write waits for the drawn token, and so for every read of the cache: only then can XLA update it in place. (Token ids
        # are never negative: this adds 0, which the compiler cannot know.)
        index = out.steps - 1 + jnp.minimum(token[0], 0)
        generated = append(generated, new, index)
        return record(out, token, logprob, active & ~out.stopped), token, generated

    out = Generation(
        tokens=jnp.zeros((R, S), jnp.int32),
        logprobs=jnp.zeros((R, S), jnp.float32),
        lengths=jnp.zeros(R, jnp.int32),
        stopped=jnp.zeros(R, bool),
        steps=jnp.int32(0),
    )
    token, logprob = draw(jnp.repeat(prompts.hidden, k, axis=0), jnp.int32(0))
    out = record(out, token, logprob, active)
    cache = dataclasses.replace(cache, tokens=jax.tree.map(jnp.zeros_like, cache.tokens))
    out, _, cache = jax.lax.while_loop(unfinished, step, (out, token, cache))
    return out, cache
