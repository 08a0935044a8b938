"""By which rule the items of a run stopped early: its `stop.json`, an `anytime.stop_record`; there only where a command had one.

It is no part of the identity: a critique is the same whenever its item stops, and another rule, or none, draws what it lacks.
"""

from pathlib import Path

from grm_jax.data.jsonl import parse_line, write_jsonl
from grm_jax.judge.anytime import Stopping, read_stop_record, stop_record

_STOP = "stop.json"


def keep_stop(path: Path, stop: Stopping, k: int, policy: str) -> None:
    """Writes the rule that the last command had."""
    write_jsonl(path / _STOP, [stop_record(stop, k, policy)])


def read_stop(path: str | Path) -> tuple[Stopping, int, str] | None:
    """Returns the rule, k and the vote; None for a run that drew all critiques.

    Raises:
        UserError: "FILE: field: what is wrong; what to do".
    """
    file = Path(path) / _STOP
    return read_stop_record(parse_line(file.read_bytes(), str(file)), str(file)) if file.exists() else None
