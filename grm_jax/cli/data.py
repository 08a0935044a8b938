"""`grm data`: makes data sets; `cli.overlap` compares them."""

import argparse
from typing import Any

_ARENA = "  grm data arena --split test --count 200 --seed 0 --output items.jsonl"
_PARTS = "  grm data parts --input items.jsonl --of singles --output singles.jsonl"
_CONVERT = "  grm data convert --from hf:NCSOFT/offsetbias --layout offsetbias --output items.jsonl"
_CONVERT_DESCRIPTION = """\
Writes the items of a preference set. SPEC is a .jsonl, .jsonl.gz, .json or .parquet file, a folder of .parquet files,
tfds:NAME[:SPLIT][@DATA_DIR] or hf:ID[/DATA_DIR][@REVISION][:SPLIT]. Records without a unique best response are left out
and counted; docs/data.md lists the layouts."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli import overlap

    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "data", help="make data sets, and compare them", description="Makes data sets, and compares them.",
        epilog=f"examples:\n{_ARENA}\n{_PARTS}\n{_CONVERT}\n{overlap.EXAMPLE}", formatter_class=raw,
    )  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    arena = kinds.add_parser(
        "arena", help="items of the synthetic preference world", epilog=f"example:\n{_ARENA}", formatter_class=raw,
        description="Writes labelled items of the arena, a world where the right answer and every fault are known.",
    )  # fmt: skip
    arena.add_argument("--split", required=True, help="train, valid or test")
    arena.add_argument("--count", type=int, required=True, help="items to write")
    arena.add_argument("--seed", type=int, default=0, help="of the items (default: 0)")
    arena.add_argument("--families", help="seen, held_out or all (default: seen in train, all in valid and test)")
    arena.add_argument("--principles", action="store_true", help="give each the principles that weigh most in it")
    arena.add_argument(
        "--reference", action="store_true", help="give each a reference answer, which meets all that is asked"
    )
    arena.add_argument("--output", required=True, metavar="FILE", help="JSONL file")
    arena.set_defaults(run=run_arena)
    parts = kinds.add_parser(
        "parts", help="responses one by one, or two at a time", epilog=f"example:\n{_PARTS}", formatter_class=raw,
        description="Writes an item for each response (ID#0, ...) or for each pair of responses (ID#0-1, ...) of the items.",
    )  # fmt: skip
    parts.add_argument("--input", required=True, metavar="FILE", help="items, one JSON object a line")
    parts.add_argument("--of", required=True, choices=["singles", "pairs"], help="one response, or two")
    parts.add_argument("--output", required=True, metavar="FILE", help="JSONL file")
    parts.set_defaults(run=run_parts)
    convert = kinds.add_parser(
        "convert", help="items of a preference set", epilog=f"example:\n{_CONVERT}", formatter_class=raw,
        description=_CONVERT_DESCRIPTION,
    )  # fmt: skip
    convert.add_argument("--from", dest="source", required=True, metavar="SPEC", help="where the rows are")
    convert.add_argument("--layout", required=True, help="of the rows, such as skywork")
    convert.add_argument("--output", required=True, metavar="FILE", help="JSONL file")
    convert.set_defaults(run=run_convert)
    overlap.add_parser(kinds)


def run_arena(args: argparse.Namespace) -> int:
    """Writes the items; returns 0."""
    from grm_jax.cli.outputs import check_file
    from grm_jax.data.arena.aids import aided
    from grm_jax.data.arena.world import generate
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.errors import UserError

    if args.count < 1:
        raise UserError(f"--count must be at least 1, not {args.count}")
    check_file("--output", args.output)
    examples = (generate(args.split, index, args.seed, args.families) for index in range(args.count))
    write_jsonl(
        args.output, (aided(each, principles=args.principles, with_reference=args.reference) for each in examples)
    )
    print(f"wrote {args.count} items to {args.output}")
    return 0


def run_parts(args: argparse.Namespace) -> int:
    """Writes the parts; returns 0."""
    from grm_jax.cli.outputs import check_file
    from grm_jax.data.jsonl import read_jsonl_items, write_jsonl
    from grm_jax.data.parts import pairs, singles
    from grm_jax.data.records import item_to_json

    check_file("--output", args.output)
    found = [
        part for item in read_jsonl_items(args.input) for part in {"singles": singles, "pairs": pairs}[args.of](item)
    ]
    write_jsonl(args.output, map(item_to_json, found))
    print(f"wrote {len(found)} items to {args.output}")
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Writes the items; returns 0."""
    from collections import Counter
    from collections.abc import Iterator

    from grm_jax.cli.outputs import check_file
    from grm_jax.data import fields
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.data.layouts import LAYOUTS
    from grm_jax.data.preferences import items_from_source
    from grm_jax.data.records import item_to_json
    from grm_jax.data.sources import open_source
    from grm_jax.errors import UserError

    fields.read_choice(args.layout, LAYOUTS, "grm data convert", "--layout")
    check_file("--output", args.output)
    source = open_source(args.source)
    dropped: Counter[str] = Counter()
    written = 0

    def objects() -> Iterator[dict[str, Any]]:
        nonlocal written
        for item in items_from_source(source, args.layout, dropped):
            written += 1
            yield item_to_json(item)
        if not written:
            raise UserError(f"{args.source}: no record has a unique best response; check --layout")

    write_jsonl(args.output, objects())
    print(f"wrote {written} items to {args.output}")
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        print(f"left out {dropped.total()} of {written + dropped.total()}: {reasons}")
    return 0
