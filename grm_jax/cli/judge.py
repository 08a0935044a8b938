"""`grm judge`: samples critiques of every item, votes, and keeps everything in a run folder."""

import argparse
from collections import Counter
from typing import Any

_JUDGEMENTS = "judgements.jsonl"
_DESCRIPTION = """\
Judges items: k critiques each, un-shuffled and voted. Every critique is kept in the run folder the moment its batch is
done; after an interruption the same command goes on where it stopped. A larger --k samples only what is missing."""
_EPILOG = """\
examples:
  grm judge --model tiny --input items.jsonl --output run --k 8
  grm judge --model DeepSeek-GRM-27B --input items.jsonl --output run --k 32 --temperature 0.5
  grm judge --model DIR --input items.jsonl --output run --k 32 --meta-model META --vote meta_topk --k-meta 8
  grm judge --model DIR --input items.jsonl --output run --k 32 --stop confident --confidence 0.95
  grm judge --model DIR --input items.jsonl --output run --k 32 --dtype bfloat16 --weights int8 --cache int8
  grm judge --model DIR --input judgebench/gpt.jsonl --layout judgebench --output run --k 2

An item is one JSON object a line: id, prompt or conversation, responses, and optionally label, reference, principles,
domain, meta. The run folder holds run.json, config.gin, items.jsonl, samples.jsonl and judgements.jsonl, and with
--meta-model meta_scores.jsonl, with --stop stop.json.

--stop draws critiques in rounds, and an item gets no more once its verdict stands: exact, when no further critique could
change who is best of all k; confident, when that is likely enough.

exit codes: 0 all judged; 3 some items not judged (a prompt that does not fit in the context, outcome prompt_too_long,
or lines left out by --on-error skip); 2 a mistake in what was given; 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.profiling import add_profile_arguments
    from grm_jax.cli.sampling_arguments import add_sampling_arguments, add_stop_arguments, add_vote_arguments

    parser = subparsers.add_parser(
        "judge", help="judge items with k sampled critiques each", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", default="tiny", metavar="tiny|DIR", help="the judge (default: tiny)")
    parser.add_argument("--input", required=True, metavar="FILE", help="items, one JSON object a line")
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder, new or one to go on with")
    parser.add_argument("--k", type=int, default=8, help="critiques an item (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of orders and samples (default: 0)")
    add_vote_arguments(parser)
    add_stop_arguments(parser, "draw no more critiques of an item once its verdict stands (default: draw all k)")
    parser.add_argument("--layout", default="items", help="of the input, such as judgebench (default: items)")
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what a malformed line does")
    parser.add_argument("--limit", type=int, metavar="N", help="judge only the first N items")
    add_sampling_arguments(parser)
    add_gin_arguments(parser)
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judges; returns the exit code."""
    import sys

    from grm_jax.cli import EXIT_OK, EXIT_UNJUDGED, configure
    from grm_jax.cli.sampling_arguments import check_counts, load_judge, stopping
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.data.records import PROMPT_TOO_LONG
    from grm_jax.errors import UserError
    from grm_jax.judge.tally import POLICIES

    check_counts(args, "k", "rows", "limit", "max_new")
    if args.vote not in POLICIES:
        raise UserError(f"--vote {args.vote}: not known; use one of {', '.join(POLICIES)}")
    _check_meta(args)
    stop = stopping(args)
    configure.load(args.gin_file, args.gin_bindings)
    notes: list[str] = []
    items = read_jsonl_items(args.input, layout=args.layout, on_error=args.on_error, report=notes.append)[: args.limit]
    for note in notes:
        print(f"grm judge: {note}", file=sys.stderr)
    skipped = max(0, len(notes) - 1)  # one note a line left out, and one with their count

    from grm_jax.cli.meta_score import score_missing
    from grm_jax.cli.outputs import keep_compiled
    from grm_jax.cli.progress import bar
    from grm_jax.judge.filling import fill
    from grm_jax.judge.run_folder import RunFolder
    from grm_jax.parallel import hosts

    if args.meta_model:
        from grm_jax.judge.meta import meta_name as name_of

        meta_name = name_of(args.meta_model)
    judge = load_judge(args)
    with RunFolder.open(args.output, judge.identity(args.seed), report=lambda m: print(m, file=sys.stderr)) as folder:
        if args.meta_model:
            folder.check_meta_model(meta_name)
        keep_compiled(folder.path)
        folder.keep_configuration(configure.operative())
        fill(judge, folder, items, args.k, args.seed, stop=stop, vote=args.vote, bar=bar)
        if args.meta_model:
            del judge  # two models of this size need not be held at once
            score_missing(folder, items, args.meta_model, meta_name, args.dtype)
        judgements = folder.write_judgements(policy=args.vote, k=args.k, k_meta=args.k_meta, stop=stop)
    if not hosts.is_leader():
        return EXIT_OK
    ids = {item.id for item in items}
    mine = [judgement for judgement in judgements if judgement.id in ids]
    outcomes = Counter(name for judgement in mine for name in Counter(judgement.outcomes).elements())
    print(f"{len(items)} items, k = {args.k}: " + ", ".join(f"{n} {name}" for name, n in outcomes.most_common()))
    if stop and (taken := [judgement.k for judgement in mine if judgement.samples]):
        early = sum(k < args.k for k in taken)
        print(f"{sum(taken) / len(taken):.1f} critiques an item: {early} of {len(taken)} stopped early ({stop.rule})")
    unfit = outcomes[PROMPT_TOO_LONG]
    if unfit or skipped:
        print(f"{unfit + skipped} not judged: {skipped} malformed lines, {unfit} prompts too long")
    print(f"wrote {folder.path / _JUDGEMENTS}; see `grm report {args.output}`")
    return EXIT_UNJUDGED if unfit or skipped else EXIT_OK


def _check_meta(args: argparse.Namespace) -> None:
    """Refuses, before anything is loaded, a guided vote that could not be taken."""
    from grm_jax.errors import UserError
    from grm_jax.judge.voting import fits, fitting

    if args.vote.startswith("meta") and not args.meta_model:
        raise UserError(f"--vote {args.vote}: samples have no meta scores without a --meta-model; give one or vote sum")
    if args.k_meta is not None and args.vote != "meta_topk":
        raise UserError(
            f"--k-meta {args.k_meta:g}: the vote '{args.vote}' does not use it; leave it out or vote meta_topk"
        )
    if args.k_meta is not None and not fits(args.k_meta, args.k):
        raise UserError(f"--k-meta {args.k_meta:g}: does not fit --k {args.k}; use {fitting(args.k)}")
