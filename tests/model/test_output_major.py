"""Laws of weights by output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.config import PRESETS, Gemma2Config
from grm_jax.model.gemma2 import Gemma2, abstract_params, forward, unroll
from grm_jax.model.heads import next_token_logits
from grm_jax.model.layers import project
from grm_jax.model.output_major import native_form, output_major
from grm_jax.model.projections import formed, is_formed
from grm_jax.model.quantization import quantized
from tests.shapes import SHAPES, random_params

CASES = {"matrix": ((12, 20), (-2,)), "into heads": ((12, 3, 4), (-3,)), "out of heads": ((3, 4, 12), (-3, -2))}


def weight(shape):
    return jnp.asarray(generator("output major", *shape).standard_normal(shape, np.float32))


@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_numpy_in_float64(case, rows):
    shape, summed = CASES[case]
    w, x = weight(shape), weight((rows, 1, 12))
    found = project(x, output_major(w, summed), len(summed))
    expected = np.tensordot(np.float64(x).reshape(rows, 1, *shape[: len(summed)]), np.float64(w), len(summed))
    assert found.shape == expected.shape and found.dtype == x.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_turned_weight_holds_the_same_numbers_with_a_line_for_each_output(case):
    shape, summed = CASES[case]
    w = weight(shape)
    turned = output_major(w, summed)
    inputs = int(np.prod(shape[: len(summed)]))
    np.testing.assert_array_equal(turned.matrix, np.asarray(w).reshape(inputs, -1).T)
    stack = output_major(jnp.stack([w, 2 * w]), summed)
    assert turned.shape == shape and stack.shape == (2, *shape)
    np.testing.assert_array_equal(jax.tree.map(lambda x: x[1], stack).matrix, 2 * turned.matrix)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("unrolled", [False, True], ids=["stacked", "unrolled"])
def test_a_model_says_the_same_with_turned_weights(unrolled, dtype):
    """In float32 but for the order of sums; in bfloat16 within what its roundings leave of the last hidden state, of size 1."""
    config = SHAPES["grouped"]
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), random_params(config))
    model = Gemma2(config, unrolled=unrolled)
    tokens = jnp.asarray(generator("tokens").integers(0, config.vocab_size, (3, 17)), jnp.int32)
    turned = formed(output_major, params)
    if unrolled:
        params = unroll(params)
        assert jax.tree.all(jax.tree.map(np.array_equal, unroll(turned), formed(output_major, params)))
    found, expected = (np.float32(forward(model, tree, tokens)[0]) for tree in (turned, params))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == "float32" else 0.1)


def test_only_projections_are_turned_and_none_twice():
    params = formed(output_major, random_params(SHAPES["grouped"]))
    again = formed(output_major, params)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, again, params))
    leaves = jax.tree.leaves(params, is_leaf=is_formed)
    assert sum(map(is_formed, leaves)) == 2 * 7 and len(leaves) == 2 * 7 + 2 * 4 + 2
    narrow = quantized(random_params(SHAPES["grouped"]))
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, formed(output_major, narrow), narrow))


def test_a_cpu_gets_turned_weights_unless_a_mesh_divides_them():
    assert native_form("cpu", divided=False) is output_major
    for backend, divided in (("cpu", True), ("gpu", False), ("gpu", True), ("tpu", False), ("tpu", True)):
        assert native_form(backend, divided=divided) is None


@pytest.mark.parametrize("name", ["2b", "27b"])
def test_shapes_of_the_released_models(name):
    """What is turned is the transposed matrix of each projection."""
    config = PRESETS[name]
    like = jax.eval_shape(lambda params: formed(output_major, params), abstract_params(config))
    block = like["layers"]["local"]
    D, N, H = config.model_dim, config.num_heads, config.head_dim
    assert block["attention"]["query"].matrix.shape == (config.num_pairs, N * H, D)
    assert block["attention"]["output"].matrix.shape == (config.num_pairs, D, N * H)
    assert block["mlp"]["down"].matrix.shape == (config.num_pairs, D, config.mlp_dim)


@pytest.mark.parametrize("rows", [(1,), (2,), (3, 5), (64,), (65,)])
def test_logits_of_few_rows_are_those_of_many(rows):
    """A CPU multiplies few rows by the embedding from the other side."""
    config = Gemma2Config(vocab_size=57, model_dim=12, mlp_dim=8, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=4)
    hidden, embedding = weight((*rows, 12)), weight((57, 12))
    logits = np.float64(hidden) @ np.float64(embedding).T
    cap = config.final_soft_cap
    np.testing.assert_allclose(next_token_logits(hidden, embedding, config), cap * np.tanh(logits / cap), atol=1e-5)
