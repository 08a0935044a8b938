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
_FLUSH_SECONDS = 30.0  # TensorBoard sees events no later than this
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
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._path = path = folder / FILE
        with self._refusals():
            folder.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_rows(path) if row["step"] <= step] if path.exists() else []
            temporary = path.with_name(f".{FILE}.tmp")
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
            os.replace(temporary, path)
            self._file = path.open("a", encoding="utf-8")
            # tensorboardX's SummaryWriter would write from a thread, which dies on a full disk and lets the run wait forever.
            # The name of an events file is the second it was made in: a run that went on at once would overwrite it.
            (folder / EVENTS).mkdir(exist_ok=True)
            self._events = EventsWriter(str(folder / EVENTS / "events"), f".{time.time_ns()}")
            self._flushed = time.monotonic()
            self._event(step + 1, session_log=SessionLog(status=SessionLog.START))  # hides what came later before
        self.seconds = float(kept[-1].get("seconds", 0.0)) if kept else 0.0  # spent before, on what was kept

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._events):
            with contextlib.suppress(OSError):  # rows were flushed, or have raised already
                file.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one row and its events; a value that is None or not finite is left out, for JSON has no word for it."""
        from tensorboardX.summary import scalar

        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        with self._refusals():
            self._file.write(_line({"step": step, **finite}))
            self._file.flush()
            for name, value in finite.items():
                self._event(step, summary=scalar(name, value))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()

    def flush(self) -> None:
        """Waits until rows and events are on the disk: a checkpoint never knows of more rows than there are."""
        with self._refusals():
            os.fsync(self._file.fileno())
            self._events.flush()

    def _event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror or error}; make room there") from error


class NoLog(contextlib.nullcontext["NoLog"]):
    """What a process has that is not the one to write."""

    seconds = 0.0

    def __enter__(self) -> "NoLog":
        return self

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes nothing."""

    def flush(self) -> None:
        """Waits for nothing."""


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
