"""Arrays without contents, and where they would live: what a program is traced with before there are weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import parameter_axes
from grm_jax.model.gemma2 import abstract_params
from grm_jax.model.quantization import quantized
from grm_jax.parallel.layout import Layout

Tree = dict[str, Any]


def whole(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Int32 of a shape."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def real(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Float32 of a shape."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def bfloat16(tree: Tree) -> Tree:
    """The same shapes in bfloat16."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), tree)


def prompts(P: int, S: int) -> Tree:
    """P prompts of S tokens, as batches hold them."""
    return {"prompt_tokens": whole((P, S)), "prompt_lengths": whole((P,))}


def placed(tree: Any, places: Any) -> Any:
    """Leaves where a tree of shardings says."""
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places)


def placed_rows(leaf: Any, layout: Layout) -> Any:
    """An array whose leading axis is the batch's."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout.row_sharding)


def placed_weights(params: Tree, layout: Layout, config: Gemma2Config) -> Tree:
    """A model's parameters where the layout has them."""
    return placed(params, layout.tree(parameter_axes(config, params), params))


def decoding_weights(config: Gemma2Config, layout: Layout, *, int8: bool = False) -> Tree:
    """The bfloat16 parameters of a model that samples, or its projections in 8 bits."""
    params = bfloat16(abstract_params(config))
    return placed_weights(jax.eval_shape(quantized, params) if int8 else params, layout, config)


def bytes_of(tree: Any) -> int:
    """Bytes a device of placed leaves."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
