"""`grm spct`: the whole of SPCT from one gin file, in one run folder, with one report."""

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Self-principled critique tuning from beginning to end. Five stages, each in a folder of its own under RUN:
  base   a judge made from nothing (not with Spct.base, which names a model folder to start from)
  rft    rejective fine-tuning: sampled critiques, wrong and easy ones rejected, learnt together with general instructions
  grpo   rule-based reinforcement learning
  meta   the meta reward model, which learns which critiques are right
  curve  every judge on the evaluation items, for votes over many critiques, plain and guided
and RUN/report: accuracy against the number of critiques, differences between stages, time.
The same command again goes on where it was stopped, and passes over what is finished."""
_EPILOG = """\
examples:
  grm spct --gin_file configs/runs/spct_tiny.gin --output runs/spct
  grm spct --gin_file configs/runs/spct_tiny.gin --output runs/spct --only base,rft
  grm spct --gin_file configs/runs/spct_tiny.gin --output runs/no-rl --skip grpo --gin.Spct.base="'runs/spct/base/model'"
  grm spct --gin_file configs/runs/spct_27b.gin --output runs/27b --gin.Spct.base="'gemma-2-27b'"

Settings of the two supervised stages stand in scopes: base/Sft.steps = 1000, rft/Sft.steps = 300.
A stage that is skipped but finished in RUN is used all the same.

exit codes: 0 done; 3 done, but prompts of some evaluation items did not fit; 2 a mistake in what was given; 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.pipeline_arguments import add_pipeline_arguments
    from grm_jax.cli.profiling import add_profile_arguments

    parser = subparsers.add_parser(
        "spct", help="train a judge and its meta model, and measure them", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_pipeline_arguments(parser, "base,rft", "grpo,meta")
    parser.add_argument("--seed", type=int, help="added to the seeds of all stages, as Spct.seed (default: 0)")
    add_gin_arguments(parser)
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the stages and writes the report; returns the exit code."""
    from grm_jax.cli import EXIT_OK, EXIT_UNJUDGED, configure
    from grm_jax.cli.outputs import keep_compiled
    from grm_jax.cli.pipeline_arguments import check_output, chosen_stages
    from grm_jax.cli.progress import bar
    from grm_jax.evaluate.curve_tables import summary
    from grm_jax.spct.recipe import STAGES
    from grm_jax.spct.run import run_spct

    chosen = chosen_stages(args.only, args.skip, STAGES)
    configure.load(args.gin_file, args.gin_bindings, configure.SCOPES)
    recipe = configure.recipe(chosen, **({} if args.seed is None else {"seed": args.seed}))
    output = Path(args.output)
    check_output(output)

    def say(message: str) -> None:
        print(message, flush=True)

    keep_compiled(output)
    result = run_spct(recipe, output, chosen, configure.operative(), bar=bar, report=say)
    if result is None:
        return EXIT_OK
    print(summary(result.report))
    print(f"wrote {result.folder}")
    if result.too_long:
        print(f"{result.too_long} evaluation items not judged by every judge: their prompts are too long")
    return EXIT_UNJUDGED if result.too_long else EXIT_OK
