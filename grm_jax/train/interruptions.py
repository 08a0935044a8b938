"""What stops a run from outside: a request to end, and a step that never ends."""

import contextlib
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM has come, which no longer interrupts what is being done.

    A machine that is about to be taken away sends it, and leaves a run the time to save. A second one does what it did before.
    Outside the main thread, where Python gives no signals, it never comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[Callable[[], None]]:
    """Yields a function to be called when a step has ended; if none has for so long, the process ends.

    It ends with exit code 1 and the stacks of all threads on standard error: a collective that one host never joins would otherwise
    hang for good. The time runs from the first call, since the first step compiles. 0 seconds are no watchdog.
    """

    def alive() -> None:
        if seconds:
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)

    try:
        yield alive
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()
