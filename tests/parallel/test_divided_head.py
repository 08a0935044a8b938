"""Laws of log-probabilities on a mesh that trains: every device has its part of the vocabulary, for all rows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.heads import token_logprobs
from grm_jax.parallel.exchanges import exchanged
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh

B, T, V, D = 8, 32, 4096, 64
CONFIG = Gemma2Config(vocab_size=V, model_dim=D, mlp_dim=8, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=4)


def value(hidden, embedding, targets):
    return jnp.sum(token_logprobs(hidden, embedding, targets, CONFIG, rows=8)), None


def inputs():
    rng = generator("divided head")
    hidden, embedding = (rng.standard_normal(shape).astype(np.float32) for shape in ((B, T, D), (V, D)))
    return hidden, embedding, rng.integers(0, V, (B, T)).astype(np.int32)


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
def test_neither_the_embedding_nor_its_gradient_nor_logits_are_gathered(shape):
    """In chunks: value and gradients are those of one device.

    What a device receives is its part of the embedding, its part of the gradient, gathered along `data`, and states: gathered
    forward and backward, and their gradient summed.
    """
    expected = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))(*inputs())
    layout = make_layouts(TrainMesh(*shape), DecodeMesh()).train
    weights = layout.sharding(PartitionSpec("vocab", "embed"), (V, D))
    places = (layout.row_sharding, weights, layout.row_sharding)
    function = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    placed = jax.device_put(inputs(), places)
    with layout.active():
        program = jax.jit(function, out_shardings=(None, places[:2])).lower(*placed).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), program(*placed), expected)
    received = exchanged(program.as_text())
    part, states = math.prod(weights.shard_shape((V, D))) * 4, B * T * D * 4
    assert 0 < sum(received.values()) < 3 * part + 5 * states, received
