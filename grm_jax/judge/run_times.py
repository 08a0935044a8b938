"""What a run took: `times.jsonl` has a line for each command that drew critiques or scored them.

{"what": "critiques" or "meta scores", "count", "tokens" (generated; 0 for scores), "seconds"}: wall-clock, from the first prompt
to the last line on disk, compilation included, loading of the model not. On several hosts each that draws has a file of its own,
and seconds are those of all of them together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grm_jax.data import fields
from grm_jax.judge.append_log import read_log
from grm_jax.judge.run_store import parts

TIMES = "times.jsonl"
CRITIQUES, META_SCORES = "critiques", "meta scores"


@dataclass(frozen=True)
class Spent:
    """Seconds that went into so many critiques (or scores of them) of so many generated tokens; sums over commands."""

    count: int = 0
    tokens: int = 0
    seconds: float = 0.0


def read_times(path: Path) -> dict[str, Spent]:
    """Returns what was spent on `CRITIQUES` and on `META_SCORES`; nothing for a run that was not timed.

    Raises:
        UserError: "FILE:LINE: field: what is wrong; what to do" for any finished line that is corrupt.
    """
    found = {CRITIQUES: Spent(), META_SCORES: Spent()}
    lines = (line for part in parts(path) for line in read_log(part / TIMES))
    for where, obj in lines:
        obj = fields.read_object(obj, where, "times")
        keys = ("what", "count", "tokens", "seconds")
        fields.check_keys(obj, keys, keys, where, "remove the line")
        what = fields.read_choice(obj["what"], found, where, "what")
        before = found[what]
        found[what] = Spent(
            before.count + fields.read_integer(obj["count"], where, "count", 0, 2**63),
            before.tokens + fields.read_integer(obj["tokens"], where, "tokens", 0, 2**63),
            before.seconds + fields.read_number(obj["seconds"], where, "seconds", 0),
        )
    return found


def time_line(what: str, spent: Spent) -> dict[str, Any]:
    """Returns the line of `times.jsonl`."""
    return {"what": what, "count": spent.count, "tokens": spent.tokens, "seconds": spent.seconds}
