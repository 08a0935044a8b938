"""Gemma-2 folders of Hugging Face (config.json and safetensors), in and out of our parameter tree."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from grm_jax.checkpoints.blocks import blocks, entry_blocks, filled
from grm_jax.checkpoints.files import new_model_folder
from grm_jax.checkpoints.layout import TABLE, Index, Leaf, Place, check_shapes, leaf_shapes, places, tree_leaves
from grm_jax.checkpoints.safetensors_io import Header, dealt, open_tensors, read_headers, write_tensors
from grm_jax.checkpoints.tree import (
    BFLOAT16,
    FLOAT32,
    Leaves,
    Params,
    checked_dtype,
    checked_leaves,
    finisher,
    leaf_shardings,
    read_config,
    same_bits,
    write_config,
)
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.projections import Form
from grm_jax.parallel import hosts
from grm_jax.parallel.layout import Layout

Progress = Callable[[int, int], None]  # tensors done, tensors in all

_LM_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_OLD_BUFFER = ".rotary_emb.inv_freq"  # early transformers stored these constants; they follow from the config


def load_hugging_face(
    folder: Path | str,
    dtype: Any = None,
    progress: Progress | None = None,
    layout: Layout | None = None,
    *,
    unrolled: bool = False,
    form: Form | None = None,
) -> tuple[Gemma2Config, Params]:
    """Loads a Gemma-2 model, block by block into the arrays that are returned: some megabytes are held beside them.

    On a mesh of several processes each reads what its own devices hold.

    Args:
        folder: with config.json and model.safetensors, or its shards and index.
        dtype: float32 or bfloat16 for all leaves; None keeps the stored one. Then a leaf is bfloat16 if all its tensors
            are, else float32: float16 is widened, because bfloat16 would drop three of its ten fraction bits.
        progress: called with (tensors begun, tensors in all).
        layout: where the leaves are to live; None for numpy arrays.
        unrolled: the tree of an unrolled model instead (`model.gemma2.unroll`).
        form: what projections become (`model.projections`), as jax arrays. One leaf at a time is held as it was read beside them.

    Returns:
        The config, and the parameter tree of docs/design.md.

    Raises:
        UserError: anything that is not exactly a Gemma-2 model in safetensors: pickles, damaged files, missing, unknown
            or ill-shaped tensors (an embedding padded beyond `vocab_size` too), an output matrix of its own.
    """
    folder, dtype = Path(folder), checked_dtype(dtype)
    config, headers = _model_headers(folder)
    tensor, begun = open_tensors(headers), set[str]()
    kept = {path: dtype or stored for path, (_, stored) in _leaves(config, headers).items()}
    shardings = leaf_shardings(config, layout, unrolled=unrolled)

    def entry(place: Place, index: Index) -> np.ndarray:
        if progress and place.name not in begun:
            begun.add(place.name)
            progress(len(begun), len(places(config)))
        return place.row.part(tensor(place.name), index, config)

    def read(leaf: Leaf, index: Index, out: np.ndarray) -> None:
        if leaf.stacked:
            pairs, *inside = index
            for held, place in zip(out, leaf.places[pairs], strict=True):
                held[...] = entry(place, tuple(inside))
        else:
            out[...] = entry(leaf.places[0], index)

    leaves = tree_leaves(config, unrolled=unrolled)
    if _LM_HEAD in headers:
        _check_output_matrix(config, headers, kept["embedding"])
    finished = finisher(config, layout, unrolled=unrolled, form=form)
    made = {
        path: finished(path, filled(
            functools.partial(read, leaf), leaf.shape(config), kept[leaf.places[0].path], shardings[path],
            cut=leaf.places[0].row.cut + leaf.stacked,
        ))
        for path, leaf in leaves.items()
    }  # fmt: skip
    return config, unflatten_dict(made, sep="/")


def save_hugging_face(
    folder: Path | str,
    config: Gemma2Config,
    params: Mapping[str, Any],
    dtype: Any = None,
    max_shard_bytes: int = 5 * 2**30,
    progress: Progress | None = None,
) -> None:
    """Saves a model so that `transformers.AutoModelForCausalLM.from_pretrained` reads it.

    config.json is written last: a folder without it is an interrupted save. Beside the parameters, one tensor is held. Of several
    processes all call it, and process 0 writes.

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
    tensors = {name: (place.row.stored_shape(config), dtypes[place.path]) for name, place in where.items()}
    made = 0

    def make(name: str) -> np.ndarray:
        nonlocal made
        place, tensor = where[name], np.empty(*tensors[name])
        whole = tuple(slice(0, size) for size in place.row.held_shape(config))
        held = place.row.part(tensor, whole, config)
        for index, block in entry_blocks(leaves[place.path], place.pair, cut=place.row.cut):
            held[index] = block
        made += 1
        if progress:
            progress(made, len(where))
        return tensor

    if not hosts.is_leader():
        for names in dealt(tensors, max_shard_bytes):
            for name in names:
                make(name)
        return
    new_model_folder(folder)
    write_tensors(folder, tensors, make, max_shard_bytes)
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


def _check_output_matrix(config: Gemma2Config, headers: Mapping[str, Header], dtype: np.dtype) -> None:
    """Refuses an output matrix that is not the embedding, both in the type they are loaded in."""
    row, tensor = TABLE[0], open_tensors(headers)
    for index in blocks(row.held_shape(config), FLOAT32.itemsize, row.cut):
        head, embedding = (row.part(tensor(name), index, config).astype(dtype) for name in (_LM_HEAD, _EMBEDDING))
        if not same_bits(head, embedding):
            raise UserError(
                f"{headers[_LM_HEAD].file}: {_LM_HEAD} differs from {_EMBEDDING}; Gemma-2 ties them, "
                "so remove it if it is stale, else use another model"
            )


def _leaves(config: Gemma2Config, headers: Mapping[str, Header]) -> Leaves:
    stored: dict[str, set[str]] = {}
    for place in places(config):
        stored.setdefault(place.path, set()).add(headers[place.name].dtype)
    return {
        path: (shape, BFLOAT16 if stored[path] == {"BF16"} else FLOAT32) for path, shape in leaf_shapes(config).items()
    }
