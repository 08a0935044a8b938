"""Weights that are divided along their width for training: gathered for one layer at a time, their gradients scattered.

Left to itself the TPU compiler turns each such product into a loop over the devices: ten times as long to compile, and the
weights are received just the same.
"""

from collections.abc import Sequence
from typing import cast

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

WIDTH = "embed"


def gathered(weight: jax.Array, names: Sequence[str]) -> jax.Array:
    """The same weight, whole along the model's width on every device where a mesh divides it; its gradient is divided again.

    Args:
        weight: of the type to compute in, so that no more is sent than needed.
        names: of its axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    (along,) = nn.logical_to_mesh_axes((WIDTH,)) if not mesh.empty else (None,)
    if along is None or WIDTH not in names:
        return weight
    size = 1
    for axis in (along,) if isinstance(along, str) else along:
        size *= mesh.shape[axis]
    if weight.shape[names.index(WIDTH)] % size:
        return weight

    def placed(x: jax.Array, place: str | tuple[str, ...] | None) -> jax.Array:
        spec = PartitionSpec(*(place if name == WIDTH else PartitionSpec.UNCONSTRAINED for name in names))
        return jax.lax.with_sharding_constraint(x, spec)

    whole = jax.custom_vjp(lambda x: placed(x, None))
    whole.defvjp(lambda x: (placed(x, None), None), lambda _, gradient: (placed(gradient, along),))
    return cast(jax.Array, whole(weight))
