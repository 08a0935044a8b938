"""`grm train`: trains a judge."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Trains a judge. `sft` is next-token training on critiques; its source is the arena's noisy oracle.
Without --model a model is made from Gemma2Config and a tokenizer is trained on the arena's text."""
_EPILOG = """\
example:
  grm train sft --gin_file configs/models/tiny.gin --gin_file configs/runs/sft_arena.gin --output runs/tiny

The run folder holds config.gin, metrics.jsonl and model/, a Hugging Face folder that `grm judge --model` reads; with
Sft.save_every also model-500/, model-1000/ and so on."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments

    parser = subparsers.add_parser(
        "train", help="train a judge", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("stage", choices=["sft"], help="what to train")
    parser.add_argument("--model", metavar="DIR", help="start from this model folder instead of from nothing")
    parser.add_argument("--template", default="tiny", metavar="NAME|FILE", help="prompt template (default: tiny)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of the saved weights (default: float32)"
    )
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder; it must not exist yet")
    add_gin_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, saves, and returns 0."""
    from grm_jax.cli import configure
    from grm_jax.errors import UserError

    configure.load(args.gin_file, args.gin_bindings)
    output = Path(args.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; give --output a new folder")

    import jax
    import numpy as np

    from grm_jax.checkpoints.folder import copy_side_files, load_params
    from grm_jax.checkpoints.huggingface import save_hugging_face
    from grm_jax.cli.progress import bar
    from grm_jax.data.arena.corpus import corpus, pieces
    from grm_jax.data.critiques import ArenaCritiques
    from grm_jax.data.packing import packed_batches
    from grm_jax.judge.loading import model_folder
    from grm_jax.model.config import Gemma2Config
    from grm_jax.model.gemma2 import init_params
    from grm_jax.text.sentencepiece_training import train_sentencepiece
    from grm_jax.text.template_file import load_template, template_text
    from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
    from grm_jax.train.sft import Sft, train_sft

    sft, critiques = configure.make(Sft), configure.make(ArenaCritiques)
    template = load_template(args.template)
    if args.model:
        source = model_folder(args.model)
        config, params = load_params(source, dtype="float32")
    else:
        source = output / "tokenizer"
        config, text = configure.make(Gemma2Config), configure.make(configure.ArenaTokenizer)
        train_sentencepiece(corpus("train", text.examples, text.seed), source, config.vocab_size, user_defined=pieces())
        params = init_params(config, jax.random.key(sft.seed))
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, config.vocab_size)
    batches = packed_batches(critiques, template, tokenizer, rows=sft.rows, length=sft.length)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.gin").write_text(configure.operative(), encoding="utf-8")

    def save(params: Any, name: str) -> Path:
        folder = output / name
        save_hugging_face(folder, config, jax.tree.map(np.asarray, params), dtype=args.dtype)
        copy_side_files(source, folder)
        (folder / "template.toml").write_text(template_text(args.template), encoding="utf-8")
        return folder

    with open(output / "metrics.jsonl", "w", encoding="utf-8") as log, bar("training", sft.steps) as advance:
        start = time.perf_counter()
        for number, (state, metrics) in enumerate(train_sft(config, params, batches, sft), 1):
            if number % 20 == 0 or number == sft.steps:
                row = {"step": number} | {name: float(value) for name, value in metrics.items()}
                row["seconds"] = round(time.perf_counter() - start, 2)
                log.write(json.dumps(row) + "\n")
                log.flush()
                advance(number, f"loss {row['loss']:.4f}")
            if number == sft.steps:
                folder = save(state.params, "model")
            elif sft.save_every and number % sft.save_every == 0:
                save(state.params, f"model-{number}")
    print(f"saved {folder}")
    return 0
