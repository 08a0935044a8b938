"""`grm data overlap`: which questions of a benchmark a training set has already."""

import argparse
from typing import Any

EXAMPLE = "  grm data overlap --train sft.jsonl --benchmark judgebench --data judgebench/gpt.jsonl"
_DESCRIPTION = """\
Looks for runs of n words (13, unless told otherwise) of a benchmark's prompts and responses in training sets, and tells by
subset how many questions share one. Case, punctuation and line breaks play no part. All strings of a training row count."""
_EPILOG = f"""\
examples:
{EXAMPLE}
  grm data overlap --train hf:openbmb/UltraFeedback@REVISION --input items.jsonl --words 8 --output overlap.jsonl"""


def add_parser(kinds: Any) -> None:
    """Registers the kind among those of `grm data`."""
    parser = kinds.add_parser(
        "overlap", help="questions of a benchmark that a training set has", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--train", required=True, action="append", metavar="SPEC", help="training rows; may be repeated"
    )
    questions = parser.add_mutually_exclusive_group(required=True)
    questions.add_argument("--input", metavar="FILE", help="items, one JSON object a line")
    questions.add_argument("--benchmark", metavar="NAME", help="as for grm eval")
    parser.add_argument("--data", metavar="PATH_OR_HUB", help="of the benchmark")
    parser.add_argument("--partial", action="store_true", help="allow benchmark data that lacks rows")
    parser.add_argument("--words", type=int, default=13, metavar="N", help="words a run (default: 13)")
    parser.add_argument("--output", metavar="FILE", help="write what each question shares, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Looks and prints; returns 0."""
    import dataclasses
    import json
    from collections.abc import Iterator

    from rich.console import Console

    from grm_jax.cli.outputs import check_file
    from grm_jax.cli.progress import bar
    from grm_jax.cli.sampling_arguments import check_counts
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.data.overlap import find_overlap
    from grm_jax.data.sources import open_source

    check_counts(args, "words")
    check_file("--output", args.output)
    items = _items(args)
    sources = [open_source(spec) for spec in args.train]

    with bar("training rows", sum(map(len, sources))) as advance:

        def rows() -> Iterator[tuple[str, Any]]:
            done = 0
            for source in sources:
                for index in range(len(source)):
                    yield source.where(index), source[index]
                    done += 1
                    advance(done, "")

        found = find_overlap(items, rows(), args.words)
    if args.output:
        write_jsonl(args.output, map(dataclasses.asdict, found))
    groups = {
        "all": found,
        **{name: [f for f in found if f.group == name] for name in sorted({f.group for f in found})},
    }
    figures = {name: _figures(members) for name, members in groups.items()}
    if args.json:
        print(json.dumps({"words": args.words, "groups": figures}, indent=1))
        return 0
    console = Console()
    console.print(_table(figures if len(groups) > 2 else {"all": figures["all"]}, args.words))
    for each in sorted((each for each in found if each.row), key=lambda each: -each.most)[:10]:
        console.print(f"{100 * each.most:.0f}% of {each.id}: {each.row}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _items(args: argparse.Namespace) -> Any:
    from grm_jax.benchmarks.loading import load
    from grm_jax.benchmarks.registry import BENCHMARKS
    from grm_jax.data import fields
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError

    if args.input:
        if args.data:
            raise UserError("--data belongs to a --benchmark; leave it out")
        return read_jsonl_items(args.input)
    benchmark = BENCHMARKS[fields.read_choice(args.benchmark, BENCHMARKS, "grm data overlap", "--benchmark")]
    return [item for case in load(benchmark, args.data, partial=args.partial).cases for item in case.items]


def _figures(found: Any) -> dict[str, int]:
    return {
        "questions": len(found),
        "prompt": sum(bool(each.prompt) for each in found),
        "responses": sum(bool(each.responses) for each in found),
        "either": sum(each.row is not None for each in found),
        "half": sum(each.most >= 0.5 for each in found),
        "too_short": sum(each.prompt is None and each.responses is None for each in found),
    }


def _table(figures: dict[str, dict[str, int]], words: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Questions that share {words} words in a row with the training set", title_justify="left")
    table.caption = "prompt, responses, either: % of the questions; half: % that share half of their runs or more"
    names = ("", "questions", "prompt", "responses", "either", "half", "too short")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    for group, row in figures.items():
        total = row["questions"]
        shares = [f"{100 * row[name] / total:.1f}" for name in ("prompt", "responses", "either", "half")]
        table.add_row(Text(group), str(total), *shares, str(row["too_short"]))
    return table
