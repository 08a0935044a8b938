"""What is known of a stage: `stage.json` in its folder, with the settings it was begun with and whether it is finished.

settings  all that the result depends on, as nested JSON objects
inputs    {stage: digest} of the stages whose results it reads
digest    of both, by which later stages name it
seconds   worked on it so far, over all runs of the command
finished  whether its result is there
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.files import read_json, write_json
from grm_jax.errors import UserError
from grm_jax.judge.filling import Bar
from grm_jax.keys import digest

FILE = "stage.json"
_TICK_SECONDS = 10  # between times noted on the disk, so that a killed run loses no more


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """The record of a stage; see the module."""

    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    seconds: float = 0.0
    finished: bool = False

    @property
    def digest(self) -> str:
        """Names the stage's result."""
        return digest(json.dumps([self.settings, self.inputs], sort_keys=True)).hex()[:16]


def read_record(folder: Path) -> StageRecord | None:
    """Reads the record of a stage's folder; None when the stage was never begun.

    Raises:
        UserError: the record is damaged.
    """
    if not (folder / FILE).exists():
        return None
    stored = read_json(folder, FILE)
    try:
        record = StageRecord(stored["settings"], stored["inputs"], float(stored["seconds"]), stored["finished"] is True)
        whole = record.digest == stored["digest"]
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(f"{folder / FILE}: damaged; remove {folder} to have the stage made again")
    return record


def write_record(folder: Path, record: StageRecord) -> None:
    """Writes a record, all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, FILE, {**dataclasses.asdict(record), "digest": record.digest})


def check_unchanged(folder: Path, stored: StageRecord, now: StageRecord, free: frozenset[str] = frozenset()) -> None:
    """Refuses to go on with a stage, or to use its result, with other settings than it has.

    Args:
        folder: of the stage.
        stored: its record.
        now: what is asked.
        free: names of settings that may change, for a stage that only adds.

    Raises:
        UserError: names the stage, the setting or the input, and what to do.
    """
    state = "finished" if stored.finished else "begun"
    remedy = f"put it back, or remove {folder} to have the stage made again, or name another --output"
    before, after = _flat(stored.settings), _flat(now.settings)
    for name in [*before, *after]:
        was, is_now = before.get(name), after.get(name)
        if was != is_now and name not in free:
            raise UserError(
                f"{folder}: stage {folder.name} was {state} with {name} = {_shown(was)}, now {_shown(is_now)} is asked; {remedy}"
            )
    for name in [*stored.inputs, *now.inputs]:
        if stored.inputs.get(name) != now.inputs.get(name):
            change = "without" if name not in stored.inputs else "with another" if name in now.inputs else "with a"
            raise UserError(
                f"{folder}: stage {folder.name} was {state} {change} stage {name} than there is now; {remedy}"
            )


@contextmanager
def timed(folder: Path, record: StageRecord, bar: Bar) -> Iterator[tuple[Callable[[], StageRecord], Bar]]:
    """Counts the time of a stage into its record, and notes it on the disk now and then.

    Yields:
        A function that gives the record with the time up to now, and the bar, which also keeps the time.
    """
    start = last = time.monotonic()

    def current() -> StageRecord:
        return dataclasses.replace(record, seconds=record.seconds + time.monotonic() - start)

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= _TICK_SECONDS:
            last = time.monotonic()
            write_record(folder, current())

    def ticking(what: str, total: int) -> AbstractContextManager[Callable[[int, str], None]]:
        @contextmanager
        def entered() -> Iterator[Callable[[int, str], None]]:
            with bar(what, total) as advance:

                def advance_and_tick(done: int, note: str) -> None:
                    advance(done, note)
                    tick()

                yield advance_and_tick

        return entered()

    write_record(folder, record)
    try:
        yield current, ticking
    except BaseException:
        write_record(folder, current())
        raise


def plain(value: Any) -> Any:
    """Returns settings as plain JSON: dataclasses and tuples become objects and arrays, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _flat(obj: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in obj.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
