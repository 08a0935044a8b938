"""Arrays made and read block by block, so that hardly more is held on the host than lives there anyway.

A block is a few megabytes of one shard. Blocks of a shard have one shape, so that one program each moves all of them.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax import lax

from grm_jax.checkpoints.layout import Index, Shape
from grm_jax.parallel.layout import fetch

Read = Callable[[Index, np.ndarray], None]
"""Fills an array with the part of another that an index names."""

BLOCK = 2**21  # bytes
_ALIGNMENT = 64  # bytes; jax takes memory over as it is where it begins at a multiple


def blocks(shape: Shape, itemsize: int, cut: int) -> list[Index]:
    """Covers an array by blocks of one shape and at most `BLOCK` bytes, cut along the first axis and then along `cut`.

    The last along an axis may overlap the one before. One index along both axes is a block of whatever size.
    """
    size = list(shape)
    for axis in (0, cut):
        others = math.prod(size) // size[axis] * itemsize
        size[axis] = max(1, min(size[axis], BLOCK // others))
    starts = [[min(i, n - step) for i in range(0, n, step)] for n, step in zip(shape, size, strict=True)]
    return [tuple(slice(i, i + n) for i, n in zip(start, size, strict=True)) for start in itertools.product(*starts)]


def filled(read: Read, shape: Shape, dtype: np.dtype, sharding: jax.sharding.Sharding | None, *, cut: int) -> Any:
    """Makes an array where it is to live; of several processes each makes what its own devices hold.

    Args:
        read: knows the contents.
        shape: of the array.
        dtype: of the array.
        sharding: divides evenly; None makes a numpy array.
        cut: the axis along which parts are cheap to read.
    """
    if sharding is None:
        whole = np.empty(shape, dtype)
        for block in blocks(shape, dtype.itemsize, cut):
            read(block, whole[block])
        return whole
    part = sharding.shard_shape(shape)
    places: dict[Shape, list[_Shard]] = {}  # where in the array a shard begins, on one device or on several
    for device, index in sharding.devices_indices_map(shape).items():
        if device in sharding.addressable_devices:
            make = _HostShard if _on_host(device) else _DeviceShard
            places.setdefault(_start(index, shape), []).append(make(part, dtype, device))
    for block in blocks(part, dtype.itemsize, cut):
        for start, shards in places.items():
            piece = shards[0].room(block)
            read(tuple(slice(i + where.start, i + where.stop) for i, where in zip(start, block, strict=True)), piece)
            for shard in shards:
                shard.put(block, piece)
    made = [shard.array() for shards in places.values() for shard in shards]
    return jax.make_array_from_single_device_arrays(shape, sharding, made)


def entry_blocks(leaf: Any, pair: int | None, *, cut: int) -> Iterator[tuple[Index, np.ndarray]]:
    """Reads an entry of a stacked leaf, or a leaf that is not stacked, block by block.

    Args:
        leaf: a numpy or jax array; one that is divided among processes must be read by all of them, an entry at a time.
        pair: which entry along the first axis; None for the whole leaf.
        cut: the axis of the entry along which it is cut.

    Yields:
        (where in the entry, the block).
    """
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        entry = fetch(leaf if pair is None else _entry(leaf, pair))
        yield tuple(slice(0, size) for size in entry.shape), entry
        return
    for start, shard in _shards(leaf):
        shape = shard.shape if pair is None else shard.shape[1:]
        for block in blocks(shape, shard.dtype.itemsize, cut):
            inside = block if pair is None else (slice(pair, pair + 1), *block)
            taken = _taken(shard, inside)
            offset = start if pair is None else start[1:]
            index = tuple(slice(i + where.start, i + where.stop) for i, where in zip(offset, block, strict=True))
            yield index, taken if pair is None else taken[0]


class _Shard(Protocol):
    """A shard that is being made on one device."""

    def room(self, where: Index) -> np.ndarray:
        """Memory of the host to write a block to."""

    def put(self, where: Index, piece: np.ndarray) -> None:
        """Fills a block in, which its own `room` holds, or that of another shard."""

    def array(self) -> jax.Array:
        """The shard, once all blocks are filled in."""


class _HostShard:
    """In the memory of the host, which jax takes over as it is."""

    def __init__(self, shape: Shape, dtype: np.dtype, device: jax.Device):
        size = math.prod(shape) * dtype.itemsize
        memory = np.empty(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        self._array, self._device = memory[start : start + size].view(dtype).reshape(shape), device

    def room(self, where: Index) -> np.ndarray:
        return self._array[where]

    def put(self, where: Index, piece: np.ndarray) -> None:
        if not np.may_share_memory(piece, self._array):
            self._array[where] = piece

    def array(self) -> jax.Array:
        return jax.device_put(self._array, self._device, may_alias=True)


class _DeviceShard:
    """In the memory of an accelerator, updated in place; a block is held on the host until it is there."""

    def __init__(self, shape: Shape, dtype: np.dtype, device: jax.Device):
        self._shape, self._dtype, self._device = shape, dtype, device
        self._array: jax.Array | None = None

    def room(self, where: Index) -> np.ndarray:
        return np.empty([axis.stop - axis.start for axis in where], self._dtype)

    def put(self, where: Index, piece: np.ndarray) -> None:
        block = jax.device_put(piece, self._device)
        if piece.shape == self._shape:
            self._array = block
        else:
            if self._array is None:
                self._array = jax.numpy.zeros(self._shape, self._dtype, device=self._device)
            self._array = _updated(self._array, block, [axis.start for axis in where])
        self._array.block_until_ready()

    def array(self) -> jax.Array:
        assert self._array is not None
        return self._array


def _shards(leaf: Any) -> Iterator[tuple[Shape, Any]]:
    """Each part of an array that is stored somewhere, once: where it begins, and the part on its device."""
    if not isinstance(leaf, jax.Array):
        yield (0,) * leaf.ndim, leaf
        return
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            yield _start(shard.index, leaf.shape), shard.data


def _start(index: Index, shape: Shape) -> Shape:
    """Where a part of an array begins, named by slices that may be open."""
    return tuple(where.indices(size)[0] for where, size in zip(index, shape, strict=True))


def _taken(shard: Any, where: Index) -> np.ndarray:
    """Brings a block to the host."""
    if not isinstance(shard, jax.Array):
        return shard[where]
    if _on_host(next(iter(shard.devices()))):
        return np.asarray(shard)[where]
    sizes = tuple(axis.stop - axis.start for axis in where)
    return np.asarray(_sliced(shard, [axis.start for axis in where], sizes))


def _on_host(device: jax.Device) -> bool:
    return device.platform == "cpu"


_updated = jax.jit(lax.dynamic_update_slice, donate_argnums=0)
_sliced = jax.jit(lax.dynamic_slice, static_argnums=2)
_entry = jax.jit(lambda leaf, pair: lax.dynamic_index_in_dim(leaf, pair, keepdims=False))
