"""Laws of the heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.heads import next_token_logits, scalar_head, token_logprobs, token_statistics

CONFIG = Gemma2Config(
    vocab_size=57, model_dim=12, mlp_dim=8, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=4, final_soft_cap=3.0
)


def inputs(T=29):
    rng = generator("heads")
    hidden = rng.standard_normal((3, T, 12)).astype(np.float32)
    embedding = rng.standard_normal((57, 12)).astype(np.float32)
    targets = rng.integers(0, 57, (3, T)).astype(np.int32)
    return jnp.asarray(hidden), jnp.asarray(embedding), jnp.asarray(targets)


def test_log_probabilities_are_those_of_numpy_in_float64():
    hidden, embedding, targets = inputs()
    logits = 3.0 * np.tanh(np.float64(hidden) @ np.float64(embedding).T / 3.0)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(expected, np.asarray(targets)[..., None], -1)[..., 0]
    np.testing.assert_allclose(token_logprobs(hidden, embedding, targets, CONFIG), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 14, 87, 200])
def test_chunked_equals_unchunked_value_and_gradient(rows):
    """Of 3 * 29 rows of logits."""
    hidden, embedding, targets = inputs()
    weights = jnp.asarray(generator("weights").standard_normal(targets.shape).astype(np.float32))

    def value(hidden, embedding, rows):
        return jnp.sum(weights * token_logprobs(hidden, embedding, targets, CONFIG, rows=rows))

    whole = jax.value_and_grad(value, argnums=(0, 1))(hidden, embedding, 1000)
    parts = jax.value_and_grad(value, argnums=(0, 1))(hidden, embedding, rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), parts, whole)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_statistics_at_a_temperature_are_those_of_numpy_in_float64(temperature):
    """Of leading axes [3, 1], in chunks; the entropy carries no gradient."""
    hidden, embedding, targets = inputs()
    logits = 3.0 * np.tanh(np.float64(hidden) @ np.float64(embedding).T / 3.0)
    statistics = token_statistics(
        hidden[:, None], embedding, targets[:, None], CONFIG, temperature=temperature, rows=21
    )
    plain, cold = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (logits, logits / temperature))
    entropy = -(np.exp(cold) * cold).sum(-1)
    for found, expected in ((statistics.plain, plain), (statistics.logprobs, cold)):
        chosen = np.take_along_axis(expected, np.asarray(targets)[..., None], -1)[..., 0]
        np.testing.assert_allclose(found, chosen[:, None], rtol=0, atol=1e-5)
    np.testing.assert_allclose(statistics.entropy, entropy[:, None], rtol=0, atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(token_statistics(x, embedding, targets, CONFIG).entropy))(hidden)
    assert not gradient.any()


@pytest.mark.parametrize("differentiate", [False, True])
def test_logits_of_all_positions_are_never_held(differentiate):
    """Temporary memory stays far below float32 [B, T, V], forward and backward, as the compiler counts it."""
    B, T, V, D = 2, 32768, 8192, 16
    config = Gemma2Config(vocab_size=V, model_dim=D, mlp_dim=8, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=4)
    shapes = (
        jax.ShapeDtypeStruct((B, T, D), jnp.float32),
        jax.ShapeDtypeStruct((V, D), jnp.float32),
        jax.ShapeDtypeStruct((B, T), jnp.int32),
    )

    def total(hidden, embedding, targets):
        return jnp.sum(token_logprobs(hidden, embedding, targets, config))

    function = jax.grad(total, argnums=(0, 1)) if differentiate else total
    memory = jax.jit(function).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < B * T * V * 4 / 3


def test_next_token_logits_are_float32_and_capped_from_bfloat16_too():
    hidden, embedding, _ = inputs()
    logits = next_token_logits(hidden.astype(jnp.bfloat16) * 10, embedding.astype(jnp.bfloat16), CONFIG)
    assert logits.dtype == jnp.float32
    assert float(jnp.abs(logits).max()) <= 3.0


def test_scalar_head_is_an_affine_map_in_float32():
    hidden, _, _ = inputs()
    w = jnp.asarray(generator("w").standard_normal(12), jnp.float32)
    out = scalar_head(hidden.astype(jnp.bfloat16), {"w": w, "b": jnp.float32(0.5)})
    assert out.dtype == jnp.float32
    expected = np.float64(hidden.astype(jnp.bfloat16).astype(jnp.float32)) @ np.float64(w) + 0.5
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_training_step_in_bfloat16_multiplies_no_float32():
    """Products of logits, and both of their gradients'; the embedding's gradient is summed in float32."""
    hidden, embedding = (
        jnp.ones((2, 8, CONFIG.model_dim), jnp.bfloat16),
        jnp.ones((CONFIG.vocab_size, CONFIG.model_dim)),
    )
    targets = jnp.zeros((2, 8), jnp.int32)
    loss = lambda hidden, embedding: token_logprobs(hidden, embedding, targets, CONFIG).sum()  # noqa: E731
    step = jax.value_and_grad(loss, argnums=(0, 1))
    _, gradients = jax.eval_shape(step, hidden, embedding)
    assert [x.dtype for x in gradients] == [jnp.bfloat16, jnp.float32]
    products = [
        line
        for line in jax.jit(step).lower(hidden, embedding).as_text().splitlines()
        if "stablehlo.dot_general" in line
    ]
    assert len(products) >= 3 and all(line.count("xbf16>") >= 2 for line in products)
