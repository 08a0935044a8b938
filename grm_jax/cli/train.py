"""`grm train`: trains a judge."""

import argparse
import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

INPUTS = "inputs.json"
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
    _begin(output, configure.operative(), _inputs(args))
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
    _begin(output, configure.operative(), _inputs(args))
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
    _begin(output, configure.operative(), _inputs(args))
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
    _begin(output, configure.operative(), _inputs(args))
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


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    """Names what a run is made from, by option: each folder or file by its own name and by what is in it.

    Raises:
        UserError: one of them cannot be read.
    """
    from grm_jax.checkpoints.folder import fingerprint
    from grm_jax.judge.loading import model_folder
    from grm_jax.judge.meta import has_head, meta_name

    def name(model: str | None) -> str | None:
        if model is None:
            return None
        folder = model_folder(model)
        return meta_name(folder) if has_head(folder) else f"{folder.resolve().name}@{fingerprint(folder)}"

    trajectories = [_trajectories_name(Path(source)) for source in args.trajectories]
    return {"model": name(args.model), "reference": name(args.reference), "trajectories": trajectories}


def _trajectories_name(source: Path) -> str:
    from grm_jax.errors import UserError
    from grm_jax.judge.run_store import SAMPLES

    file = source / SAMPLES if source.is_dir() else source
    try:
        with file.open("rb") as f:
            digest = hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        problem = f"--trajectories {source}: {file} cannot be read: {error.strerror}"
        raise UserError(f"{problem}; give a trajectories.jsonl or the run folder of a judge") from error
    return f"{source.resolve().name}@{digest}"


def _begin(output: Path, configuration: str, inputs: dict[str, Any]) -> None:
    """Makes the run folder, or goes on in one that was left with the same configuration and inputs.

    Before its first checkpoint there is nothing to go on with, so another configuration may begin anew.

    Raises:
        UserError: the folder holds something else, or a run of another configuration or of other inputs.
    """
    from grm_jax.checkpoints.files import write_json
    from grm_jax.errors import UserError
    from grm_jax.parallel import hosts
    from grm_jax.train.checkpointing import steps
    from grm_jax.train.loop import CHECKPOINTS

    record = output / "config.gin"
    if record.is_file() and steps(output / CHECKPOINTS):
        _check_unchanged(output, record, configuration, inputs)
        return
    if not record.is_file() and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; give --output a new folder")
    hosts.wait("the run folder is looked at")
    if hosts.is_leader():
        output.mkdir(parents=True, exist_ok=True)
        record.write_text(configuration, encoding="utf-8")
        write_json(output, INPUTS, inputs)
    hosts.wait("the run folder is made")


def _check_unchanged(output: Path, record: Path, configuration: str, inputs: dict[str, Any]) -> None:
    from grm_jax.checkpoints.files import read_json
    from grm_jax.errors import UserError

    before, now = (_of_the_result(text) for text in (record.read_text(encoding="utf-8"), configuration))
    if before != now:
        changed = next((new for old, new in zip_longest(before, now) if old != new), None)
        raise UserError(
            f"{record}: the run was begun with another configuration (now: {changed}); give another --output"
        )
    if not (output / INPUTS).exists():  # begun before inputs were kept
        return
    begun = read_json(output, INPUTS)
    for option, now in inputs.items():
        if begun.get(option) != now:
            then, asked = (_shown(value) for value in (begun.get(option), now))
            raise UserError(
                f"{output}: the run was begun with --{option} {then}, now {asked} is asked; "
                "give it as it was, or another --output"
            )


def _of_the_result(configuration: str) -> list[str]:
    """Settings that the result depends on: a run may go on on other meshes."""
    passed_over = ("#", "TrainMesh.", "DecodeMesh.")
    return [line for line in configuration.splitlines() if line and not line.startswith(passed_over)]


def _shown(names: str | list[str] | None) -> str:
    return (names if isinstance(names, str) else ", ".join(names or ())) or "left out"
