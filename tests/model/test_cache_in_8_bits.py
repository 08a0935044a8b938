"""Laws of keys and values in 8 bits: attention to them is attention to what they stand for, and that is near what they were."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.attention import KeyValues, Sharing, Tokens, attend
from grm_jax.model.gemma2 import Gemma2, forward
from grm_jax.sampling.prefill import compute_head, empty_prompts, grow, prefill, put
from grm_jax.sampling.segments import empty_segment
from tests.shapes import SHAPES, random_params, random_tokens

R, K, G, H = 6, 2, 3, 10
layouts = pytest.mark.parametrize("by_column", [False, True], ids=["lines", "columns"])


def drawn(name, *shape):
    return jnp.asarray(generator("test", "cache", name).standard_normal(shape).astype(np.float32))


def key_values(name, batch, length, *, by_column=False):
    """Of sizes that differ from token to token and from head to head, and of zeros."""
    shape = (batch, K, length)
    sizes = jnp.exp(2 * drawn(name + "s", *shape, 1)).at[:, 0, 1].set(0)
    kv = KeyValues(keys=sizes * drawn(name + "k", *shape, H), values=sizes[::-1] * drawn(name + "v", *shape, H))
    return kv.laid(by_column)


def is_kv(x):
    return isinstance(x, KeyValues)


@layouts
def test_what_is_kept_is_off_by_half_a_scale_at_most(by_column):
    kv = key_values("near", 3, 11, by_column=by_column)
    with jax.disable_jit(), jax.debug_nans(True):  # what a cast to int8 makes of NaN is the backend's affair
        found = kv.quantized()
    assert found.keys.dtype == found.values.dtype == jnp.int8 and found.by_column == by_column
    assert found.keys.shape == kv.keys.shape and found.values.shape == kv.values.shape
    assert found.key_scales.shape == found.value_scales.shape == (3, K, 1, 11)
    assert found.key_scales.dtype == found.value_scales.dtype == jnp.float32
    lines, back = kv.laid(False), found.dequantized(jnp.float32).laid(False)
    for before, after, scales in (
        (lines.keys, back.keys, found.key_scales),
        (lines.values, back.values, found.value_scales),
    ):
        steps = np.swapaxes(scales, -1, -2)
        assert np.all(np.abs(before - after) <= 0.5001 * steps)
        largest = np.max(np.abs(before), axis=-1, keepdims=True)
        np.testing.assert_allclose(127 * steps, largest, rtol=1e-6)  # every level is used
        silent = largest[..., 0] == 0
        assert silent.any() and not np.any(after[silent]) and np.all(np.isfinite(after))
    again = found.quantized()
    assert again is found and kv.dequantized(jnp.float32) is kv


@layouts
@pytest.mark.parametrize("grid", [False, True], ids=["by order", "by a grid"])
@pytest.mark.parametrize("window", [None, 6])
def test_attention_to_8_bits_is_attention_to_what_they_stand_for(by_column, grid, window):
    """Several segments of both kinds at once, tokens of zeros among them, rows that share by order and by a grid."""
    T, S, N = 3, 11, 7
    queries = drawn("q", R, T, K * G, H)
    whole = lambda rows, first, size: Tokens(  # noqa: E731
        jnp.broadcast_to(first + jnp.arange(size), (rows, size)), jnp.ones((rows, size), jnp.int32)
    )
    where = whole(R, S + N, T)
    prompt, ring = whole(2, 0, S), whole(R, S, N)
    if grid:
        rows = jnp.array([[[0, 4, 5], [1, 2, 3]]])
        places = jnp.array([[0, 3, 4, 5, 1, 2]])
        prompt = Tokens(prompt.positions, prompt.segments, Sharing(rows, places))
    own = key_values("own", R, T)
    parts = [
        (key_values("prompt", 2, S, by_column=by_column), prompt),
        (key_values("ring", R, N, by_column=by_column), ring),
    ]
    run = functools.partial(attend, queries, where, own, scale=0.3, cap=5.0, window=window)
    found = run([(kv.quantized(), tokens) for kv, tokens in parts])
    expected = run([(kv.quantized().dequantized(jnp.float32), tokens) for kv, tokens in parts])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert 1e-4 < np.max(np.abs(found - run(parts))) < 0.1 * np.max(np.abs(expected))


@pytest.mark.parametrize("kernel", ["xla", "splash interpreted"])
def test_a_prompt_attends_to_a_head_in_8_bits(kernel):
    """By any kernel: what a prompt computes after such a head is what it computes after what the head stands for."""
    model, params = Gemma2(SHAPES["grouped"], kernel=kernel), random_params(SHAPES["grouped"])
    tokens = jnp.asarray(random_tokens(SHAPES["grouped"], rows=2, length=14))
    head = compute_head(model, params, tokens[:1, :9], by_column=False, int8=True)
    exact = jax.tree.map(lambda kv: kv.dequantized(jnp.float32), head.layers, is_leaf=is_kv)
    lengths = jnp.array([14, 14], jnp.int32)
    found = prefill(model, params, tokens, lengths, head)
    expected = prefill(model, params, tokens, lengths, head.replace(layers=exact))
    np.testing.assert_allclose(found.hidden, expected.hidden, rtol=0, atol=1e-5)
    whole, _ = forward(model, params, jnp.concatenate([jnp.tile(tokens[:1, :9], (2, 1)), tokens], axis=1))
    assert 1e-5 < np.max(np.abs(found.hidden - whole[:, -1])) < 0.1
    own = found.segment.layers["local"]
    assert own.keys.dtype == jnp.float32 and own.key_scales is None  # its own tokens it computes in full


@layouts
@pytest.mark.parametrize("unrolled", [False, True], ids=["scanned", "unrolled"])
def test_prompts_are_put_as_they_would_be_kept_alone(by_column, unrolled):
    """Put and grown, a prompt's bytes are those of its keys and values quantized at once, in their place."""
    config = SHAPES["grouped"]
    model, params = Gemma2(config, unrolled=unrolled), random_params(config)
    tokens, lengths = jnp.asarray(random_tokens(config, rows=1, length=14)), jnp.array([14], jnp.int32)
    new = prefill(model, params, tokens, lengths)
    held = empty_prompts(model, 3, 16, jnp.float32, by_column=by_column, int8=True)
    held = grow(put(held, new, jnp.array([[2]], jnp.int32)), 24)
    of_layers = (jax.tree.leaves(prompts.segment.layers, is_leaf=is_kv) for prompts in (held, new))
    for kept, one in zip(*of_layers, strict=True):
        expected = one.quantized().laid(False)
        assert kept.by_column == by_column and kept.keys.dtype == jnp.int8
        kept = kept.laid(False)
        for found, wanted, axis in (
            (kept.keys, expected.keys, -2), (kept.values, expected.values, -2),
            (kept.key_scales, expected.key_scales, -1), (kept.value_scales, expected.value_scales, -1),
        ):  # fmt: skip
            batch = found.ndim - 4
            there = jnp.take(found, 2, axis=batch)
            np.testing.assert_array_equal(
                jax.lax.slice_in_dim(there, 0, 14, axis=axis), jnp.take(wanted, 0, axis=batch)
            )
            assert not np.any(jax.lax.slice_in_dim(there, 14, 24, axis=axis)) and np.any(there)
            assert not np.any(jnp.take(found, jnp.array([0, 1]), axis=batch))


def test_a_token_takes_a_byte_a_number_and_two_scales_a_head():
    c = SHAPES["grouped"]
    segment = empty_segment(Gemma2(c), 3, 16, jnp.bfloat16, by_column=False, int8=True)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(segment.layers))
    assert size == 3 * 16 * c.num_layers * c.num_kv_heads * 2 * (c.head_dim + 4)
