"""Low-rank adaptation (arXiv 2106.09685) of the same module: each weight W is trained as W + alpha / rank * A B.

The factors of a stacked weight [pairs, in..., out...] are A [pairs, in..., rank] and B [pairs, rank, out...]; "in" are the axes a
projection sums over. Merging gives the model's own parameter tree, so that nothing else knows of LoRA.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from grm_jax.keys import stream_key

Params = dict[str, Any]

LAYERS = "layers"
_MODEL = ("embedding", LAYERS, "final_norm")
_IN_AXES = {
    "attention": {"query": 1, "key": 1, "value": 1, "output": 2},
    "mlp": {"gate": 1, "up": 1, "down": 1},
}


def split(params: Params, rank: int, seed: int) -> tuple[Params, Params]:
    """Divides a model into what LoRA trains and what it leaves alone.

    Args:
        params: the model's tree; leaves beside those of Gemma-2 (a head) are trained themselves.
        rank: of the factors.
        seed: of A; B is 0, so the merged model is at first the model.

    Returns:
        trained: {"layers": {"local", "global"} of factors {"A", "B"} float32} and heads; frozen: the model's own leaves.
    """
    factors = {
        kind: {
            group: {
                name: _factors(layer[group][name], axes, rank, (seed, kind, group, name))
                for name, axes in names.items()
            }
            for group, names in _IN_AXES.items()
        }
        for kind, layer in params[LAYERS].items()
    }
    frozen = {name: params[name] for name in _MODEL}
    return {LAYERS: factors} | {name: leaf for name, leaf in params.items() if name not in _MODEL}, frozen


def names(axes: Params) -> Params:
    """Names of the axes of what `split` trains, from those of the model's parameters."""

    def factors(spec: PartitionSpec, inside: int) -> dict[str, PartitionSpec]:
        pairs, *rest = spec
        return {"A": PartitionSpec(pairs, *rest[:inside], "rank"), "B": PartitionSpec(pairs, "rank", *rest[inside:])}

    layers = {
        kind: {
            group: {name: factors(layer[group][name], inside) for name, inside in matrices.items()}
            for group, matrices in _IN_AXES.items()
        }
        for kind, layer in axes[LAYERS].items()
    }
    return {LAYERS: layers} | {name: leaf for name, leaf in axes.items() if name not in _MODEL}


def merge(frozen: Params, trained: Params, alpha: float) -> Params:
    """The parameters of the model that `split` took apart: W + alpha / rank * A B, in W's dtype; W gets no gradient."""
    frozen = jax.lax.stop_gradient(frozen)
    layers = {
        kind: layer | {
            group: {name: _merged(layer[group][name], trained[LAYERS][kind][group][name], alpha) for name in names}
            for group, names in _IN_AXES.items()
        }
        for kind, layer in frozen[LAYERS].items()
    }  # fmt: skip
    return frozen | trained | {LAYERS: layers}


def _factors(weight: jax.Array, axes: int, rank: int, names: tuple[int | str, ...]) -> dict[str, jax.Array]:
    pairs, inside, outside = weight.shape[0], weight.shape[1 : 1 + axes], weight.shape[1 + axes :]
    fan_in = 1
    for size in inside:
        fan_in *= size
    key = jax.random.wrap_key_data(jnp.asarray(stream_key("lora", *names)))
    A = jax.random.normal(key, (pairs, *inside, rank), jnp.float32) * fan_in**-0.5
    return {"A": A, "B": jnp.zeros((pairs, rank, *outside), jnp.float32)}


def _merged(weight: jax.Array, factors: dict[str, jax.Array], alpha: float) -> jax.Array:
    A, B = factors["A"], factors["B"]
    pairs, rank = A.shape[0], A.shape[-1]
    product = jnp.matmul(A.reshape(pairs, -1, rank), B.reshape(pairs, rank, -1)).reshape(weight.shape)
    return weight + (alpha / rank * product).astype(weight.dtype)
