"""Weights that are divided along their width for training: gathered for one layer at a time, their gradients scattered.

Left to itself the TPU compiler turns each such product into a loop over the devices: ten times as long to compile, and the
weights are received just the same.
"""

from collections.abc import Sequence
from typing import cast

import jax
from jax.sharding import PartitionSpec

from grm_jax.model.mesh_axes import mesh_axes, parts

WIDTH = "embed"


def gathered(weight: jax.Array, names: Sequence[str]) -> jax.Array:
    """The same weight, whole along the model's width on every device where a mesh divides it; its gradient is divided again.

    Args:
        weight: of the type to compute in, so that no more is sent than needed.
        names: of its axes.
    """
    along = mesh_axes(WIDTH)
    if not along or WIDTH not in names or weight.shape[names.index(WIDTH)] % parts(along):
        return weight

    def placed(x: jax.Array, place: tuple[str, ...] | None) -> jax.Array:
        spec = PartitionSpec(*(place if name == WIDTH else PartitionSpec.UNCONSTRAINED for name in names))
        return jax.lax.with_sharding_constraint(x, spec)

    whole = jax.custom_vjp(lambda x: placed(x, None))
    whole.defvjp(lambda x: (placed(x, None), None), lambda _, gradient: (placed(gradient, along),))
    return cast(jax.Array, whole(weight))
