"""`grm report`: votes again over a run's stored samples, at any k and under any policy, and shows a table."""

import argparse
from typing import Any

_DESCRIPTION = """\
Shows how accuracy grows with k, from the stored samples of a run; nothing is sampled again. Without labels, the table
says how often the top is tied and how often there is no verdict. With labels and meta scores it also says how well these
tell right critiques from wrong ones."""
_EPILOG = """\
examples:
  grm report run
  grm report run --k 1,2,4,8 --vote majority
  grm report run --greedy run_at_temperature_0
  grm report run --by domain --subsets 20
  grm report run_of_one_judge run_of_another --k 1,8
  grm report run --items items.jsonl --weaknesses my-model
  grm report run --vote meta_topk --k-meta 4 --calibration-plot reliability.png
  grm report run --stop confident --confidence 0.95
  grm report run --plot scaling.png --json
  grm report run --items items.jsonl --html report.html --markdown report.md --figures report.json"""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.sampling_arguments import add_stop_arguments

    parser = subparsers.add_parser(
        "report", help="vote again over stored samples, as a table", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", metavar="RUN", help="a run folder of `grm judge` or `grm eval`")
    parser.add_argument(
        "other", nargs="?", metavar="RUN", help="another on the same items: the two are compared, paired"
    )
    parser.add_argument("--k", metavar="K,K,...", help="numbers of samples (default: powers of two up to all)")
    parser.add_argument(
        "--vote", default="sum", metavar="POLICY", help="sum, mean, majority, rank, meta_topk, meta_soft (default: sum)"
    )
    parser.add_argument(
        "--k-meta", type=float, metavar="N", help="samples that meta_topk keeps, below 1 a share (default: 0.5)"
    )
    parser.add_argument(
        "--ties", default="expected", help="expected, half, strict or shuffle_argmax (default: expected)"
    )
    parser.add_argument("--failures", default="wrong", help="an item without verdict: wrong or chance (default: wrong)")
    parser.add_argument(
        "--subsets",
        type=int,
        default=64,
        metavar="R",
        help="average over R random k-subsets of an item; 0 takes the first k (default: 64)",
    )
    parser.add_argument("--greedy", metavar="RUN", help="a run of the same judge at temperature 0: the greedy baseline")
    parser.add_argument("--by", choices=["domain"], help="one table for each domain as well")
    parser.add_argument("--plot", metavar="FILE", help="write the scaling plot as PNG")
    parser.add_argument("--calibration-plot", metavar="FILE", help="write the meta scores' reliability plot as PNG")
    parser.add_argument(
        "--html", metavar="FILE", help="write the judge report as one page, with all items to look through"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write its tables as Markdown")
    parser.add_argument("--figures", metavar="FILE", help="write its figures as JSON")
    parser.add_argument(
        "--items", metavar="FILE", help="the items that were judged (of `grm eval`: its --data), for the texts in these"
    )
    parser.add_argument(
        "--weaknesses", metavar="NAME", help="on what principles the responses of NAME lose, by meta.sources of --items"
    )
    add_stop_arguments(parser, "what stopping by this rule would have saved, and cost (default: the run's own, if any)")
    parser.add_argument(
        "--judgements",
        metavar="FILE",
        help="write the judgements voted at the largest k, or where --stop has them stop",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads, votes, prints; returns 0."""
    import dataclasses
    import json
    import sys

    from rich.console import Console

    from grm_jax.cli.outputs import check_file
    from grm_jax.cli.report_anytime import read_anytime, read_judged, voted
    from grm_jax.cli.report_page import read_benchmark, read_curves, read_texts, write_report
    from grm_jax.cli.report_sides import compare, weaknesses
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.data.records import judgement_to_json
    from grm_jax.errors import UserError
    from grm_jax.evaluate import anytime
    from grm_jax.evaluate.accuracy import scaling
    from grm_jax.evaluate.calibration import calibration, scored_critiques
    from grm_jax.evaluate.judge_report import finite
    from grm_jax.evaluate.protocol import Protocol
    from grm_jax.evaluate.tables import calibration_notes, to_json, to_rich
    from grm_jax.evaluate.vote_tables import aligned, to_text
    from grm_jax.spct.acceptance import accepted

    check_file("--judgements", args.judgements)
    check_file("--plot", args.plot)
    check_file("--calibration-plot", args.calibration_plot)
    for option in ("html", "markdown", "figures"):
        check_file(f"--{option}", getattr(args, option))
    texts = read_texts(args)
    every, judged = read_judged(args.folder)
    protocol = Protocol(
        vote=args.vote, k_meta=args.k_meta, ties=args.ties, failures=args.failures, subsets=args.subsets
    )
    counts = [len(entry.judgement.samples) for entry in judged if entry.judgement.samples] or [1]
    if args.k is None and min(counts) < max(counts):
        note = f"items have {min(counts)} to {max(counts)} samples: the table stops at {min(counts)}; run `grm judge` to the end"
        print(f"{args.folder}: {note}", file=sys.stderr)
    ks = _ks(args.k, min(counts), (args.k_meta or 1) if args.vote == "meta_topk" else 1)
    if args.other:
        return compare(args, judged, ks, protocol)
    stopped = read_anytime(args, every, protocol)
    curves, times = read_curves(args, judged, ks, protocol)
    benchmark = read_benchmark(args.folder)
    if args.html or args.markdown or args.figures:
        rule = {"figures": dataclasses.asdict(stopped), "notes": anytime.lines(stopped)} if stopped else None
        known = {"curves": curves, "times": times, "benchmark": benchmark, "anytime": rule}
        write_report(args, judged, ks, protocol, texts, **known)
    groups = {"all": judged}
    if args.by:
        for name in sorted({entry.domain or "-" for entry in judged}):
            groups[name] = [entry for entry in judged if (entry.domain or "-") == name]
    reports = {name: scaling(group, ks, protocol) for name, group in groups.items()}
    scored = {name: scored_critiques(group, accepted) for name, group in groups.items()}
    calibrations = {name: calibration(critiques) for name, critiques in scored.items() if critiques.logits.size}
    if args.calibration_plot and "all" not in calibrations:
        raise UserError("--calibration-plot: no labelled item has meta scores; run `grm meta-score` first")
    if args.judgements:
        write_jsonl(args.judgements, map(judgement_to_json, voted(args, every, stopped, max(ks))))
    if args.plot:
        from grm_jax.evaluate.plots import save_scaling_plot

        save_scaling_plot(args.plot, curves)
    if args.calibration_plot:
        from grm_jax.evaluate.reliability_plot import save_reliability_plot

        save_reliability_plot(args.calibration_plot, calibrations["all"])
    if args.weaknesses:
        return weaknesses(args, judged, texts)
    if args.json:
        objects = {name: to_json(report) for name, report in reports.items()}
        for name, figures in calibrations.items():
            objects[name]["calibration"] = dataclasses.asdict(figures)
        objects["all"]["curves"] = finite(curves)
        if stopped:
            objects["all"]["anytime"] = dataclasses.asdict(stopped)
        if benchmark:
            objects["all"]["benchmark"] = benchmark["record"]
        print(json.dumps(objects, indent=1))
        return 0
    console = Console()
    if benchmark:
        print("\n".join([*aligned(benchmark["table"]), *benchmark["notes"], ""]))
    for name, report in reports.items():
        if len(reports) > 1:
            console.print(name, style="bold", markup=False, highlight=False)
        console.print(to_rich(report))
        if name in calibrations:
            console.print(calibration_notes(calibrations[name]), style="italic", markup=False, highlight=False)
    if stopped:
        print("\n" + "\n".join(anytime.lines(stopped)))
    if curves:
        print("\n" + to_text(curves), end="")
    return 0


def _ks(text: str | None, available: int, least: float) -> list[int]:
    from grm_jax.errors import UserError

    if text is None:
        if least > available:
            raise UserError(f"--k-meta {least:g}: does not fit k = {available}; use 1..{available}")
        return [1 << i for i in range(available.bit_length()) if least <= 1 << i <= available] or [available]
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--k {text}: write numbers with commas, such as 1,2,4,8") from None
    if min(ks) < 1:
        raise UserError(f"--k {text}: every k must be at least 1")
    if min(ks) < least:
        raise UserError(f"--k-meta {least:g}: does not fit k = {min(ks)}; use 1..{min(ks)} or leave that k out")
    return ks
