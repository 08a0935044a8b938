"""Laws of weights in 8 bits: how far they are from the weights, and that a model multiplies them as what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.gemma2 import Gemma2, abstract_params, forward, unroll
from grm_jax.model.layers import gated_mlp, project
from grm_jax.model.quantization import (
    QuantizedWeight,
    dequantized,
    is_quantized,
    numeric_type,
    quantize,
    quantized,
)
from tests.shapes import SHAPES, random_params, random_tokens

CASES = {  # shape of a weight, axes that a product sums over, how many that are of one layer's
    "matrix": ((48, 80), (-2,), 1),
    "heads": ((48, 6, 10), (-3,), 1),
    "output": ((6, 10, 48), (-3, -2), 2),
    "stacked": ((3, 48, 6, 10), (-3,), None),
}
PROJECTIONS = {"query", "key", "value", "output", "gate", "up", "down"}


def weight_of(shape, dtype=np.float32):
    """Columns of very different size, one of them zero."""
    weight = generator("weight", *shape).standard_normal(shape) * np.logspace(-6, 3, shape[-1])
    weight[..., 3] = 0.0
    return jnp.asarray(weight, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_a_weight_is_half_a_step_away_at_most(case, dtype):
    shape, summed, _ = CASES[case]
    weight = weight_of(shape, dtype)
    found = quantize(weight, summed)
    assert found.values.dtype == jnp.int8 and found.scales.dtype == jnp.float32 and found.shape == shape
    assert found.scales.shape == tuple(1 if axis - len(shape) in summed else n for axis, n in enumerate(shape))
    wide = np.float64(weight.astype(jnp.float32))
    error = np.abs(np.float64(found.values) * np.float64(found.scales) - wide)
    assert np.all(error <= np.float64(found.scales) / 2 * (1 + 1e-5))
    largest = np.max(np.abs(np.asarray(found.values, np.int32)), axis=summed)
    assert np.all(largest == np.where(np.max(np.abs(wide), axis=summed) > 0, 127, 0))


@pytest.mark.parametrize("case", CASES)
def test_what_is_quantized_stays_as_it_is(case):
    shape, summed, _ = CASES[case]
    once = quantize(weight_of(shape), summed)
    again = quantize(once.dequantized(), summed)
    np.testing.assert_array_equal(again.values, once.values)
    np.testing.assert_allclose(again.scales, once.scales, rtol=2e-7)
    params = quantized(random_params(SHAPES["grouped"]))
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, quantized(params), params))


@pytest.mark.parametrize("case", ["matrix", "heads", "output"])
def test_a_product_is_that_with_the_weight_it_stands_for(case):
    shape, summed, axes = CASES[case]
    weight = quantize(weight_of(shape), summed)
    x = jnp.asarray(generator("x").standard_normal((2, 5, int(np.prod(shape[:axes])))), jnp.float32)
    found, expected = project(x, weight, axes), project(x, weight.dequantized(), axes)
    assert found.shape == expected.shape == (2, 5, *shape[axes:])
    channel = np.max(np.abs(expected), axis=(0, 1), keepdims=True)
    assert np.all(np.abs(found - expected) <= 1e-6 * channel)
    narrow = project(x.astype(jnp.bfloat16), weight, axes)
    assert narrow.dtype == jnp.bfloat16
    exact = project(x.astype(jnp.bfloat16).astype(jnp.float32), weight, axes)
    # Rounded twice to eight bits, each time by 2**-8 of the value at most; the sum itself is in float32.
    assert np.all(np.abs(narrow.astype(jnp.float32) - exact) <= 2**-7 * 1.005 * np.abs(exact) + 1e-5 * channel)


def test_the_feed_forward_layer_takes_both():
    names = {"gate": (48, 80), "up": (48, 80), "down": (80, 48)}
    params = {name: quantize(weight_of(shape) / 100, (-2,)) for name, shape in names.items()}
    x = jnp.asarray(generator("x").standard_normal((2, 5, 48)), jnp.float32)
    np.testing.assert_allclose(gated_mlp(params, x), gated_mlp(dequantized(params), x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unrolled", [False, True], ids=["stacked", "unrolled"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_model_computes_with_what_its_weights_stand_for(name, unrolled):
    config = SHAPES[name]
    params = random_params(config)
    narrow = unroll(quantized(params)) if unrolled else quantized(params)
    if unrolled:
        assert jax.tree.all(jax.tree.map(np.array_equal, narrow, quantized(unroll(params))))
    tokens = jnp.asarray(random_tokens(config))
    model = Gemma2(config, unrolled=unrolled)
    run = jax.jit(lambda params: forward(model, params, tokens)[0])
    found, expected, whole = run(narrow), run(dequantized(narrow)), run(unroll(params) if unrolled else params)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - whole).max() > 1e-3  # and these are others than the weights


def test_projections_are_quantized_and_nothing_else():
    params = quantized(random_params(SHAPES["grouped"]))
    kept = jax.tree.leaves_with_path(params, is_leaf=lambda leaf: isinstance(leaf, QuantizedWeight))
    for path, leaf in kept:
        assert isinstance(leaf, QuantizedWeight) == (path[-1].key in PROJECTIONS), path
    assert sum(path[-1].key in PROJECTIONS for path, _ in kept) == 14
    assert is_quantized(params) and not is_quantized(random_params(SHAPES["grouped"]))
    assert numeric_type(params) == "float32 with int8 weights"
    assert numeric_type(params, int8_cache=True) == "float32 with int8 weights and cache"
    assert numeric_type(random_params(SHAPES["grouped"]), int8_cache=True) == "float32 with int8 cache"


def test_a_program_is_given_the_bytes_of_int8():
    """The scales are small, and no float weight is among a compiled step's arguments."""
    config = SHAPES["grouped"]
    params = jax.eval_shape(quantized, abstract_params(config))
    step = jax.jit(lambda params, tokens: forward(Gemma2(config), params, tokens)[0])
    memory = step.lower(params, jnp.zeros((2, 1), jnp.int32)).compile().memory_analysis()
    projections = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.dtype == jnp.int8)
    others = 4 * sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.dtype != jnp.int8)
    assert memory.argument_size_in_bytes == projections + others + 8
