"""Progress of long work: a bar on a terminal, one line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_SECONDS = 15  # between lines when standard error is not a terminal


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Shows progress on standard error; yields advance(done, note)."""
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
        yield lambda done, note: progress.update(task, completed=done, note=note)


def _plain(what: str, total: int) -> Callable[[int, str], None]:
    start = time.monotonic()
    last = start

    def advance(done: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PLAIN_SECONDS and done < total:
            return
        last = now
        left = (now - start) / max(done, 1) * (total - done)
        print(f"{what}: {done}/{total}, {now - start:.0f} s, {left:.0f} s left {note}", file=sys.stderr, flush=True)

    return advance
