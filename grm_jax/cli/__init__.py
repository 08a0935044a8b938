"""The `grm` command: each subcommand is a module with `add_parser(subparsers)` and `run(args) -> exit code`."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from grm_jax import __version__
from grm_jax.cli import hosts_arguments, profiling
from grm_jax.cli.gin_arguments import split_bindings
from grm_jax.errors import Stopped, UserError

EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_UNJUDGED = 3
EXIT_PEER = 4
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 143

_EPILOG = """\
exit codes:
  0    done
  2    a mistake in what was given: one line on standard error says what, where and what to do
  3    done, but some items were not judged: a prompt that does not fit, or lines left out by --on-error skip
  4    another process of this run, on another host, has ended; run the same command again on all of them to go on
  130  interrupted; finished work is kept, run the same command again to go on
  143  told to stop (SIGTERM) while it trained: its last step is saved, run the same command again to go on

examples:
  grm data arena --split test --count 200 --output items.jsonl
  grm judge --model tiny --input items.jsonl --output run --k 8
  grm report run --k 1,2,4,8
"""


class _Parser(argparse.ArgumentParser):
    """Ends a mistake in the arguments with one line, as every other mistake; subparsers are of this class too."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    from grm_jax.cli import (
        compile,
        convert,
        data,
        eval,
        info,
        judge,
        meta_score,
        overall,
        paradigms,
        report,
        rft,
        spct,
        train,
    )

    parser = _Parser(
        prog="grm",
        description="Generative reward models with inference-time scaling: sample k critiques, vote.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"grm_jax {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    hosts_arguments.add_hosts_arguments(parser)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (judge, meta_score, report, eval, overall, data, rft, train, spct, paradigms, compile, convert, info):
        module.add_parser(subparsers)
    _add_debug(subparsers)
    return parser


def _add_debug(subparsers: argparse._SubParsersAction) -> None:
    """Lets --debug stand behind the subcommand too, at any depth."""
    for subparser in subparsers.choices.values():
        subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        for action in subparser._actions:
            if isinstance(action, argparse._SubParsersAction):
                _add_debug(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    rest, bindings = split_bindings(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(rest)
    args.gin_bindings = bindings
    handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if bindings and not hasattr(args, "gin_file"):
            raise UserError(f"--gin.{bindings[0]}: this subcommand takes no gin settings")
        with hosts_arguments.running(args, rest + bindings), profiling.profiling(args):
            code = args.run(args)
        sys.stdout.flush()  # a reader that has gone is noticed here, not when the interpreter ends
        return code
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        print(f"grm {args.command}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Stopped as stopped:
        print(f"grm {args.command}: told to stop; {stopped} is saved", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        if args.debug:
            traceback.print_exc()
        print(f"grm {args.command}: interrupted; finished work is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, say) has gone: nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    finally:
        signal.signal(signal.SIGTERM, handler)


def command() -> NoReturn:
    """The command `grm`: `main`, and the end of the process."""
    try:
        code = main()
    except Exception:
        if not hosts_arguments.are_others_there():
            raise
        traceback.print_exc()
        code = 1
    if code in (EXIT_INTERRUPTED, EXIT_STOPPED) or (
        code not in (EXIT_OK, EXIT_UNJUDGED) and hosts_arguments.are_others_there()
    ):
        # Everything is on the disk. Python would tear down the threads of a computation that still runs, and crash at times; and
        # jax would wait for the other hosts.
        hosts_arguments.leave(code)
    sys.exit(code)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
