"""Checkpoints of a training run: `checkpoints/STEP/` holds the state (Orbax) and the position of its batches (JSON).

A checkpoint is written under another name and renamed when it is whole, so a run killed at any moment leaves whole ones. What
is torn all the same (a copy cut short, a full disk of another machine) is passed over with a warning.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from grm_jax.checkpoints.files import first_line
from grm_jax.errors import UserError
from grm_jax.train.placement import place_like
from grm_jax.train.step import TrainState

_KEPT = 2
_STATE, _SOURCE = "state", "source.json"
_log = logging.getLogger(__name__)


class Saver:
    """Saves checkpoints while training goes on: the state is copied at once, and written by a thread.

    At the end of the block the last one is on the disk. What went wrong in writing is raised by the next call, or there.
    """

    def __init__(self, folder: Path):
        """`folder` is that of the checkpoints; made if it is not there."""
        self._folder = folder
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            self.wait()
        except Exception:
            if kind is None:
                raise  # what stopped the run matters more than that its last checkpoint failed too
        finally:
            self._writer.shutdown()

    def save(self, state: TrainState, source: dict[str, Any]) -> None:
        """Begins a checkpoint of the state's step, after the one before is written; `frozen` is left out.

        Args:
            state: its leaves are numeric arrays; it may be donated afterwards.
            source: what the batches' `get_state` gave.

        Raises:
            UserError: the disk refused the one before.
        """
        self.wait()
        leaves = {name: np.array(leaf, copy=True) for name, leaf in _named(state).items()}
        self._pending = self._writer.submit(_write, self._folder, int(state.step), leaves, source)

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def _write(folder: Path, step: int, leaves: dict[str, np.ndarray], source: dict[str, Any]) -> None:
    """Writes a checkpoint, and removes all but it and the one before."""
    final = folder / str(step)
    temporary = folder / f".{final.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((temporary / _STATE).absolute(), leaves)
        record = {"source": source, "digests": _digests(temporary / _STATE) | {_SOURCE: _digest_of(source)}}
        (temporary / _SOURCE).write_text(json.dumps(record), encoding="utf-8")
        _flush(temporary)
        shutil.rmtree(final, ignore_errors=True)  # a torn one of an earlier life
        os.rename(temporary, final)
        # Later ones are damaged: the run would have gone on from them.
        there = steps(folder)
        kept = [step for step in there if step <= int(final.name)][-_KEPT:]
        for step in set(there) - set(kept):
            shutil.rmtree(folder / str(step))
    except (OSError, ValueError) as error:  # TensorStore raises ValueError on a full disk
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{final}: cannot be written: {reason}; make room there") from error


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def restore(folder: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Reads the newest whole checkpoint.

    Args:
        folder: of the checkpoints.
        like: a state of the same run, whose structure and `frozen` the result has.

    Returns:
        The state with the stored bits and the source's state; None if there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but none is whole; or one is of another model or optimizer.
    """
    found = steps(folder)
    for step in reversed(found):
        path = folder / str(step)
        try:
            leaves, source = _read(path)
        except Exception as error:  # of whatever type Orbax and TensorStore raise: the checkpoint is what is wrong
            _log.warning("%s: damaged (%s); the one before is used", path, first_line(error))
            continue
        return _fitted(path, leaves, like), source
    if found:
        raise UserError(f"{folder}: none of the checkpoints can be read; remove the folder to start anew")
    return None


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    record = json.loads((path / _SOURCE).read_text(encoding="utf-8"))
    found = _digests(path / _STATE) | {_SOURCE: _digest_of(record["source"])}
    changed = [name for name, digest in record["digests"].items() if found.get(name) != digest]
    if changed:
        raise ValueError(f"{min(changed)} is not as it was written")
    with ocp.PyTreeCheckpointer() as checkpointer:
        store = (path / _STATE).absolute()
        names = checkpointer.metadata(store).item_metadata.tree
        restore_args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        args = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=restore_args)
        return checkpointer.restore(store, args=args), record["source"]


def _fitted(path: Path, leaves: dict[str, np.ndarray], like: TrainState) -> TrainState:
    wanted = _named(like)
    different = sorted(
        name for name in wanted.keys() | leaves.keys()
        if name not in wanted or name not in leaves
        or (wanted[name].shape, wanted[name].dtype) != (leaves[name].shape, leaves[name].dtype)
    )  # fmt: skip
    if different:
        raise UserError(f"{path}: is of another model or optimizer ({different[0]} differs); name another run folder")
    structure = jax.tree.structure(dataclasses.replace(like, frozen={}))
    # Copies: jax may use a numpy array's memory as it is, and the step donates what it is given.
    restored = jax.tree.unflatten(structure, [place_like(leaves[name], leaf) for name, leaf in wanted.items()])
    return dataclasses.replace(restored, frozen=like.frozen)


def _named(state: TrainState) -> dict[str, jax.Array]:
    """{dotted path: leaf}, in the order of the tree; a name does not change when optax renames its tuples' types."""
    flat = jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen={}))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _digests(folder: Path) -> dict[str, str]:
    """Digest of every file: Orbax does not check what it reads, and a flipped bit would train on unnoticed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _digest_of(source: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(source).encode()).hexdigest()[:32]


def _flush(folder: Path) -> None:
    """Waits until the files are on the disk, so that the rename does not overtake them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
