"""`grm train`: trains a judge."""

import argparse
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Trains a judge, or its meta model. `sft` is next-token training on critiques (SftData; by default the arena's noisy oracle).
`meta_rm` learns from sampled critiques of labelled items which of them are right.
Without --model a model is made from Gemma2Config and a tokenizer is trained on the arena's text."""
_EPILOG = """\
example:
  grm train sft --gin_file configs/models/tiny.gin --gin_file configs/runs/sft_arena.gin --output runs/tiny

The run folder holds config.gin, metrics.jsonl, tensorboard/, plots/, checkpoints/ and, at the end, model/, a Hugging Face folder
that `grm judge --model` reads; with Sft.export_every also model-500/ and so on. The same command again goes on where a run was
killed."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments

    parser = subparsers.add_parser(
        "train", help="train a judge", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("stage", choices=["sft", "meta_rm"], help="what to train")
    parser.add_argument("--model", metavar="DIR", help="start from this model folder instead of from nothing")
    parser.add_argument(
        "--template", metavar="NAME|FILE", help="prompt template (default: tiny; for meta_rm what fits the model)"
    )
    parser.add_argument("--input", metavar="FILE", help="meta_rm: the labelled items that the critiques are about")
    parser.add_argument(
        "--trajectories",
        action="append",
        default=[],
        metavar="PATH",
        help="meta_rm: a trajectories.jsonl or the run folder of a judge; may be repeated",
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
    return {"sft": _sft, "meta_rm": _meta_rm}[args.stage](args, output)


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
    _begin(output, configure.operative())
    with bar("training", settings.steps) as advance:
        folder = run_meta_stage(
            args.model, items, args.trajectories, settings, output,
            template=args.template, dtype=args.dtype, progress=advance,
        )  # fmt: skip
    print(f"saved {folder}")
    return 0


def _sft(args: argparse.Namespace, output: Path) -> int:
    import jax
    import numpy as np

    from grm_jax.checkpoints.folder import copy_side_files, load_params
    from grm_jax.checkpoints.huggingface import save_hugging_face
    from grm_jax.cli import configure
    from grm_jax.cli.progress import bar
    from grm_jax.data.arena.corpus import corpus, pieces
    from grm_jax.data.critiques import ArenaCritiques
    from grm_jax.data.mixture import SftData, sft_examples
    from grm_jax.data.packing import packed_batches
    from grm_jax.judge.loading import model_folder
    from grm_jax.model.config import Gemma2Config
    from grm_jax.model.gemma2 import init_params
    from grm_jax.text.sentencepiece_training import train_sentencepiece
    from grm_jax.text.template_file import load_template, template_text
    from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
    from grm_jax.train.sft import Sft, train_sft

    sft, examples = configure.make(Sft), sft_examples(configure.make(SftData), configure.make(ArenaCritiques))
    wording = args.template or "tiny"
    template = load_template(wording)
    text = None if args.model else configure.make(configure.ArenaTokenizer)
    config = load_params(model_folder(args.model), dtype="float32")[0] if args.model else configure.make(Gemma2Config)
    _begin(output, configure.operative())
    if text is None:
        source = model_folder(args.model)
        params = load_params(source, dtype="float32")[1]
    else:
        source = output / "tokenizer"
        train_sentencepiece(corpus("train", text.examples, text.seed), source, config.vocab_size, user_defined=pieces())
        params = init_params(config, jax.random.key(sft.seed))
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, config.vocab_size)
    batches = packed_batches(examples, template, tokenizer, rows=sft.rows, length=sft.length)

    def save(params: Any, name: str) -> Path:
        # Renamed when it is whole: a folder named model says that the run is done.
        folder = output / f".{name}.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        save_hugging_face(folder, config, jax.tree.map(np.asarray, params), dtype=args.dtype)
        copy_side_files(source, folder)
        (folder / "template.toml").write_text(template_text(wording), encoding="utf-8")
        shutil.rmtree(output / name, ignore_errors=True)
        return folder.rename(output / name)

    with bar("training", sft.steps) as advance:
        params = train_sft(
            config, params, batches, sft, output, progress=advance,
            export=lambda number, params: print(f"saved {save(params, f'model-{number}')}"),
        )  # fmt: skip
    print(f"saved {save(params, 'model')}")
    return 0


def _begin(output: Path, configuration: str) -> None:
    """Makes the run folder, or goes on in one that was left with the same configuration.

    Raises:
        UserError: the folder holds something else, or a run of another configuration.
    """
    from grm_jax.errors import UserError

    record = output / "config.gin"
    if record.is_file():
        before = record.read_text(encoding="utf-8")
        if before != configuration:
            changed = next(
                (new for old, new in zip_longest(before.splitlines(), configuration.splitlines()) if old != new), None
            )
            raise UserError(
                f"{record}: the run was begun with another configuration (now: {changed}); give another --output"
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; give --output a new folder")
    output.mkdir(parents=True, exist_ok=True)
    record.write_text(configuration, encoding="utf-8")
