"""Laws of decoding: it is the full forward pass, token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import stream_key
from grm_jax.model.gemma2 import Gemma2, unroll
from grm_jax.sampling.decode import decode, empty_segment, prefill
from grm_jax.sampling.policy import SamplingPolicy
from tests.shapes import SHAPES, full_forward, random_params, random_tokens

NEW = 19


@functools.cache
def jitted(name: str, unrolled: bool, policy: SamplingPolicy, stop_ids: tuple[int, ...]):
    model = Gemma2(SHAPES[name], unrolled=unrolled)
    params = random_params(SHAPES[name])
    run = functools.partial(decode, model, policy=policy, stop_ids=stop_ids)
    return model, unroll(params) if unrolled else params, jax.jit(functools.partial(prefill, model)), jax.jit(run)


def generate(name, lengths, k, *, unrolled=False, policy=SamplingPolicy(1.0), stop_ids=(), keys=None, new=NEW):  # noqa: B008
    model, params, jit_prefill, jit_decode = jitted(name, unrolled, policy, stop_ids)
    B, P = len(lengths), max(lengths)
    tokens = random_tokens(SHAPES[name], rows=B, length=P)
    inside = np.arange(P) < np.asarray(lengths)[:, None]
    prompts = jit_prefill(params, jnp.asarray(np.where(inside, tokens, 0)), jnp.asarray(lengths, jnp.int32))
    if keys is None:
        keys = np.stack([stream_key("decode", row) for row in range(B * k)])
    out, _ = jit_decode(
        params, prompts, empty_segment(model, B * k, new, jnp.float32), jnp.asarray(keys), jnp.ones(B * k, bool)
    )
    return tokens, jax.device_get(out)


@pytest.mark.parametrize(
    ("name", "lengths", "k", "unrolled"),
    [
        ("grouped", [21, 3, 14], 1, False),
        ("grouped", [21, 3, 14], 4, True),
        ("one_kv_head", [17, 9], 7, True),
        ("all_kv_heads", [21, 3, 14], 4, False),
    ],
)
def test_sampled_log_probabilities_are_the_trainers(name, lengths, k, unrolled):
    """Decoding equals the full forward for ragged prompts and every k, past the window, and sampler equals trainer."""
    prompts, out = generate(name, lengths, k, unrolled=unrolled)
    rows = [np.concatenate([prompts[r // k, : lengths[r // k]], out.tokens[r]]) for r in range(len(lengths) * k)]
    _, logprobs = full_forward(SHAPES[name], random_params(SHAPES[name]), rows, max(lengths) + NEW)
    for row in range(len(rows)):
        start = lengths[row // k] - 1
        np.testing.assert_allclose(out.logprobs[row], logprobs[row, start : start + NEW], rtol=0, atol=1e-5)


def test_greedy_decoding_takes_the_likeliest_token_of_the_full_forward():
    name, lengths = "grouped", [9, 20]
    prompts, out = generate(name, lengths, 1, policy=SamplingPolicy(0.0))
    rows = [np.concatenate([prompts[r, : lengths[r]], out.tokens[r]]) for r in range(2)]
    logits, _ = full_forward(SHAPES[name], random_params(SHAPES[name]), rows, max(lengths) + NEW)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(out.tokens[row], logits[row, length - 1 : length - 1 + NEW].argmax(-1))


def test_a_row_ends_with_its_stop_token_and_the_loop_with_the_last_row():
    name = "grouped"
    _, free = generate(name, [9, 20], 3)
    stop = int(free.tokens[1, 4])  # a token that is drawn, and so ends its row early
    _, out = generate(name, [9, 20], 3, stop_ids=(stop, int(free.tokens[0, 2])))
    stops = {stop, int(free.tokens[0, 2])}
    for row in range(6):
        hits = [i for i, token in enumerate(free.tokens[row]) if int(token) in stops]
        length = hits[0] + 1 if hits else NEW
        assert out.lengths[row] == length
        assert out.stopped[row] == bool(hits)
        np.testing.assert_array_equal(out.tokens[row, :length], free.tokens[row, :length])
        assert not out.tokens[row, length:].any()
        assert not out.logprobs[row, length:].any()
    assert out.steps == out.lengths.max()


def test_the_loop_ends_early_when_every_row_has_stopped():
    _, free = generate("grouped", [9], 1)
    _, out = generate("grouped", [9], 1, stop_ids=(int(free.tokens[0, 3]),))
    assert out.steps <= 4 < NEW


@pytest.mark.parametrize("unrolled", [False, True], ids=["scanned", "unrolled"])
def test_the_cache_is_donated_and_updated_in_place(unrolled):
    """The compiled decode aliases the cache it is given with the one it returns, and holds no second copy of it."""
    name, rows, new = "grouped", 64, 1024
    config = SHAPES[name]
    model = Gemma2(config, unrolled=unrolled)
    params = random_params(config)
    params = unroll(params) if unrolled else params
    prompts = jax.eval_shape(
        functools.partial(prefill, model), params,
        jax.ShapeDtypeStruct((1, 16), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32),
    )  # fmt: skip
    cache = jax.eval_shape(lambda: empty_segment(model, rows, new, jnp.float32))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache.layers))
    run = jax.jit(functools.partial(decode, model, policy=SamplingPolicy(1.0), stop_ids=(1,)), donate_argnames="cache")
    shapes = (jax.ShapeDtypeStruct((rows, 2), jnp.uint32), jax.ShapeDtypeStruct((rows,), bool))
    memory = run.lower(params, prompts, cache, *shapes).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= size
    # A scan copies one pair's cache out of the stack while it reads it.
    assert memory.temp_size_in_bytes < size * (0.25 if unrolled else 0.25 + 1 / config.num_pairs)


def test_rows_of_padding_generate_nothing():
    model, params, jit_prefill, jit_decode = jitted("grouped", False, SamplingPolicy(1.0), ())
    prompts = jit_prefill(params, jnp.ones((2, 5), jnp.int32), jnp.array([5, 1], jnp.int32))
    keys = jnp.asarray(np.stack([stream_key(row) for row in range(2)]))
    out, _ = jit_decode(params, prompts, empty_segment(model, 2, 4, jnp.float32), keys, jnp.array([True, False]))
    assert out.lengths.tolist() == [4, 0]
    assert not out.tokens[1].any()
