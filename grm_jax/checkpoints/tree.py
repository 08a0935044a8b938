"""What both kinds of model folder share: the parameter tree, its dtypes, and config.json."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict

from grm_jax.checkpoints.files import CONFIG, read_json, write_json
from grm_jax.checkpoints.layout import check_shapes, leaf_shapes, tree_leaves
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config, config_from_hugging_face, config_to_hugging_face
from grm_jax.model.gemma2 import logical_axes
from grm_jax.model.projections import Form, formed_leaf
from grm_jax.parallel.layout import Layout

Params = dict[str, Any]
Leaves = dict[str, tuple[tuple[int, ...], np.dtype]]  # path: shape and dtype

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)


def read_config(folder: Path) -> Gemma2Config:
    """Reads config.json of a model folder.

    Raises:
        UserError: the file is missing or not the config of a Gemma-2 model.
    """
    return config_from_hugging_face(read_json(folder, CONFIG), str(folder / CONFIG))


def write_config(folder: Path, config: Gemma2Config, dtypes: Iterable[np.dtype]) -> None:
    """Writes config.json; it names bfloat16 if all leaves are, else float32."""
    dtype = BFLOAT16 if set(dtypes) == {BFLOAT16} else FLOAT32
    write_json(folder, CONFIG, config_to_hugging_face(config, dtype.name))


def checked_dtype(dtype: Any) -> np.dtype | None:
    """Returns the numpy dtype of a name or type; None stays None.

    Raises:
        UserError: neither float32 nor bfloat16.
    """
    if dtype is None:
        return None
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise UserError(f"dtype {dtype!r} is unknown; give float32 or bfloat16") from error
    if dtype not in (FLOAT32, BFLOAT16):
        raise UserError(f"dtype {dtype} is not supported for weights; give float32 or bfloat16")
    return dtype


def checked_leaves(config: Gemma2Config, params: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Flattens a parameter tree (of arrays, or of anything with shape and dtype) to {path: leaf}.

    Raises:
        UserError: other leaves, shapes or dtypes than those of the model.
    """
    leaves = flatten_dict(dict(params), sep="/")
    check_shapes({path: leaf.shape for path, leaf in leaves.items()}, leaf_shapes(config), folder, "parameters")
    for path, leaf in leaves.items():
        if np.dtype(leaf.dtype) not in (FLOAT32, BFLOAT16):
            raise UserError(f"{folder}: parameter {path} is {leaf.dtype}; models are float32 or bfloat16")
    return leaves


def leaf_shardings(
    config: Gemma2Config, layout: Layout | None, *, unrolled: bool = False
) -> dict[str, jax.sharding.Sharding | None]:
    """Where each leaf of a layout lives, by path; None everywhere if there is none."""
    leaves = tree_leaves(config, unrolled=unrolled)
    if layout is None:
        return dict.fromkeys(leaves)
    names = flatten_dict(logical_axes(config, unrolled=unrolled), sep="/")
    return {path: layout.sharding(names[path], leaf.shape(config)) for path, leaf in leaves.items()}


def finisher(
    config: Gemma2Config, layout: Layout | None, *, unrolled: bool = False, form: Form | None = None
) -> Callable[[str, Any], Any]:
    """Gives what turns (path, leaf as it was read) into the leaf of the tree: itself, or formed and divided by the same axes.

    A leaf is done when that returns, so that the next is not read beside what it was made of.
    """
    if form is None:
        return lambda path, leaf: leaf
    names = flatten_dict(logical_axes(config, unrolled=unrolled), sep="/")

    def finished(path: str, leaf: Any) -> Any:
        made = formed_leaf(form, path, leaf)
        places = None if layout is None or layout.mesh is None else layout.tree(names[path], made)
        return jax.block_until_ready(jax.device_put(made, places))

    return finished


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in shape, dtype and every bit (so -0 is not 0, and a NaN equals itself)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return np.array_equal(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits))
