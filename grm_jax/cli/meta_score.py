"""`grm meta-score`: gives the stored critiques of a run their meta scores."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grm_jax.data.records import Item
    from grm_jax.judge.run_folder import RunFolder

_DESCRIPTION = """\
Scores the critiques that a run has stored, and stores the scores beside them; nothing is sampled again and the judge is
not loaded. Critiques that have a score keep it; after an interruption the same command goes on."""
_EPILOG = """\
example:
  grm meta-score run --meta-model META --input items.jsonl
  grm report run --vote meta_topk --k-meta 4

META is a model folder of `grm train meta_rm`. Texts of items are not stored in a run, so they are given again."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.profiling import add_profile_arguments

    parser = subparsers.add_parser(
        "meta-score", help="score a run's stored critiques with a meta model", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", metavar="RUN", help="a run folder of `grm judge`")
    parser.add_argument("--meta-model", required=True, metavar="tiny_meta|DIR", help="the meta model")
    parser.add_argument("--input", required=True, metavar="FILE", help="the items that were judged")
    parser.add_argument("--layout", default="items", help="of the input, such as judgebench (default: items)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on CPU, else bfloat16")
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scores; returns 0."""
    import sys

    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.judge.meta import meta_name
    from grm_jax.judge.run_folder import RunFolder

    items = read_jsonl_items(args.input, layout=args.layout)
    name = meta_name(args.meta_model)
    with RunFolder.reopen(args.folder, report=lambda message: print(message, file=sys.stderr)) as folder:
        known = [item for item in items if folder.has_item(item.id)]
        if not known:
            raise UserError(f"{args.input}: holds no item of {args.folder}; give the items that were judged")
        folder.add_items(known)  # adds none, and refuses those that have changed
        folder.check_meta_model(name)
        count = score_missing(folder, known, args.meta_model, name, args.dtype)
    print(f"scored {count} critiques of {len(known)} items; see `grm report {args.folder} --vote meta_topk`")
    return 0


def score_missing(folder: "RunFolder", items: "Sequence[Item]", meta_model: str, name: str, dtype: str | None) -> int:
    """Scores what of the items can vote and has no score, and stores it batch by batch; returns how many were scored."""
    from grm_jax.cli.progress import bar
    from grm_jax.judge.filling import fill_meta_scores
    from grm_jax.judge.meta import MetaModel

    return fill_meta_scores(lambda: MetaModel.load(meta_model, dtype=dtype), folder, items, name, bar=bar)
