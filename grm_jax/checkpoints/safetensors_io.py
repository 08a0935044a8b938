"""Tensors in safetensors files: headers first, then parts of tensors. Nothing here knows what the tensors mean."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy its bfloat16, which safetensors looks up by name)
import numpy as np
from safetensors import SafetensorError, safe_open

from grm_jax.checkpoints.files import first_line, inside, read_json, replacing, write_json
from grm_jax.checkpoints.layout import some
from grm_jax.errors import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_NAMES = {"float32": "F32", "bfloat16": "BF16"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclasses.dataclass(frozen=True)
class Header:
    """A tensor as the header of its file describes it; `dtype` is the format's name: F32, BF16, F16, I64, ..."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def has_safetensors(folder: Path) -> bool:
    """Whether the folder holds weights that `read_headers` would look at."""
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


def read_headers(folder: Path) -> dict[str, Header]:
    """Reads the headers of all weight files of a folder, single or sharded; no weights are read.

    Raises:
        UserError: no weights, only pickles (they are never opened), a file that is damaged or outside the folder, or an
            index that disagrees with its files.
    """
    if not has_safetensors(folder):
        raise _no_weights(folder)
    if not (folder / INDEX).exists():
        return _file_headers(inside(folder, SINGLE))
    if (folder / SINGLE).exists():
        raise UserError(f"{folder}: holds both {SINGLE} and {INDEX}; remove the one that is not the model")
    index = _read_index(folder)
    headers: dict[str, Header] = {}
    for name in dict.fromkeys(index.values()):
        for tensor, header in _file_headers(inside(folder, name)).items():
            if tensor in headers:
                raise UserError(
                    f"{header.file}: tensor {tensor} is also in {headers[tensor].file.name}; keep one of them"
                )
            headers[tensor] = header
    for tensor, file in index.items():
        if tensor not in headers or headers[tensor].file.name != file:
            raise UserError(f"{folder / INDEX}: says that {tensor} is in {file}, which does not hold it")
    if extra := [tensor for tensor in headers if tensor not in index]:
        raise UserError(
            f"{folder / INDEX}: does not list {some(extra)}, which its files hold; the index is out of date"
        )
    return headers


def open_tensors(headers: Mapping[str, Header]) -> Callable[[str], Any]:
    """Returns a function that gives a tensor by its name, to be indexed by slices; what is indexed is read, nothing else.

    Files are mapped into memory when they are first asked for, and as long as the function lives.
    """
    opened = functools.cache(_open)
    return lambda name: opened(headers[name].file).get_slice(name)


def read_samples(headers: Mapping[str, Header], points: int, width: int) -> Iterator[tuple[str, bytes]]:
    """Reads short runs of elements, spread over each tensor: `points` of at most `width` along the last axis."""
    by_file: dict[Path, list[str]] = {}
    for name in headers:
        by_file.setdefault(headers[name].file, []).append(name)
    for file, held in by_file.items():
        with _open(file) as f:
            for name in held:
                view, shape = f.get_slice(name), headers[name].shape
                length = min(width, shape[-1])
                for i in range(points):
                    starts = [(size - 1) * i // (points - 1) for size in shape[:-1]]
                    start = (shape[-1] - length) * i // (points - 1)
                    run = view[(*(slice(s, s + 1) for s in starts), slice(start, start + length))]
                    yield name, np.ascontiguousarray(run).tobytes()


def write_tensors(
    folder: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    make: Callable[[str], np.ndarray],
    max_shard_bytes: int,
) -> None:
    """Writes tensors as one file, or as several with an index if they pass `max_shard_bytes`.

    One tensor is held in memory at a time; each file appears whole or not at all.

    Args:
        folder: an existing folder.
        tensors: shape and dtype (float32 or bfloat16) of every tensor, in the order they are dealt out to files.
        make: gives a tensor by its name.
        max_shard_bytes: a larger tensor has a shard to itself.
    """
    shards = dealt(tensors, max_shard_bytes)
    total = len(shards)
    files = [SINGLE] if total == 1 else [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    for file, names in zip(files, shards, strict=True):
        with replacing(folder / file) as temporary:
            _write_file(temporary, {name: tensors[name] for name in names}, make)
    if total > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        size = sum(_bytes(*tensor) for tensor in tensors.values())
        weight_map = {name: weight_map[name] for name in tensors}
        write_json(folder, INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def dealt(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]], max_shard_bytes: int) -> list[list[str]]:
    """The names of tensors in each file, in the order in which `write_tensors` asks for them."""
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if _bytes(*tensor) > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= _bytes(*tensor)
    return [
        sorted(names, key=lambda name: (-tensors[name][1].itemsize, name)) for names in shards
    ]  # so all are aligned


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _write_file(
    path: Path, tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]], make: Callable[[str], np.ndarray]
) -> None:
    """Writes a file as the library's `save_file` would, byte for byte; but that wants all tensors at once."""
    # transformers refuses files whose metadata does not name a framework
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + _bytes(shape, dtype)
        header[name] = {"dtype": _NAMES[dtype.name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in tensors:
            file.write(np.ascontiguousarray(make(name)).view(np.uint8).data)


def _no_weights(folder: Path) -> UserError:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return UserError(
            f"{folder / pickles[0]}: pickled weights can run code when opened and are refused; "
            "save the model with safetensors (transformers: save_pretrained) and give that folder"
        )
    return UserError(f"{folder}: no {SINGLE} and no {INDEX}; give the folder of a downloaded or converted model")


def _read_index(folder: Path) -> dict[str, str]:
    index = read_json(folder, INDEX).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(file, str) for file in index.values()):
        raise UserError(
            f"{folder / INDEX}: weight_map must be an object of tensor name: file name; download the index again"
        )
    return index


def _file_headers(path: Path) -> dict[str, Header]:
    with _open(path) as f:
        views = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118  (a safe_open is not a mapping)
        return {name: Header(path, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()}


def _open(path: Path) -> safe_open:
    """Opens a file; the library checks header length, offsets, overlaps, overflow and the file's size."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: damaged or not a safetensors file ({first_line(error)}); download it again"
        ) from error
