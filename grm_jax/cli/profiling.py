"""`--profile`: a trace of what host and devices do during a long command, which XProf opens."""

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 30.0


def add_profile_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the group of arguments that `profiling` reads; the command shows its progress by `progress.bar`."""
    group = parser.add_argument_group("profiling")
    group.add_argument(
        "--profile",
        nargs="?",
        const="",
        metavar="DIR",
        help="trace some seconds of the work after its first batch or step, which compiles, for `xprof --logdir DIR` "
        "(default DIR: RUN/profile)",
    )
    group.add_argument(
        "--profile-seconds", type=float, metavar="S", help=f"how long to trace at most (default: {_SECONDS:g})"
    )


class Trace:
    """Waits for the first progress, then traces for some seconds, or until it is closed."""

    def __init__(self, folder: Path, seconds: float):
        self._folder, self._seconds = folder, seconds
        self._began: float | None = None
        self._ends = threading.Timer(seconds, self._end)
        self._lock = threading.Lock()
        self._is_on = False

    def progressed(self) -> None:
        """Begins the trace, the first time."""
        if self._began is not None:
            return
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each call of a Python function would be an event
        self._began = time.monotonic()
        jax.profiler.start_trace(self._folder, profiler_options=options)
        self._is_on = True
        self._ends.daemon = True
        self._ends.start()

    def close(self) -> None:
        """Ends the trace if it still goes on; returns when it is written."""
        self._ends.cancel()
        self._end()
        if self._began is None:
            print("profile: nothing to trace, the command ended with its first batch or step", file=sys.stderr)

    def _end(self) -> None:
        import jax

        with self._lock:
            if not self._is_on or self._began is None:
                return
            self._is_on = False
            seconds = time.monotonic() - self._began
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError) as error:
                print(f"profile: {self._folder} cannot be written ({str(error).splitlines()[0]})", file=sys.stderr)
                return
            print(f"profile: {seconds:.0f} s; open it with `xprof --logdir {self._folder}`", file=sys.stderr)


_trace: Trace | None = None


def progressed() -> None:
    """Tells that something was done, so that what follows is compiled; nothing without `--profile`."""
    if _trace:
        _trace.progressed()


@contextlib.contextmanager
def profiling(args: argparse.Namespace) -> Iterator[None]:
    """Traces what is done inside, where the arguments ask for it; each process of a run on several hosts its own.

    Raises:
        UserError: seconds that are not above 0, or without `--profile`.
    """
    from grm_jax.errors import UserError

    seconds = getattr(args, "profile_seconds", None)
    folder = getattr(args, "profile", None)
    if seconds is not None and folder is None:
        raise UserError("--profile-seconds: there is no --profile; add it or leave this out")
    if seconds is not None and not 0 < seconds < threading.TIMEOUT_MAX:
        raise UserError(f"--profile-seconds must be above 0, not {seconds:g}")
    if folder is None:
        yield
        return
    from grm_jax.parallel import hosts

    global _trace
    path = Path(folder or Path(args.output if hasattr(args, "output") else args.folder) / "profile")
    _trace = Trace(path if hosts.is_leader() else path / "hosts" / str(hosts.index()), seconds or _SECONDS)
    try:
        yield
    finally:
        _trace.close()
        _trace = None
