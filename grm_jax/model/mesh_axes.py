"""What the active mesh does with a logical name: for code that has to say itself where its arrays are."""

import math

import jax
from flax import linen as nn


def mesh_axes(name: str) -> tuple[str, ...]:
    """Axes of the active mesh along which `name` is divided; none where no mesh is active."""
    if jax.sharding.get_abstract_mesh().empty:
        return ()
    spec = nn.logical_to_mesh_axes((name,))  # one name at a time: a mesh axis goes to the first that asks for it
    axes = spec[0] if spec else None
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


def parts(axes: tuple[str, ...]) -> int:
    """Into how many pieces these axes of the active mesh divide."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[axis] for axis in axes)
