"""Model folders with Orbax parameters: config.json in the Hugging Face form, and `params/`."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from grm_jax.checkpoints.files import ORBAX_PARAMS, first_line, new_model_folder
from grm_jax.checkpoints.layout import Shape, leaf_shapes
from grm_jax.checkpoints.tree import (
    FLOAT32,
    Leaves,
    Params,
    checked_dtype,
    checked_leaves,
    finisher,
    leaf_shardings,
    read_config,
    write_config,
)
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import unroll
from grm_jax.model.projections import Form
from grm_jax.parallel.layout import Layout

_SPARE = 2**20  # bytes beside the weights, for metadata and config.json


def save_orbax(folder: Path | str, config: Gemma2Config, params: Mapping[str, Any]) -> None:
    """Saves a model. Orbax makes `params/` appear whole or not at all; config.json is written last.

    Args:
        folder: new, or without a model in it.
        config: the shape.
        params: numpy or jax arrays (sharded ones too), float32 or bfloat16.

    Raises:
        UserError: the folder holds a model, parameters do not fit the config, or the disk refuses.
    """
    folder = Path(folder).absolute()
    leaves = checked_leaves(config, params, folder)
    new_model_folder(folder)
    # Orbax waits five minutes for a folder that it cannot make, and TensorStore's threads print a traceback for each leaf that
    # finds the disk full. So what can be known is asked before they begin.
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _refused(folder, error) from error
    needed = sum(leaf.nbytes for leaf in leaves.values()) + _SPARE
    if needed > free:
        raise UserError(
            f"{folder}: the model takes up to {needed:,} bytes, the disk has {free:,} left; "
            "make room there or name a folder elsewhere"
        )
    try:
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / ORBAX_PARAMS, dict(params))
    except (OSError, ValueError) as error:  # TensorStore raises ValueError on a full disk
        raise _refused(folder / ORBAX_PARAMS, error) from error
    write_config(folder, config, (np.dtype(leaf.dtype) for leaf in leaves.values()))


def load_orbax(
    folder: Path | str,
    dtype: Any = None,
    progress: Callable[[int, int], None] | None = None,
    layout: Layout | None = None,
    *,
    unrolled: bool = False,
    form: Form | None = None,
) -> tuple[Gemma2Config, Params]:
    """Loads a model that `save_orbax` wrote, leaf by leaf.

    Args:
        folder: with config.json and `params/`.
        dtype: float32 or bfloat16 for all leaves; None keeps each leaf's.
        progress: called with (leaves done, leaves in all).
        layout: where the leaves are to live; None for numpy arrays.
        unrolled: the tree of an unrolled model instead (`model.gemma2.unroll`).
        form: what projections become (`model.projections`), as jax arrays. One leaf at a time is held as it was read beside them.

    Returns:
        The config and the parameter tree.

    Raises:
        UserError: a part is missing or damaged, or the parameters do not fit the config.
    """
    folder, dtype = Path(folder).absolute(), checked_dtype(dtype)
    config, leaves = orbax_leaves(folder)
    stacked, wanted = leaf_shardings(config, layout), leaf_shardings(config, layout, unrolled=unrolled)
    finished = finisher(config, layout, unrolled=unrolled, form=form)
    read: dict[str, Any] = {}
    for done, (path, (shape, kept)) in enumerate(leaves.items(), 1):
        leaf = _read_leaf(folder / ORBAX_PARAMS, path, shape, dtype or kept, stacked[path])
        tree = unflatten_dict({path: leaf}, sep="/")
        for name, part in flatten_dict(unroll(tree) if unrolled else tree, sep="/").items():
            read[name] = finished(name, part if layout is None else jax.device_put(part, wanted[name]))
        if progress:
            progress(done, len(leaves))
    return config, unflatten_dict(read, sep="/")


def orbax_leaves(folder: Path | str) -> tuple[Gemma2Config, Leaves]:
    """Shape and dtype of every leaf that `load_orbax` would return; reads metadata (and one small leaf) only.

    Raises:
        UserError: as `load_orbax`, except for what only the weights themselves can show.
    """
    folder = Path(folder).absolute()
    config = read_config(folder)
    params = folder / ORBAX_PARAMS
    if not params.is_dir():
        raise UserError(f"{params}: no such folder; the model is incomplete, copy or convert it again")
    for path in (params, *params.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{path}: is a link; a model folder must hold its own files, put a copy there")
    # Orbax opens all leaves at once, and prints a traceback for each one still pending when another fails. A damaged
    # store fails here first, with one leaf.
    _read_leaf(params, "final_norm", leaf_shapes(config)["final_norm"], FLOAT32)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = dict(checkpointer.metadata(params).item_metadata.tree)
    except Exception as error:
        raise _damaged(params, error) from error
    leaves = checked_leaves(config, tree, params)
    return config, {path: (tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in leaves.items()}


def _read_leaf(
    params: Path, path: str, shape: Shape, dtype: np.dtype, sharding: jax.sharding.Sharding | None = None
) -> Any:
    """Reads one leaf, as a numpy array or to where it is to live."""
    how = (
        ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
        if sharding is None
        else ocp.ArrayRestoreArgs(sharding=sharding, global_shape=shape, dtype=dtype)
    )
    item = unflatten_dict({path: jax.ShapeDtypeStruct(shape, dtype)}, sep="/")
    restore_args = unflatten_dict({path: how}, sep="/")
    args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return flatten_dict(checkpointer.restore(params, args=args), sep="/")[path]
    except Exception as error:  # whatever type Orbax and TensorStore raise, the folder is what is wrong
        raise _damaged(params, error) from error


def _refused(path: Path, error: OSError | ValueError) -> UserError:
    """What the system says: TensorStore has the number of it, at the end of some thousand characters."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    known = os.strerror(int(number[1])) if number else getattr(error, "strerror", None)
    return UserError(
        f"{path}: cannot be written: {known or first_line(error)}; make room there or name a folder elsewhere"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax, which logs the tracebacks of all its threads beside raising one of them."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _damaged(params: Path, error: Exception) -> UserError:
    return UserError(f"{params}: damaged or not an Orbax checkpoint ({first_line(error)}); copy or convert it again")
