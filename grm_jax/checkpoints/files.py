"""The files of a model folder: which one may be read, how one is written."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grm_jax.errors import UserError

CONFIG = "config.json"
ORBAX_PARAMS = "params"


def inside(folder: Path, name: str) -> Path:
    """Returns the regular file `name` directly in `folder`, so that a downloaded folder cannot point elsewhere.

    A symbolic link must end in the folder, or in the `blobs` that belong to it in the Hugging Face cache
    (`models--X/snapshots/REVISION` links to `models--X/blobs`).

    Raises:
        UserError: the name has folders in it, or leaves the folder, or is not a regular file.
    """
    if Path(name).name != name or "\0" in name:
        raise UserError(
            f"{folder}: {name!r} names a file outside the model folder; refuse this model or repair its index"
        )
    path, home = folder / name, folder.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: no such file; is the download complete?") from error
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    if target.parent not in (home, blobs):
        raise UserError(
            f"{path}: is a link to a file outside the model folder ({target}); put a copy of the file there"
        )
    if not target.is_file():
        raise UserError(f"{path}: not a regular file")
    return path


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object from a file of the folder.

    Raises:
        UserError: the file is missing, unreadable, not JSON or not an object.
    """
    path = inside(folder, name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: must hold a JSON object, not {type(data).__name__}")
    return data


def write_json(folder: Path, name: str, data: Any) -> None:
    """Writes JSON atomically: the file is either absent or whole."""
    with replacing(folder / name) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it when the block ends well.

    Raises:
        UserError: the disk refuses (no room, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers make files that only their owner may read, whatever the umask says
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or first_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to make a folder at, and renames it to `path`, over what is there, when the block ends well.

    So a folder of that name is whole, and what was killed in between is made again without a trace.

    Raises:
        UserError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or first_line(error)}") from error


def new_model_folder(folder: Path) -> None:
    """Makes the folder that a model will be written to.

    Raises:
        UserError: it already holds (part of) a model, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = [p.name for p in folder.iterdir() if p.name in (CONFIG, ORBAX_PARAMS) or ".safetensors" in p.suffixes]
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made a model folder: {error.strerror}; name a folder elsewhere"
        ) from error
    if held:
        raise UserError(f"{folder}: already holds a model ({min(held)}); name another folder or remove this one first")


def first_line(error: BaseException) -> str:
    """The first line of another library's message, to be quoted in ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
