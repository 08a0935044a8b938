"""Checkpoints of a training run. `checkpoints/STEP/` holds

    state/       the state, by Orbax; each process writes what its devices hold
    source.json  the position of the batches, and the score by which the best checkpoint is kept
    digests/     by process: digests of its part of all files, since Orbax does not check what it reads

A checkpoint is written under another name and renamed when it is whole, so a run killed at any moment leaves whole ones. What
is torn all the same (a copy cut short, a full disk of another machine) is passed over with a warning.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from grm_jax.checkpoints.files import first_line
from grm_jax.errors import UserError
from grm_jax.parallel import hosts
from grm_jax.train.step import TrainState

_KEPT = 2
_STATE, _SOURCE, _DIGESTS = "state", "source.json", "digests"
_log = logging.getLogger(__name__)


class Saver:
    """Saves checkpoints while training goes on: the state is copied at once, and written by threads.

    The last two are kept, and the one of the best score. At the end of the block the last one is on the disk. What went wrong in
    writing is raised by the next call, or there. All processes of a run call the same.
    """

    def __init__(self, folder: Path):
        """`folder` is that of the checkpoints; made if it is not there."""
        self._folder = folder
        self._checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
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
            with contextlib.suppress(Exception):  # it has been raised already
                self._checkpointer.close()

    def save(self, state: TrainState, source: dict[str, Any], score: float | None = None) -> None:
        """Begins a checkpoint of the state's step, after the one before is written; `frozen` is left out.

        Args:
            state: its leaves are numeric arrays; it may be donated afterwards.
            source: what the batches' `get_state` gave.
            score: the checkpoint with the highest is kept; None for no such.

        Raises:
            UserError: the disk refused the one before.
        """
        self.wait()
        step = int(state.step)
        with _refusals(self._folder / str(step)):
            temporary = _temporary(self._folder, step)
            if hosts.is_leader():
                self._folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
            hosts.wait("the folder of a checkpoint")
            leaves = _named(state)
            if jax.default_backend() == "cpu":  # there a copy on the host is the array itself, which is donated
                leaves = jax.tree.map(jnp.copy, leaves)
            self._checkpointer.save((temporary / _STATE).absolute(), args=ocp.args.PyTreeSave(leaves))
        self._pending = self._writer.submit(self._finish, step, {"source": source, "score": score})

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _finish(self, step: int, record: dict[str, Any]) -> None:
        final, temporary = self._folder / str(step), _temporary(self._folder, step)
        with _refusals(final):
            self._checkpointer.wait_until_finished()
            if hosts.is_leader():
                (temporary / _SOURCE).write_text(json.dumps(record), encoding="utf-8")
                (temporary / _DIGESTS).mkdir()
            hosts.wait("the files of a checkpoint")
            mine = hosts.share(_noted_files(temporary))
            found = {path.relative_to(temporary).as_posix(): _digest(path) for path in mine}
            digests = temporary / _DIGESTS / f"{hosts.index()}.json"
            digests.write_text(json.dumps(found), encoding="utf-8")
            _flush([*mine, digests])
            hosts.wait("a whole checkpoint")
            if hosts.is_leader():
                shutil.rmtree(final, ignore_errors=True)  # a torn one of an earlier life
                os.rename(temporary, final)
                _remove_others(self._folder, step)


def _temporary(folder: Path, step: int) -> Path:
    return folder / f".{step}.tmp"


@contextlib.contextmanager
def _refusals(final: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # TensorStore raises ValueError on a full disk
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{final}: cannot be written: {reason}; make room there") from error


def _remove_others(folder: Path, step: int) -> None:
    """Removes all but this checkpoint, the one before and the best. Later ones are damaged: the run did not go on from them."""
    for later in steps(folder):
        if later > step:
            shutil.rmtree(folder / str(later))
    there = steps(folder)
    for other in {*there} - {*there[-_KEPT:], best(folder)}:
        shutil.rmtree(folder / str(other))


def best(folder: Path) -> int | None:
    """The step of the checkpoint with the highest score, the earliest of equals; None where none has one."""
    scores = {step: score for step in steps(folder) if (score := _score(folder / str(step))) is not None}
    return max(scores, key=lambda step: (scores[step], -step), default=None)


def _score(path: Path) -> float | None:
    try:
        score = json.loads((path / _SOURCE).read_text(encoding="utf-8"))["score"]
        return float(score) if score is not None and math.isfinite(score) else None
    except (OSError, ValueError, KeyError, TypeError):  # it is damaged
        return None


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def restore_best(folder: Path, like: TrainState) -> TrainState | None:
    """Reads the checkpoint with the highest score; arguments and errors as for `restore`.

    Returns:
        The state; None if no checkpoint has a score, or it is damaged.
    """
    step = best(folder)
    if step is None or hosts.any_of(bool(_damage(folder / str(step)))):
        return None
    return _read(folder / str(step), like)[0]


def restore(folder: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Reads the newest whole checkpoint; every process reads what its devices hold.

    Args:
        folder: of the checkpoints.
        like: a state of the same run, whose structure, shardings and `frozen` the result has.

    Returns:
        The state with the stored bits and the source's state; None if there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but none is whole; or one is of another model or optimizer.
    """
    found = steps(folder)
    for step in reversed(found):
        path = folder / str(step)
        problem = _damage(path)
        if hosts.any_of(bool(problem)):
            _log.warning("%s: damaged (%s); the one before is used", path, problem or "as another process has found")
            continue
        return _read(path, like)
    if found:
        raise UserError(f"{folder}: none of the checkpoints can be read; remove the folder to start anew")
    return None


