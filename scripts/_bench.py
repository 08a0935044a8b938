"""What the sampling benchmarks share: the model they time, and what this machine could do at best."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grm_jax.model.config import Gemma2Config
from grm_jax.train.speed import training_flops

GEMMA2_48M = Gemma2Config(
    vocab_size=32_000, model_dim=512, mlp_dim=2048, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=64, window=256,
    query_pre_attn_scalar=64, max_length=8192,
)  # fmt: skip


def run_seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of each run after one that compiles and warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def matrix_rate(size: int = 2048, repeats: int = 10) -> float:
    """Float32 FLOPs a second of the product of two square matrices: the best of some runs."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / min(run_seconds(lambda: product(a, a).block_until_ready(), repeats))


def read_rate(size: int = 2**28, repeats: int = 5) -> float:
    """Bytes a second that are read from memory while an array of so many bytes is added up: the best of some runs."""
    a = jnp.ones(size // 4)
    total = jax.jit(jnp.sum)
    return size / min(run_seconds(lambda: total(a).block_until_ready(), repeats))


def token_flops(config: Gemma2Config, keys: int) -> float:
    """FLOPs of one decoded token that sees so many keys: a third of what training on it asks for."""
    return training_flops(config, 1, min(keys, config.window), keys) / 3


def token_bytes(config: Gemma2Config, rows: int, own: int, held: int) -> float:
    """Bytes that one step reads at least: float32 weights, `own` keys and values of each row, and those of all held prompts."""
    weights = training_flops(config, 1, 0, 0) / 6 * 4
    key_values = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    return weights + key_values * (rows * own + held)
