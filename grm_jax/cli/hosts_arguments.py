"""The arguments before the command that make it one of the processes of a run on several hosts."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

_COMMANDS = ("judge", "meta-score", "eval", "rft", "train")


def add_hosts_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the group of arguments that `running` reads."""
    group = parser.add_argument_group(
        "several hosts",
        f"The same command is started on every host; for {', '.join(_COMMANDS)}. --output is a folder all share.",
    )
    group.add_argument(
        "--distributed", action="store_true", help="on a cluster jax knows: Cloud TPU, GKE, Slurm and the like"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: where process 0 is")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    group.add_argument(
        "--startup-limit", type=float, default=300, metavar="S", help="seconds the others may take (default: 300)"
    )


@contextlib.contextmanager
def running(args: argparse.Namespace, argv: Sequence[str]) -> Iterator[None]:
    """Starts what the arguments ask for; without them there is one process.

    Raises:
        UserError: arguments that do not go together, or what `hosts.running` refuses.
    """
    named = (args.coordinator, args.processes, args.process)
    if not args.distributed and named == (None, None, None):
        yield
        return
    _check(args)
    from grm_jax.parallel import hosts

    def lost(message: str) -> None:
        from grm_jax.cli import EXIT_PEER

        print(
            f"grm {args.command}: {message}; finished work is kept, run the same command again on all hosts",
            file=sys.stderr,
        )
        leave(EXIT_PEER)

    with hosts.running(*named, _same_for_all(argv), limit=args.startup_limit, lost=lost):
        yield


def are_others_there() -> bool:
    """Tells whether this is one of several processes."""
    from grm_jax.parallel import hosts

    return hosts.count() > 1


def leave(code: int) -> NoReturn:
    """Ends the process now, from whatever thread."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _check(args: argparse.Namespace) -> None:
    from grm_jax.errors import UserError
    from grm_jax.parallel.peers import split_address

    if args.command not in _COMMANDS:
        raise UserError(f"runs on one host only; on several do {', '.join(_COMMANDS)}")
    if args.startup_limit < 1:
        raise UserError(f"--startup-limit must be at least 1, not {args.startup_limit:g}")
    if args.distributed:
        if (args.coordinator, args.processes, args.process) != (None, None, None):
            raise UserError(
                "--distributed finds the hosts by itself; leave out --coordinator, --processes and --process"
            )
        return
    if None in (args.coordinator, args.processes, args.process):
        raise UserError("give --coordinator, --processes and --process together")
    split_address(args.coordinator)
    if args.processes < 1 or not 0 <= args.process < args.processes:
        raise UserError(
            f"--process {args.process}: there are --processes {args.processes}, so it is from 0 to {args.processes - 1}"
        )


def _same_for_all(argv: Sequence[str]) -> list[str]:
    """The command line without what names the process."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--process":
            next(words, None)
        elif not word.startswith("--process="):
            kept.append(word)
    return kept
