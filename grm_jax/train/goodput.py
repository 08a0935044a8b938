"""Where the time of a run went, over all its lives: `goodput.json`.

starts    how often the run was begun or gone on with
step      the highest step that has ended
seconds   by kind: `start` (until the first batch is asked for), `compile` (the first step of each life), `data` (waiting for
          batches), `step`, `redone` (steps that an earlier life had done and not saved), `checkpoint` (waiting for the
          state to be taken, and for the last to be written), `down` (from the last word of a life to the next)
goodput   the share of `step` in all seconds
"""

import json
import time
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.files import write_json

FILE = "goodput.json"
KINDS = ("start", "compile", "data", "step", "redone", "checkpoint", "down")


class Goodput:
    """Counts seconds by kind, on top of what the file of an earlier life says."""

    def __init__(self, folder: Path):
        """Begins a life; a file that cannot be read begins anew."""
        self._folder, self._begun = folder, time.perf_counter()
        try:
            before: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
            self._seconds = {kind: float(before["seconds"][kind]) for kind in KINDS}
            self._starts, self._highest = int(before["starts"]) + 1, int(before["step"])
            self._seconds["down"] += max(0.0, time.time() - float(before["written"]))
        except (OSError, ValueError, KeyError, TypeError):
            self._seconds, self._starts, self._highest = dict.fromkeys(KINDS, 0.0), 1, 0
        self._compiled = False

    def started(self) -> None:
        """All that comes before the first batch is done."""
        self._seconds["start"] += time.perf_counter() - self._begun

    def step(self, number: int, data_seconds: float, seconds: float) -> None:
        """Counts a step that has ended, and its batch."""
        kind = "compile" if not self._compiled else "step" if number > self._highest else "redone"
        self._compiled, self._highest = True, max(self._highest, number)
        self._seconds["data"] += data_seconds
        self._seconds[kind] += seconds

    def checkpoint(self, seconds: float) -> None:
        """Counts what a checkpoint held the run up."""
        self._seconds["checkpoint"] += seconds

    def write(self) -> None:
        """Writes the file; another one or none is there if the process dies meanwhile, never half of one.

        Raises:
            UserError: the disk refuses.
        """
        total = sum(self._seconds.values())
        found = {
            "starts": self._starts, "step": self._highest, "seconds": self._seconds,
            "goodput": self._seconds["step"] / total if total else 0.0, "written": time.time(),
        }  # fmt: skip
        write_json(self._folder, FILE, found)
