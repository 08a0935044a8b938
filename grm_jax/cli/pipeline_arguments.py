"""What the commands that run a pipeline of stages have in common."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_pipeline_arguments(parser: argparse.ArgumentParser, only: str, skip: str) -> None:
    """Adds --output, --only and --skip; `only` and `skip` are examples of stages."""
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder; a new one, or one to go on in")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGES", help=f"run these stages alone, such as {only}")
    which.add_argument("--skip", metavar="STAGES", help=f"do not run these stages, such as {skip}")


def chosen_stages(only: str | None, skip: str | None, stages: Sequence[str]) -> list[str]:
    """The stages to run, in their order.

    Raises:
        UserError: one is not known, or none is left.
    """
    from grm_jax.errors import UserError

    option, names = ("--only", only) if only is not None else ("--skip", skip or "")
    given = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in given if name not in stages]
    if unknown:
        raise UserError(f"{option} {names}: {unknown[0]!r} is no stage; the stages are {', '.join(stages)}")
    chosen = [name for name in stages if (name in given) == (only is not None)]
    if not chosen:
        raise UserError(f"{option} {names}: leaves no stage to run; the stages are {', '.join(stages)}")
    return chosen


def check_output(output: Path) -> None:
    """Refuses a folder that holds something else than a run.

    Raises:
        UserError: it does.
    """
    from grm_jax.errors import UserError
    from grm_jax.spct.pipeline import CONFIG

    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not (output / CONFIG).is_file():
        raise UserError(f"{output}: exists already; give --output a new folder, or the folder of a run to go on with")
