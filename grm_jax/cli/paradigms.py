"""`grm paradigms`: kinds of reward models trained on one data path and compared in one table."""

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Trains and compares kinds of reward models: scalar (BTRM, PairRM), semi-scalar (CLoud), and generative (LLM-as-a-Judge, pointwise
GRM with principles of its own, given ones, none, or a reference answer), beside a random choice and the shortest response.
All start from one base model. Stages, each in a folder of its own under RUN:
  SIZE/base, SIZE/grm, SIZE/btrm          at every size of Paradigms.sizes: small, medium, large
  large/plain, large/judge, large/critic,
  large/cloud, large/pairrm               at the largest alone
  SIZE/evaluation                         max(Paradigms.ks) samples of each paradigm
and RUN/report: accuracy at every k with intervals, differences to the GRM, sizes against k.
The same command again goes on where it was stopped, and passes over what is finished."""
_EPILOG = """\
examples:
  grm paradigms --gin_file configs/runs/paradigms_tiny.gin --output runs/paradigms
  grm paradigms --gin_file configs/runs/paradigms_tiny.gin --output runs/paradigms --only small/base,small/grm
  grm paradigms --gin_file configs/runs/paradigms_tiny.gin --output runs/paradigms --gin.Paradigms.base="'runs/spct/base/model'"

Settings of stages and shapes of sizes stand in scopes: judge/Sft.steps = 100, small/Gemma2Config.model_dim = 64."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.pipeline_arguments import add_pipeline_arguments

    parser = subparsers.add_parser(
        "paradigms", help="train and compare kinds of reward models", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_pipeline_arguments(parser, "large/base,large/grm", "large/plain")
    parser.add_argument("--seed", type=int, help="added to the seeds of all stages, as Paradigms.seed (default: 0)")
    add_gin_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the stages and writes the report; returns the exit code."""
    from grm_jax.cli import EXIT_OK, configure, configure_paradigms
    from grm_jax.cli.outputs import keep_compiled
    from grm_jax.cli.pipeline_arguments import check_output, chosen_stages
    from grm_jax.cli.progress import bar
    from grm_jax.paradigms.run import REPORT, run_paradigms

    configure.load(args.gin_file, args.gin_bindings, configure_paradigms.SCOPES)
    recipe = configure_paradigms.recipe(**({} if args.seed is None else {"seed": args.seed}))
    chosen = chosen_stages(args.only, args.skip, recipe.paradigms.stages)
    output = Path(args.output)
    check_output(output)

    def say(message: str) -> None:
        print(message, flush=True)

    keep_compiled(output)
    report = run_paradigms(recipe, output, chosen, configure.operative(), bar=bar, report=say)
    if report:
        from grm_jax.evaluate.paradigm_tables import summary

        print(summary(report))
        print(f"wrote {output / REPORT}")
    return EXIT_OK
