"""The gin arguments every configured subcommand takes: `--gin_file F` and `--gin.Name.setting=value`."""

import argparse
from collections.abc import Sequence


def add_gin_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --gin_file; `--gin.X.y=v` arguments are taken apart by `split_bindings`."""
    group = parser.add_argument_group(
        "configuration", "also --gin.NAME.setting=VALUE for single settings, which win over files"
    )
    group.add_argument("--gin_file", action="append", default=[], metavar="F", help="a gin file; later ones win")


def split_bindings(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits `--gin.Name.setting=value` arguments off; returns (other arguments, bindings)."""
    bindings = []
    rest = []
    for argument in argv:
        if argument.startswith("--gin."):
            bindings.append(argument.removeprefix("--gin."))
        else:
            rest.append(argument)
    return rest, bindings
