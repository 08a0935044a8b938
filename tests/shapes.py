"""Small odd Gemma-2 shapes with weights large enough for both soft caps to bite."""

from typing import Any

import jax
import numpy as np

from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import abstract_params

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
