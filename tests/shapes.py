"""Small odd Gemma-2 shapes with weights large enough for both soft caps to bite."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import Gemma2, abstract_params
from grm_jax.model.heads import next_token_logits, token_logprobs

LENGTH = 40  # longer than every window below

SHAPES = {
    "grouped": Gemma2Config(
        vocab_size=97, model_dim=48, mlp_dim=80, num_layers=4, num_heads=6, num_kv_heads=2, head_dim=10, window=8,
        query_pre_attn_scalar=7, attention_soft_cap=2.0, final_soft_cap=3.0, max_length=64,
    ),
    "one_kv_head": Gemma2Config(
        vocab_size=131, model_dim=20, mlp_dim=36, num_layers=2, num_heads=4, num_kv_heads=1, head_dim=6, window=5,
        query_pre_attn_scalar=11, attention_soft_cap=1.5, final_soft_cap=4.0, rope_theta=500.0, max_length=64,
    ),
    "all_kv_heads": Gemma2Config(
        vocab_size=64, model_dim=33, mlp_dim=24, num_layers=6, num_heads=3, num_kv_heads=3, head_dim=16, window=13,
        query_pre_attn_scalar=5, attention_soft_cap=3.0, final_soft_cap=2.5, norm_epsilon=1e-5, max_length=64,
    ),
}  # fmt: skip


def random_params(config: Gemma2Config, seed: int = 0) -> dict[str, Any]:
    """Parameters drawn with numpy: the same on every version of everything."""

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        scale = 0.3 if "norm" in name else 0.3 if "embedding" in name else 2.0 * config.model_dim**-0.5
        return (generator("weights", seed, name).standard_normal(leaf.shape) * scale).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(config))


def random_tokens(config: Gemma2Config, rows: int = 2, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return generator("tokens", seed).integers(0, config.vocab_size, (rows, length)).astype(np.int32)


@functools.cache
def jitted(model: Gemma2) -> Any:
    """The forward pass, compiled: (params, tokens, positions, segments, cache) -> (hidden, segment)."""
    return jax.jit(lambda params, *args: model.apply({"params": params}, *args))


@functools.cache
def _logits(config: Gemma2Config) -> Any:
    def logits(params: Any, tokens: jax.Array, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden, _ = Gemma2(config).apply({"params": params}, tokens[:, :-1], segments=segments[:, :-1])
        logprobs = token_logprobs(hidden, params["embedding"], tokens[:, 1:], config)
        return next_token_logits(hidden, params["embedding"], config), logprobs

    return jax.jit(logits)


def full_forward(config: Gemma2Config, params: Any, rows: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits [R, size - 1, V] and log-probabilities [R, size - 1] of the next tokens of ragged rows, in one compiled call."""
    tokens = np.stack([np.pad(row, (0, size - len(row))) for row in rows])
    segments = np.stack([np.pad(np.ones(len(row), np.int32), (0, size - len(row))) for row in rows])
    logits, logprobs = _logits(config)(params, jnp.asarray(tokens), jnp.asarray(segments))
    return np.asarray(logits), np.asarray(logprobs)
