"""`grm rft`: samples critiques of labelled items and keeps the right ones for fine-tuning."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grm_jax.spct.rft import Counts, Report

_DESCRIPTION = """\
Rejective fine-tuning's data: samples critiques of labelled items, rejects the wrong ones and the items that are too easy,
and writes the rest as training examples. Every critique is kept in the run folder the moment its batch is done; after an
interruption the same command goes on where it stopped."""
_EPILOG = """\
examples:
  grm rft --model tiny --input items.jsonl --output run
  grm rft --model DIR --input items.jsonl --output run --samples 3 --hinted --temperature 1
  grm rft --model DIR --input items.jsonl --output run --gin.Rft.reject_easy=False

The run folder holds accepted.jsonl (training examples), trajectories.jsonl (all critiques without a hint, for the meta
reward model), report.json, and the samples as `grm judge` keeps them; hinted/ holds those drawn with a hint.

exit codes: 0 all items sampled; 3 some not (no label, a prompt that does not fit, or a line left out by --on-error skip);
2 a mistake in what was given; 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.profiling import add_profile_arguments
    from grm_jax.cli.sampling_arguments import add_numeric_arguments

    parser = subparsers.add_parser(
        "rft", help="sample critiques to learn from and reject the wrong ones", description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", default="tiny", metavar="tiny|DIR", help="the judge that writes (default: tiny)")
    parser.add_argument("--input", required=True, metavar="FILE", help="labelled items, one JSON object a line")
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder, new or one to go on with")
    parser.add_argument("--layout", default="items", help="of the input, such as judgebench (default: items)")
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what a malformed line does")
    parser.add_argument("--limit", type=int, metavar="N", help="take only the first N items")
    parser.add_argument("--template", metavar="NAME|FILE", help="prompt template (default: the model's own, else grm)")
    add_numeric_arguments(parser)
    settings = parser.add_argument_group("settings, which gin may give as Rft.NAME too")
    settings.add_argument("--samples", type=int, help="critiques an item without a hint, N_RFT (default: 3)")
    settings.add_argument(
        "--hinted", action="store_true", default=None, help="one more, with a hint, where none of them is right"
    )
    settings.add_argument("--temperature", type=float, help="0 is greedy (default: 0.5)")
    settings.add_argument(
        "--max-new", type=int, metavar="N", help="tokens a critique (default: 1024, or half the context)"
    )
    settings.add_argument("--rows", type=int, help="critiques decoded together (default: 64)")
    settings.add_argument("--seed", type=int, help="of orders and samples (default: 0)")
    add_gin_arguments(parser)
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Samples and rejects; returns the exit code."""
    import sys

    from grm_jax.cli import EXIT_OK, EXIT_UNJUDGED, configure
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.spct.rejection import Rft

    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, not {args.limit}")
    configure.load(args.gin_file, args.gin_bindings)
    names = ("samples", "hinted", "temperature", "max_new", "rows", "seed")
    settings = configure.make(Rft, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    notes: list[str] = []
    items = read_jsonl_items(args.input, layout=args.layout, on_error=args.on_error, report=notes.append)[: args.limit]
    for note in notes:
        print(f"grm rft: {note}", file=sys.stderr)
    skipped = max(0, len(notes) - 1)  # one note a line left out, and one with their count

    from grm_jax.cli.outputs import keep_compiled
    from grm_jax.cli.progress import bar
    from grm_jax.judge.run_folder import RunFolder
    from grm_jax.parallel import hosts
    from grm_jax.spct.rft import ACCEPTED_FILE, load_judge, sample_and_reject

    def warn(message: str) -> None:
        print(message, file=sys.stderr)

    numbers = {"dtype": args.dtype, "weights": args.weights, "cache": args.cache}
    judge = load_judge(args.model, settings, template=args.template, **numbers)
    with RunFolder.open(args.output, judge.identity(settings.seed), report=warn) as folder:
        keep_compiled(folder.path)
        folder.keep_configuration(configure.operative())
        report = sample_and_reject(judge, folder, items, settings, bar=bar, report=warn)
    if not hosts.is_leader():
        return EXIT_OK
    print("\n".join(_lines(report)))
    unfit = report.all.unlabelled + report.all.prompt_too_long
    if unfit or skipped:
        left_out = f"{report.all.unlabelled} without a label, {report.all.prompt_too_long} prompts too long"
        print(f"{unfit + skipped} not sampled: {skipped} malformed lines, {left_out}")
    print(f"wrote {report.all.kept} examples to {folder.path / ACCEPTED_FILE}")
    return EXIT_UNJUDGED if unfit or skipped else EXIT_OK


def _lines(report: "Report") -> list[str]:
    """The report as text: the outcomes, then a table by domain."""
    total = report.all
    lines = [f"{total.items} items: {total.too_easy} too easy, {total.hard} without a right sample"]
    for name, found in (("samples", total.samples), ("hinted samples", total.hinted)):
        if found.total():
            named = ", ".join(f"{count} {what}" for what, count in found.items() if count)
            lines.append(f"{found.total()} {name}: {named}")
    if total.hinted_prompt_too_long:
        lines.append(f"{total.hinted_prompt_too_long} prompts are too long with the hint")
    rows: list[tuple[str, ...]] = [
        ("domain", "items", "too easy", "hard", "samples", "wrong", "unread", "hinted", "kept", "yield")
    ]
    rows += [_row(name, counts) for name, counts in (("all", total), *report.domains.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines


def _row(name: str, counts: "Counts") -> tuple[str, ...]:
    from grm_jax.spct.rejection import ACCEPTED, TOO_EASY, WRONG

    drawn = counts.samples.total()
    unread = drawn - sum(counts.samples[found] for found in (ACCEPTED, WRONG, TOO_EASY))
    figures = (counts.items, counts.too_easy, counts.hard, drawn, counts.samples[WRONG], unread)
    hinted = f"{counts.hinted[ACCEPTED]}/{counts.hinted.total()}"
    return (name, *map(str, figures), hinted, str(counts.kept), f"{100 * counts.yielded:.1f}%")