def _damage(path: Path) -> str:
    """What is wrong with this process's part of the files of a checkpoint; "" for nothing."""
    try:
        recorded: dict[str, str] = {}
        for part in sorted((path / _DIGESTS).iterdir()):
            recorded |= json.loads(part.read_text(encoding="utf-8"))
        if _SOURCE not in recorded:
            raise ValueError(f"{_SOURCE} is not known")
        for name in hosts.share(sorted(recorded)):
            if _digest(path / name) != recorded[name]:
                raise ValueError(f"{name} is not as it was written")
    except (OSError, ValueError, TypeError) as error:
        return getattr(error, "strerror", None) or first_line(error)
    return ""


def _read(path: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    wanted = _named(like)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        store = (path / _STATE).absolute()
        there = checkpointer.metadata(store).item_metadata.tree
        different = sorted(
            name for name in wanted.keys() | there.keys()
            if name not in wanted or name not in there
            or (wanted[name].shape, wanted[name].dtype) != (tuple(there[name].shape), there[name].dtype)
        )  # fmt: skip
        if different:
            raise UserError(
                f"{path}: is of another model or optimizer ({different[0]} differs); name another run folder"
            )
        places = {name: ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype) for name, leaf in wanted.items()}
        leaves = checkpointer.restore(store, args=ocp.args.PyTreeRestore(wanted, restore_args=places))
    structure = jax.tree.structure(dataclasses.replace(like, frozen={}))
    restored = jax.tree.unflatten(structure, [leaves[name] for name in wanted])
    record = json.loads((path / _SOURCE).read_text(encoding="utf-8"))
    return dataclasses.replace(restored, frozen=like.frozen), record["source"]


def _named(state: TrainState) -> dict[str, jax.Array]:
    """{dotted path: leaf}, in the order of the tree; a name does not change when optax renames its tuples' types."""
    flat = jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen={}))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _noted_files(checkpoint: Path) -> list[Path]:
    """What has a digest, the same list in every process: the digests, which come at different times, are left out."""
    there = (path for path in checkpoint.rglob("*") if path.is_file())
    return sorted(path for path in there if path.relative_to(checkpoint).parts[0] != _DIGESTS)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _flush(files: list[Path]) -> None:
    """Waits until the files are on the disk, so that the rename does not overtake them."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
