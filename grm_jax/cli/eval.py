"""`grm eval`: judges a benchmark and scores it by its own protocol, at several k."""

import argparse
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grm_jax.benchmarks.benchmark import Benchmark

_NAMES = (
    "rewardbench, rewardbench2, ppe_preference, ppe_correctness, rmb, rmb_pairs, realmistake, judgebench, "
    "judgebench_claude, rm_bench, arena"
)
_DESCRIPTION = """\
Judges a benchmark and scores it by its own protocol. Critiques are kept in the run folder; after an interruption the
same command goes on where it stopped. Without --model nothing is sampled: what the folder holds is voted on again."""
_EPILOG = f"""\
benchmarks: {_NAMES}

examples:
  grm eval --benchmark judgebench --data judgebench/gpt.jsonl --model DIR --k 1,2,4,8 --output run
  grm eval --benchmark rewardbench --model DIR --k 1,8,32 --output run
  grm eval --benchmark rm_bench --revision COMMIT --model DIR --output run
  grm eval --benchmark rewardbench --model DIR --k 32 --meta-model META --vote meta_topk --k-meta 0.5 --output run
  grm eval --benchmark rm_bench --data rm_bench/chat_filtered.json --partial --limit 20 --model tiny --output run
  grm eval --benchmark rewardbench --data filtered.parquet --output run --ties strict --failures wrong

Data is what a benchmark publishes: a .json, .jsonl, .jsonl.gz or .parquet file, a folder of them, ReaLMistake's data.zip,
or hf:ID@COMMIT:SPLIT. The number of rows of each subset is checked. Figures, policies and data are in RUN/eval.json.

exit codes: 0 all judged; 3 some prompts did not fit; 2 a mistake in what was given; 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.profiling import add_profile_arguments
    from grm_jax.cli.sampling_arguments import add_sampling_arguments, add_vote_arguments

    parser = subparsers.add_parser(
        "eval", help="judge a benchmark and score it by its own protocol", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="one of those below")
    parser.add_argument(
        "--data",
        metavar="PATH|HUB",
        help="its data (default: the benchmark's data set on the hub, at a pinned revision)",
    )
    parser.add_argument(
        "--revision", metavar="COMMIT", help="of that data set, where none is pinned or another is wanted"
    )
    parser.add_argument(
        "--model", metavar="tiny|DIR", help="the judge; without one, stored critiques are voted on again"
    )
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder, new or one to go on with")
    parser.add_argument("--k", default="1", metavar="K,K,...", help="critiques a vote (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of orders, samples, ties and intervals (default: 0)")
    add_vote_arguments(parser)
    parser.add_argument(
        "--error-below",
        type=float,
        metavar="SCORE",
        help="realmistake: detection metrics, a mean score below it says error",
    )
    parser.add_argument("--ties", help="expected, half, strict or shuffle_argmax (default: the benchmark's)")
    parser.add_argument("--failures", help="wrong, chance or resample (default: the benchmark's)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N questions, spread over the benchmark")
    parser.add_argument("--partial", action="store_true", help="allow data that lacks rows")
    parser.add_argument("--json", action="store_true", help="print JSON, with the figures of all subsets")
    add_sampling_arguments(parser)
    add_gin_arguments(parser)
    add_profile_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judges and scores; returns the exit code."""
    import json
    import sys

    from rich.console import Console

    from grm_jax.benchmarks.evaluation import chosen, evaluate, to_json
    from grm_jax.benchmarks.loading import described, load
    from grm_jax.benchmarks.record import RECORD
    from grm_jax.benchmarks.table import notes, partial_notes, to_rich
    from grm_jax.cli import EXIT_OK, EXIT_UNJUDGED
    from grm_jax.cli.eval_run import draw, judge_of, open_run, stored
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.data.records import PROMPT_TOO_LONG
    from grm_jax.judge.run_identity import read_identity
    from grm_jax.parallel import hosts

    benchmark = _benchmark(args)
    ks = _ks(args)
    policies = _policies(args, benchmark, min(ks))
    meta_name = _meta_name(args)
    data = load(benchmark, args.data, revision=args.revision, partial=args.partial)
    cases = chosen(data.cases, args.limit)
    items = [item for case in cases for item in case.items]
    about = {"benchmark": benchmark.name, "data": data.digest}
    judge = judge_of(args, about)
    sampled = judge is not None
    with open_run(args, about, judge) as folder:
        if meta_name:
            folder.check_meta_model(meta_name)
        if judge:
            draw(judge, folder, items, max(ks), args.seed, benchmark, policies)
        if meta_name:
            from grm_jax.cli.meta_score import score_missing

            del judge  # two models of this size need not be held at once
            known = [item for case in data.cases for item in case.items if folder.has_item(item.id)]
            score_missing(folder, known, args.meta_model, meta_name, args.dtype)

        evaluation = evaluate(
            benchmark, cases, functools.partial(stored, folder), ks, policies, seed=args.seed, run=read_identity(folder.path),
            data=f"{described(benchmark, args.data, args.revision)}@{data.digest}", absent=data.absent, cases_there=len(data.cases),
        )  # fmt: skip
        if sampled:
            folder.write_judgements(policy=policies.vote, k=max(ks) * benchmark.games, k_meta=policies.k_meta)
        if hosts.is_leader():
            write_jsonl(folder.path / RECORD, [to_json(evaluation)])
    if not hosts.is_leader():
        return EXIT_OK
    for note in partial_notes(evaluation):
        print(f"grm eval: PARTIAL, not the benchmark's figure: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(to_json(evaluation), indent=1))
    else:
        Console().print(to_rich(evaluation))
        print("\n".join(notes(evaluation)))
        print(f"wrote {folder.path / RECORD}; see `grm report {args.output}`")
    return EXIT_UNJUDGED if evaluation.outcomes.get(PROMPT_TOO_LONG) else EXIT_OK


def _benchmark(args: argparse.Namespace) -> "Benchmark":
    from grm_jax.benchmarks.realmistake import REALMISTAKE, with_detector
    from grm_jax.benchmarks.registry import BENCHMARKS
    from grm_jax.data import fields
    from grm_jax.errors import UserError

    benchmark = BENCHMARKS[fields.read_choice(args.benchmark, BENCHMARKS, "grm eval", "--benchmark")]
    if args.error_below is None:
        return benchmark
    if benchmark is not REALMISTAKE:
        raise UserError(f"--error-below {args.error_below:g}: is of realmistake, not of {benchmark.name}; leave it out")
    return with_detector(args.error_below)


def _policies(args: argparse.Namespace, benchmark: "Benchmark", k: int) -> Any:
    from grm_jax.benchmarks.benchmark import has_own_ties
    from grm_jax.benchmarks.policies import Policies
    from grm_jax.errors import UserError
    from grm_jax.judge.voting import fits, fitting

    if args.ties and has_own_ties(benchmark):
        raise UserError(f"--ties {args.ties}: {benchmark.name} has its own rule for ties; leave it out")
    if args.ties == "own":
        raise UserError("--ties own: not known; use expected, half, strict or shuffle_argmax")
    if args.k_meta is not None and not fits(args.k_meta, k):
        raise UserError(f"--k-meta {args.k_meta:g}: does not fit --k {k}; use {fitting(k)}, or leave that k out")
    ties, failures = args.ties or benchmark.default.ties, args.failures or benchmark.default.failures
    return Policies(ties, failures, args.vote, args.k_meta)


def _meta_name(args: argparse.Namespace) -> str | None:
    """Names the meta model; refuses a guided vote on critiques that are yet to be drawn without one."""
    from grm_jax.errors import UserError
    from grm_jax.judge.tally import GUIDED

    if args.meta_model:
        from grm_jax.judge.meta import meta_name

        return meta_name(args.meta_model)
    if args.vote in GUIDED and args.model:
        remedy = "give --meta-model, or leave out --model to vote on scores that are stored"
        raise UserError(f"--vote {args.vote}: critiques have no meta scores without a --meta-model; {remedy}")
    return None


def _ks(args: argparse.Namespace) -> list[int]:
    from grm_jax.cli.sampling_arguments import check_counts
    from grm_jax.errors import UserError

    check_counts(args, "limit", "rows", "max_new")
    try:
        ks = [int(part) for part in args.k.split(",")]
    except ValueError:
        raise UserError(f"--k {args.k}: write numbers with commas, such as 1,2,4,8") from None
    if min(ks) < 1:
        raise UserError(f"--k {args.k}: every k must be at least 1")
    return ks
