"""Progress of long work: a bar on a terminal, one line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grm_jax.cli import profiling

_PLAIN_SECONDS = 15  # between lines when standard error is not a terminal


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Shows progress on standard error; yields advance(done, note)."""
    with _shown(what, total) as show:

        def advance(done: int, note: str) -> None:
            show(done, note)
            profiling.progressed()

        yield advance


@contextlib.contextmanager
def _shown(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(what, total)
        return
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, note="")
        is_first = True

        def advance(done: int, note: str) -> None:
            nonlocal is_first
            if is_first:  # see `_plain`
                progress.reset(task, completed=done)
            is_first = False
            progress.update(task, completed=done, note=note)

        yield advance


def _plain(what: str, total: int) -> Callable[[int, str], None]:
    start = last = time.monotonic()
    first: tuple[float, int] | None = None

    def advance(done: int, note: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        # What was done before, by a run that is resumed, tells nothing of the speed; nor does the first step, which compiles.
        first = first or (now, done)
        if now - last < _PLAIN_SECONDS and done < total:
            return
        last = now
        since, steps = now - first[0], done - first[1]
        left = f", {since / steps * (total - done):.0f} s left" if steps else ""
        print(f"{what}: {done}/{total}, {now - start:.0f} s{left} {note}", file=sys.stderr, flush=True)

    return advance
