"""`grm train`: trains a judge."""

import argparse
from pathlib import Path
from typing import Any

from grm_jax.cli.train_folder import begin, input_names

_REWARDS = ("btrm", "pairrm", "cloud")
_DESCRIPTION = """\
Trains a judge, its meta model, or a scalar reward model.
  sft     next-token training on critiques (SftData; by default the arena's noisy oracle). Without --model it makes a model from
          Gemma2Config, and trains a tokenizer on the arena's text
  meta_rm which sampled critiques of labelled items are right (MetaRm)
  grpo    reinforcement learning: the judge writes critiques of labelled items and is rewarded for those that are right (Grpo)
  btrm, pairrm, cloud
          which response of labelled items is better (RewardModel): a reward for one by itself, for one of two, or for one and a
          critique of it"""
_EPILOG = """\
examples:
  grm train sft --gin_file configs/models/tiny.gin --gin_file configs/runs/sft_arena.gin --output runs/tiny
  grm train grpo --model tiny --input items.jsonl --output runs/grpo --gin.Grpo.steps=100
  grm train btrm --model tiny --input items.jsonl --output runs/btrm --gin.RewardModel.steps=100

The run folder holds config.gin, inputs.json, metrics.jsonl, tensorboard/, plots/, checkpoints/ and, at the end, model/, a Hugging
Face folder that `grm judge --model` reads; with Sft.export_every also model-500/ and so on. The same command again goes on where a
run was killed."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.profiling import add_profile_arguments

    parser = subparsers.add_parser(
        "train", help="train a judge", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("stage", choices=["sft", "meta_rm", "grpo", *_REWARDS], help="what to train")
    parser.add_argument("--model", metavar="DIR", help="start from this model folder instead of from nothing")
    parser.add_argument("--template", metavar="NAME|FILE", help="prompt template (default: what fits the model)")
    parser.add_argument("--input", metavar="FILE", help="all but sft: labelled items, one JSON object a line")
    parser.add_argument(
        "--trajectories",
        action="append",
        default=[],
        metavar="PATH",
        help="a trajectories.jsonl or the run folder of a judge; may be repeated. meta_rm learns from them; grpo leaves "
        "items out whose critiques there are all right; cloud takes one, over the items' single responses (grm data parts)",
    )
    parser.add_argument(
        "--reference", metavar="DIR", help="grpo: hold on to this model instead of the one to start from"
    )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of the saved weights (default: float32)"
    )
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder; a new one, or one to go on in")
    add_gin_arguments(parser)
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, saves, and returns 0."""
    from grm_jax.cli import configure
    from grm_jax.errors import UserError

    configure.load(args.gin_file, args.gin_bindings)
    output = Path(args.output)
    if (output / "model").exists():
        raise UserError(f"{output}: this run is done; give --output a new folder")
    _check_meshes(args.stage)
    return {"sft": _sft, "meta_rm": _meta_rm, "grpo": _grpo}.get(args.stage, _reward)(args, output)


def _meta_rm(args: argparse.Namespace, output: Path) -> int:
    from grm_jax.cli import configure
    from grm_jax.cli.progress import bar
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.spct.meta_stage import run_meta_stage
    from grm_jax.train.meta_rm import MetaRm

    if not (args.model and args.input and args.trajectories):
        raise UserError("meta_rm: give --model, --input (labelled items) and --trajectories")
    settings = configure.make(MetaRm)
    items = read_jsonl_items(args.input)
    begin(output, configure.operative(), input_names(args))
    with bar("training", settings.steps) as advance:
        folder = run_meta_stage(
            args.model, items, args.trajectories, settings, output,
            template=args.template, dtype=args.dtype, progress=advance,
        )  # fmt: skip
    print(f"saved {folder}")
    return 0


def _reward(args: argparse.Namespace, output: Path) -> int:
    from grm_jax.cli import configure
    from grm_jax.cli.progress import bar
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.paradigms.reward_stage import run_reward_stage
    from grm_jax.train.reward_models import RewardModel

    if not (args.model and args.input):
        raise UserError(f"{args.stage}: give --model and --input (labelled items)")
    if (args.stage == "cloud") != (len(args.trajectories) == 1):
        raise UserError(
            f"{args.stage}: --trajectories is for cloud alone, and names one run folder of critiques of single responses"
        )
    settings = configure.make(RewardModel)
    items = read_jsonl_items(args.input)
    begin(output, configure.operative(), input_names(args))
    with bar("training", settings.steps) as advance:
        folder = run_reward_stage(
            args.stage, args.model, items, settings, output, critiques=next(iter(args.trajectories), None),
            template=args.template, dtype=args.dtype, progress=advance,
        )  # fmt: skip
    print(f"saved {folder}")
    return 0


def _grpo(args: argparse.Namespace, output: Path) -> int:
    from grm_jax.cli import configure
    from grm_jax.cli.progress import bar
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.spct.grpo_stage import check_labels, check_reference, run_grpo_stage
    from grm_jax.train.grpo import Grpo

    if not (args.model and args.input):
        raise UserError("grpo: give --model and --input (labelled items)")
    settings = configure.make(Grpo)
    items = read_jsonl_items(args.input)
    check_labels(items)
    if args.reference:
        check_reference(args.model, args.reference)
    begin(output, configure.operative(), input_names(args))
    with bar("training", settings.steps) as advance:
        folder = run_grpo_stage(
            args.model, items, settings, output, reference=args.reference, easy=args.trajectories,
            template=args.template, dtype=args.dtype, progress=advance,
        )  # fmt: skip
    print(f"saved {folder}")
    return 0


def _sft(args: argparse.Namespace, output: Path) -> int:
    from grm_jax.cli import configure
    from grm_jax.cli.progress import bar
    from grm_jax.data.mixture import SftData
    from grm_jax.spct.sft_stage import run_sft_stage
    from grm_jax.train.sft import Sft

    settings, data, streams = configure.make(Sft), configure.make(SftData), configure.streams()
    model = args.model or configure.new_model()
    begin(output, configure.operative(), input_names(args))
    with bar("training", settings.steps) as advance:
        folder = run_sft_stage(
            model, data, streams, settings, output, template=args.template, dtype=args.dtype, progress=advance
        )
    print(f"saved {folder}")
    return 0


def _check_meshes(stage: str) -> None:
    """Refuses meshes on which each process of a run on several hosts would train for itself."""
    from grm_jax.errors import UserError
    from grm_jax.parallel import hosts
    from grm_jax.parallel.layout import layouts

    if hosts.count() == 1:
        return
    if layouts().train.is_local:
        raise UserError("TrainMesh: has the devices of one host; give it as many places as all hosts have devices")
    if stage == "grpo" and layouts().decode.is_local:
        raise UserError("DecodeMesh: rollouts are drawn by all hosts together; give it as many places as TrainMesh has")
