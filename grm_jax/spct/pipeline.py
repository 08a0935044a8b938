"""A pipeline: stages one after another in one run folder, each resumable, each done once.

    RUN/<stage>/            what a stage writes, with its record stage.json; a judge's stage ends with model/

A stage is a name, its settings and a function; what it reads of other stages is known before anything runs, and so is
whether what is there was made with the settings that are asked.
"""

import dataclasses
import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grm_jax.errors import UserError
from grm_jax.judge.filling import Bar
from grm_jax.spct.stage_record import StageRecord, check_unchanged, plain, read_record, timed, write_record
from grm_jax.train.training import Training

CONFIG = "config.gin"
"""The settings of the last command, in a run folder."""
_LOCK = ".lock"
_WITHOUT_EFFECT = ("save_every", "log_every", "export_every", "step_limit", "peak_flops")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a pipeline.

    Attributes:
        name: of its folder.
        settings: all that its result depends on besides its inputs; dataclasses, mappings and plain values.
        inputs: the stages whose results it reads; each stands before it or is finished in the folder.
        run: (folder, bar) -> None; does the work, and goes on where it was stopped.
        free: names of settings that may change after it is finished: it only adds then.
    """

    name: str
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    run: Callable[[Path, Bar], None]
    free: frozenset[str] = frozenset()


def is_finished(folder: Path, name: str) -> bool:
    """Tells whether a stage's result is in a run folder."""
    record = read_record(folder / name)
    return record is not None and record.finished


def check(folder: Path, stages: Sequence[Stage]) -> dict[str, StageRecord]:
    """Refuses, before anything runs, stages that were begun otherwise than is asked; returns what each is to be.

    Raises:
        UserError: names the stage, the setting and what to do; or an input is not there.
    """
    records: dict[str, StageRecord] = {}
    for stage in stages:
        inputs = {name: _input(folder, name, stage.name, records).digest for name in stage.inputs}
        asked = StageRecord(plain(stage.settings), inputs)
        stored = read_record(folder / stage.name)
        if stored:
            check_unchanged(folder / stage.name, stored, asked, stage.free)
            same = stored.digest == asked.digest
            asked = dataclasses.replace(asked, seconds=stored.seconds, finished=stored.finished and same)
        records[stage.name] = asked
    return records


def run_stages(folder: Path, stages: Sequence[Stage], *, bar: Bar, report: Callable[[str], None]) -> None:
    """Runs stages in order; those that are finished are passed over with a line.

    Raises:
        UserError: as `check`, and what a stage raises.
    """
    records = check(folder, stages)
    for stage in stages:
        record, home = records[stage.name], folder / stage.name
        if record.finished:
            report(f"{stage.name}: finished before, {record.seconds / 60:.1f} minutes")
            continue
        report(f"{stage.name}: {'goes on' if record.seconds else 'begins'}")
        with timed(home, record, bar) as (current, ticking):
            stage.run(home, ticking)
            record = dataclasses.replace(current(), finished=True)
        write_record(home, record)
        report(f"{stage.name}: finished, {record.seconds / 60:.1f} minutes")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder, so that two commands do not write the same run.

    Raises:
        UserError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "ab")  # noqa: SIM115 (its life is the lock's)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror}); choose another output folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing this run; wait for it or use another") from None
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked ({error.strerror}); use a folder on a local disk") from None
        yield


def of_effect(settings: Training) -> dict[str, Any]:
    """The settings of a training without those that its result does not depend on."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings) if field.name not in _WITHOUT_EFFECT
    }  # fmt: skip


def named(bar: Bar, stage: str) -> Bar:
    """A bar whose titles name the stage."""
    return lambda what, total: bar(f"{stage}: {what}", total)


def _input(folder: Path, name: str, reader: str, asked: dict[str, StageRecord]) -> StageRecord:
    record = asked.get(name) or read_record(folder / name)
    if record is None or (name not in asked and not record.finished):
        raise UserError(f"{folder}: stage {reader} reads stage {name}, which is not finished; run it as well")
    return record
