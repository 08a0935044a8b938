"""Metrics of a training run: rows of `metrics.jsonl`, and the same numbers as TensorBoard events."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from grm_jax.errors import UserError

FILE, EVENTS = "metrics.jsonl", "tensorboard"
WALL_CLOCK = (
    "seconds",
    "step_seconds",
    "source_seconds",
    "tokens_per_second",
    "flops_utilisation",
)  # differ run by run


class MetricsLog:
    """Appends rows; what an interrupted run wrote after the step it goes on from is cut off first."""

    def __init__(self, folder: Path, step: int):
        """Opens the files of a run.

        Args:
            folder: the run's; made if it is not there.
            step: the run goes on from here; 0 for a new one.

        Raises:
            UserError: the disk refuses; so do `write` and `flush`.
        """
        from tensorboardX import SummaryWriter

        self._path = path = folder / FILE
        with self._refusals():
            folder.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_rows(path) if row["step"] <= step] if path.exists() else []
            temporary = path.with_name(f".{FILE}.tmp")
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
            os.replace(temporary, path)
            self._file = path.open("a", encoding="utf-8")
            # The name of an events file is the second it was made in: a run that went on at once would overwrite it.
            suffix = f".{time.time_ns()}"
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1, filename_suffix=suffix)
        self.seconds = float(kept[-1].get("seconds", 0.0)) if kept else 0.0  # spent before, on what was kept

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # every row was flushed; what was not has raised already
            self._file.close()
        self._events.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one row; a value that is None or not finite is left out, for JSON has no word for it."""
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        with self._refusals():
            self._file.write(_line({"step": step, **finite}))
            self._file.flush()
        for name, value in finite.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Waits until the rows are on the disk: a checkpoint never knows of more rows than there are."""
        with self._refusals():
            os.fsync(self._file.fileno())
            self._events.flush()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror or error}; make room there") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, up to a line that a killed run left unfinished."""
    return list(_whole_rows(path))


def _whole_rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            return
        yield row


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
