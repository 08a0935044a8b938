"""`grm data`: makes data sets."""

import argparse
from typing import Any

_EPILOG = """\
example:
  grm data arena --split test --count 200 --seed 0 --output items.jsonl"""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "data", help="make data sets", description="Makes data sets.", epilog=_EPILOG, formatter_class=raw
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    arena = kinds.add_parser(
        "arena", help="items of the synthetic preference world", epilog=_EPILOG, formatter_class=raw,
        description="Writes labelled items of the arena, a world where the right answer and every fault are known.",
    )  # fmt: skip
    arena.add_argument("--split", required=True, help="train, valid or test")
    arena.add_argument("--count", type=int, required=True, help="items to write")
    arena.add_argument("--seed", type=int, default=0, help="of the items (default: 0)")
    arena.add_argument("--families", help="seen, held_out or all (default: seen in train, all in valid and test)")
    arena.add_argument("--output", required=True, metavar="FILE", help="JSONL file")
    arena.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the items; returns 0."""
    from grm_jax.cli.outputs import check_file
    from grm_jax.data.arena.world import items
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.errors import UserError

    if args.count < 1:
        raise UserError(f"--count must be at least 1, not {args.count}")
    check_file("--output", args.output)
    write_jsonl(args.output, items(args.split, args.count, args.seed, args.families))
    print(f"wrote {args.count} items to {args.output}")
    return 0
