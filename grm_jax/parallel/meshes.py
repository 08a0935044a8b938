"""Meshes: the devices of a run, arranged along named axes."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from grm_jax.errors import UserError

DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis.

    Attributes:
        data: the batch is divided, weights are repeated.
        fsdp: the batch is divided, and so are the weights, which are gathered layer by layer.
        tensor: the weights are divided and stay where they are; activations are exchanged.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in AXES:
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise UserError(f"{type(self).__name__}.{name} must be a whole number from 1, not {size}")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """In the order of `AXES`."""
        return self.data, self.fsdp, self.tensor


class TrainMesh(MeshShape):
    """The mesh that trains."""


class DecodeMesh(MeshShape):
    """The mesh that samples and scores; weights are divided along `tensor` alone, so `fsdp` only divides the batch further."""


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices so that those along `tensor`, and then those along `fsdp`, are neighbours.

    Args:
        shape: of the mesh; a `DecodeMesh` may have as many places as one host has devices: then each host has one of its own.
        devices: all of them, by default; of an ahead-of-time topology, say.

    Raises:
        UserError: the mesh has not as many places as there are devices.
    """
    found = list(jax.devices() if devices is None else devices)
    asked, name = math.prod(shape.sizes), type(shape).__name__
    if devices is None and isinstance(shape, DecodeMesh) and asked == jax.local_device_count():
        found = devices = jax.local_devices()
    if asked != len(found):
        sizes = ", ".join(f"{axis} = {size}" for axis, size in zip(AXES, shape.sizes, strict=True))
        raise UserError(f"{name}: {sizes} has {asked} places, there are {len(found)} devices; make them equal")
    # GSPMD decides what is not said (Auto); jax's own default, Explicit, asks for a sharding of every intermediate value.
    auto = (AxisType.Auto,) * len(AXES)
    if devices is None:
        return jax.make_mesh(shape.sizes, AXES, axis_types=auto)
    return Mesh(np.array(found).reshape(shape.sizes), AXES, axis_types=auto)
