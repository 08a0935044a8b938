"""Layouts: where arrays live. Parameters name their axes (`model.gemma2.logical_axes`); a table says what a mesh does with a name.

The layouts of a run are ambient, as meshes are in jax itself: whoever starts a run says `with use(make_layouts(...))`, and what
places arrays asks `layouts()`. By default there is one device.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from grm_jax.errors import UserError
from grm_jax.parallel.meshes import DATA, FSDP, TENSOR, DecodeMesh, MeshShape, TrainMesh, make_mesh

Rules = Mapping[str, tuple[str, ...]]

BATCH = "batch"
_TENSOR = dict.fromkeys(("heads", "kv_heads", "mlp", "vocab"), (TENSOR,))
# Classes are the vocabulary where logits are computed: divided further than the embedding, in an order that keeps its parts,
# and in two steps, for each of which the compiler knows an exchange.
_CLASSES = {"classes_halfway": (TENSOR, FSDP), "classes": (TENSOR, FSDP, DATA)}
_BOTH: Rules = {BATCH: (DATA, FSDP), **_CLASSES, **_TENSOR}
TRAIN: Rules = {"lookup": (DATA,), "embed": (FSDP,), "rank": (FSDP,), **_BOTH}
"""Weights, gradients and optimizer state are divided along fsdp and tensor, the batch along data and fsdp."""
DECODE: Rules = {"lookup": (DATA, FSDP), **_BOTH}
"""Weights stay where they are, divided along tensor: gathering them for every token would cost more than the token."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the table from names of axes to axes of the mesh. A name that is not in the table is not divided.

    Without a mesh it is one device, where nothing has to be said.
    """

    mesh: Mesh | None = None
    rules: Rules = dataclasses.field(default_factory=dict)

    def sharding(self, names: Sequence[str | None], shape: Sequence[int]) -> Sharding:
        """Where an array of this shape lives whose axes have these names.

        An axis that does not divide evenly stays whole, and so does one whose place on the mesh an axis before it has taken.
        """
        spec: list[tuple[str, ...] | None] = []
        for name, size in zip(names, shape, strict=True):
            axes = self._along(name) or ()
            taken = {axis for entry in spec for axis in entry or ()}
            spec.append(axes if axes and not size % self._size(axes) and taken.isdisjoint(axes) else None)
        return self._named(*spec)

    def tree(self, names: Any, arrays: Any) -> Any:
        """`sharding` of every leaf of `arrays`; `names` has a `PartitionSpec` of names for each, or for some that share one."""

        def places(spec: Any, part: Any) -> Any:
            return jax.tree.map(lambda x: self.sharding(spec, x.shape), part)

        return jax.tree.map(places, names, arrays, is_leaf=lambda node: isinstance(node, PartitionSpec))

    @property
    def whole(self) -> Sharding:
        """Every device has all of it."""
        return self._named()

    @property
    def row_sharding(self) -> Sharding:
        """The leading axis is the batch's."""
        return self._named(self._along(BATCH))

    @property
    def parts(self) -> int:
        """Into how many the batch is divided."""
        return self._size(self._along(BATCH))

    @property
    def is_local(self) -> bool:
        """All devices are this process's: other processes, if there are any, do not take part in what is done here."""
        return self.mesh is None or not self.mesh.is_multi_process

    @property
    def backend(self) -> str:
        """Of the devices, which may be those of a topology: "cpu", "gpu" or "tpu"."""
        return jax.default_backend() if self.mesh is None else str(self.mesh.devices.flat[0].platform)

    def place(self, batch: Any) -> Any:
        """Puts arrays on the devices whose leading axis is the batch's, or that of rows a fixed number to each of the batch.

        Args:
            batch: the whole of it, in every process; each passes on only what its devices hold.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        if self.mesh is None:
            return batch
        rows = min(x.shape[0] for x in jax.tree.leaves(batch))
        if rows % self.parts:
            raise UserError(f"a batch of {rows} cannot be divided among {self.parts} devices; make it a multiple")
        if self.is_local:
            return jax.device_put(batch, self.row_sharding)
        arrays = jax.tree.map(np.asarray, batch)
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, self.row_sharding, x.__getitem__), arrays)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """What is traced inside follows this layout: the model says of its activations that their rows are the batch's."""
        if self.mesh is None:
            yield
            return
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(list(self.rules.items())):
            yield

    def _named(self, *axes: tuple[str, ...] | None) -> Sharding:
        if self.mesh is None:
            return jnp.zeros(()).sharding  # of the device where jax computes when nothing is said
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _along(self, name: str | None) -> tuple[str, ...] | None:
        shape = {} if self.mesh is None else self.mesh.shape
        return tuple(axis for axis in self.rules.get(name or "", ()) if shape[axis] > 1) or None

    def _size(self, axes: tuple[str, ...] | None) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes or ()) if self.mesh is not None else 1


def fetch(arrays: Any) -> Any:
    """The whole of arrays, as numpy, in every process; all of them ask for what is divided among them."""
    leaves = jax.tree.leaves(arrays)
    if all(leaf.is_fully_addressable for leaf in leaves if isinstance(leaf, jax.Array)):
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


@dataclasses.dataclass(frozen=True)
class Layouts:
    """Those of a run: what trains, and what samples and scores."""

    train: Layout = Layout()
    decode: Layout = Layout()


_ambient = contextvars.ContextVar[Layouts | None]("layouts", default=None)


def layouts() -> Layouts:
    """The layouts of this run."""
    return _ambient.get() or Layouts()


def set_layouts(chosen: Layouts) -> contextvars.Token[Layouts | None]:
    """From here on everything is done on these layouts."""
    return _ambient.set(chosen)


@contextlib.contextmanager
def use(chosen: Layouts) -> Iterator[None]:
    """What is done inside is done on these layouts."""
    token = set_layouts(chosen)
    try:
        yield
    finally:
        _ambient.reset(token)


def make_layouts(train: TrainMesh, decode: DecodeMesh, devices: Sequence[jax.Device] | None = None) -> Layouts:
    """The layouts on two meshes of the same devices; a mesh of one place is the first device alone.

    Raises:
        UserError: a mesh of more places than one has another number of them than there are devices.
    """

    def layout(shape: MeshShape, rules: Rules) -> Layout:
        return Layout() if shape.sizes == (1, 1, 1) else Layout(make_mesh(shape, devices), rules)

    return Layouts(layout(train, TRAIN), layout(decode, DECODE))
