"""Gemma-2 folders of Hugging Face (config.json and safetensors), in and out of our parameter tree."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from grm_jax.checkpoints.files import new_model_folder
from grm_jax.checkpoints.layout import check_shapes, leaf_shapes, places
from grm_jax.checkpoints.safetensors_io import Header, read_headers, read_tensors, write_tensors
from grm_jax.checkpoints.tree import (
    BFLOAT16,
    FLOAT32,
    Leaves,
    Params,
    checked_dtype,
    checked_leaves,
    read_config,
    same_bits,
    write_config,
)
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config

Progress = Callable[[int, int], None]  # tensors done, tensors in all

_LM_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_OLD_BUFFER = ".rotary_emb.inv_freq"  # early transformers stored these constants; they follow from the config


def load_hugging_face(
    folder: Path | str, dtype: Any = None, progress: Progress | None = None
) -> tuple[Gemma2Config, Params]:
    """Loads a Gemma-2 model.

    The stacked leaves are allocated once and filled tensor by tensor, so the peak is the model and one tensor.

    Args:
        folder: with config.json and model.safetensors, or its shards and index.
        dtype: float32 or bfloat16 for all leaves; None keeps the stored one. Then a leaf is bfloat16 if all its tensors
            are, else float32: float16 is widened, because bfloat16 would drop three of its ten fraction bits.
        progress: called with (tensors done, tensors in all).

    Returns:
        The config, and the parameter tree of docs/design.md as numpy arrays.

    Raises:
        UserError: anything that is not exactly a Gemma-2 model in safetensors: pickles, damaged files, missing, unknown
            or ill-shaped tensors (an embedding padded beyond `vocab_size` too), an output matrix of its own.
    """
    folder, dtype = Path(folder), checked_dtype(dtype)
    config, headers = _model_headers(folder)
    where = {place.name: place for place in places(config)}
    leaves = {path: np.empty(shape, dtype or kept) for path, (shape, kept) in _leaves(config, headers).items()}
    for done, (name, tensor) in enumerate(read_tensors(headers, where), 1):
        place = where[name]
        entry = leaves[place.path] if place.pair is None else leaves[place.path][place.pair]
        entry[...] = place.row.to_held(tensor, config)
        if progress:
            progress(done, len(where))
    if _LM_HEAD in headers:
        _, head = next(read_tensors(headers, [_LM_HEAD]))
        if not same_bits(head.astype(leaves["embedding"].dtype), leaves["embedding"]):
            raise UserError(
                f"{headers[_LM_HEAD].file}: {_LM_HEAD} differs from {_EMBEDDING}; Gemma-2 ties them, "
                "so remove it if it is stale, else use another model"
            )
    return config, unflatten_dict(leaves, sep="/")


def save_hugging_face(
    folder: Path | str,
    config: Gemma2Config,
    params: Mapping[str, Any],
    dtype: Any = None,
    max_shard_bytes: int = 5 * 2**30,
    progress: Progress | None = None,
) -> None:
    """Saves a model so that `transformers.AutoModelForCausalLM.from_pretrained` reads it.

    config.json is written last: a folder without it is an interrupted save. Beside the parameters, one shard is held.

    Args:
        folder: new, or without a model in it.
        config: the shape.
        params: numpy or jax arrays, float32 or bfloat16.
        dtype: float32 or bfloat16 for all tensors; None keeps each leaf's.
        max_shard_bytes: weights beyond it are sharded, with an index.
        progress: called with (tensors done, tensors in all).

    Raises:
        UserError: the folder holds a model, parameters do not fit the config, or the disk refuses.
    """
    folder, dtype = Path(folder), checked_dtype(dtype)
    leaves = checked_leaves(config, params, folder)
    where = {place.name: place for place in places(config)}
    dtypes = {path: dtype or np.dtype(leaf.dtype) for path, leaf in leaves.items()}
    sizes = {
        name: int(np.prod(place.row.stored_shape(config))) * dtypes[place.path].itemsize
        for name, place in where.items()
    }
    made = 0

    def make(name: str) -> np.ndarray:
        nonlocal made
        place = where[name]
        leaf = leaves[place.path]
        entry = np.asarray(leaf if place.pair is None else leaf[place.pair])
        made += 1
        if progress:
            progress(made, len(where))
        return place.row.to_stored(entry, config).astype(dtypes[place.path])

    new_model_folder(folder)
    write_tensors(folder, sizes, make, max_shard_bytes)
    write_config(folder, config, dtypes.values())


def hugging_face_leaves(folder: Path | str) -> tuple[Gemma2Config, Leaves]:
    """Shape and dtype of every leaf that `load_hugging_face` would return, from the headers alone.

    Raises:
        UserError: as `load_hugging_face`, except for what only the weights themselves can show.
    """
    config, headers = _model_headers(Path(folder))
    return config, _leaves(config, headers)


def _model_headers(folder: Path) -> tuple[Gemma2Config, dict[str, Header]]:
    """The config and headers of a folder, once names, shapes and types are known to be those of the model."""
    headers = {name: h for name, h in read_headers(folder).items() if not name.endswith(_OLD_BUFFER)}
    config = read_config(folder)
    expected = {place.name: place.row.stored_shape(config) for place in places(config)}
    if _LM_HEAD in headers:
        expected[_LM_HEAD] = expected[_EMBEDDING]
    files = {name: h.file for name, h in headers.items()}
    check_shapes({name: h.shape for name, h in headers.items()}, expected, folder, "tensors", files)
    for name, header in headers.items():
        if header.dtype not in ("F32", "BF16", "F16"):
            raise UserError(
                f"{header.file}: {name} is {header.dtype}; weights must be float32, bfloat16 or float16 (not quantized)"
            )
    return config, headers


def _leaves(config: Gemma2Config, headers: Mapping[str, Header]) -> Leaves:
    stored: dict[str, set[str]] = {}
    for place in places(config):
        stored.setdefault(place.path, set()).add(headers[place.name].dtype)
    return {
        path: (shape, BFLOAT16 if stored[path] == {"BF16"} else FLOAT32) for path, shape in leaf_shapes(config).items()
    }
