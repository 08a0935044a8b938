"""An append-only file of JSON lines that survives a crash in the middle of a write."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from grm_jax.data.jsonl import dump_line, parse_line, read_lines
from grm_jax.errors import UserError


class AppendLog:
    """The writing end of a log; opening it cuts off a torn last line (one without a line end) and reports that."""

    def __init__(self, path: Path, report: Callable[[str], None]):
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (held open for the whole run)
        whole = _whole_lines(path)
        torn = self._file.tell() - whole
        if torn:
            self._file.truncate(whole)
            report(f"{path}: cut off an unfinished last line of {torn} bytes; what it held will be made again")

    def append(self, objects: Iterable[Any]) -> None:
        """Writes objects one a line and returns once they are on disk; after a failure the file is as it was before.

        Raises:
            UserError: the disk refuses, for example because it is full.
        """
        data = memoryview(b"".join(dump_line(obj) for obj in objects))
        size = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(size)
            problem = f"cannot be written ({error.strerror}); nothing stored before is lost"
            raise UserError(f"{self._path}: {problem}, make room and run the same command again") from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields ("FILE:LINE", object) for every finished line of a log; a log that does not exist is empty.

    A torn last line is passed over: another process may be writing it now.

    Raises:
        UserError: a finished line is not valid JSON.
    """
    if not path.exists():
        return
    for number, line in read_lines(path):
        if line.endswith(b"\n"):
            where = f"{path}:{number}"
            yield where, parse_line(line, where)


def _whole_lines(path: Path) -> int:
    """Returns the size in bytes up to and including the last line end."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                return start + last + 1
            end = start
    return 0
