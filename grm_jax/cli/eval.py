"""`grm eval`: judges a benchmark and scores it by its own protocol, at several k."""

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grm_jax.benchmarks.benchmark import Benchmark
    from grm_jax.data.records import Item, Sample
    from grm_jax.judge.judge import Judge
    from grm_jax.judge.run_folder import RunFolder

_RECORD = "eval.json"
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
  grm eval --benchmark rewardbench --data hf:allenai/reward-bench@COMMIT:filtered --model DIR --output run
  grm eval --benchmark rm_bench --data rm_bench/chat_filtered.json --partial --limit 20 --model tiny --output run
  grm eval --benchmark rewardbench --data filtered.parquet --output run --ties strict --failures wrong

Data is what a benchmark publishes: a .json, .jsonl, .jsonl.gz or .parquet file, a folder of them, ReaLMistake's data.zip,
or hf:ID@COMMIT:SPLIT. The number of rows of each subset is checked. Figures, policies and data are in RUN/{_RECORD}.

exit codes: 0 all judged; 3 some prompts did not fit; 2 a mistake in what was given; 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    from grm_jax.cli.gin_arguments import add_gin_arguments
    from grm_jax.cli.sampling_arguments import add_sampling_arguments

    parser = subparsers.add_parser(
        "eval", help="judge a benchmark and score it by its own protocol", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="one of those below")
    parser.add_argument(
        "--data", metavar="PATH|HUB", help="its data (default: pinned on the hub, where a revision is known)"
    )
    parser.add_argument(
        "--model", metavar="tiny|DIR", help="the judge; without one, stored critiques are voted on again"
    )
    parser.add_argument("--output", required=True, metavar="RUN", help="run folder, new or one to go on with")
    parser.add_argument("--k", default="1", metavar="K,K,...", help="critiques a vote (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of orders, samples, ties and intervals (default: 0)")
    parser.add_argument("--vote", default="sum", metavar="POLICY", help="sum, mean, majority or rank (default: sum)")
    parser.add_argument("--ties", help="expected, half, strict or shuffle_argmax (default: the benchmark's)")
    parser.add_argument("--failures", help="wrong, chance or resample (default: the benchmark's)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N questions, spread over the benchmark")
    parser.add_argument("--partial", action="store_true", help="allow data that lacks rows")
    parser.add_argument("--json", action="store_true", help="print JSON, with the figures of all subsets")
    add_sampling_arguments(parser)
    add_gin_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judges and scores; returns the exit code."""
    import json
    import sys

    from rich.console import Console

    from grm_jax.benchmarks.evaluation import chosen, evaluate, to_json
    from grm_jax.benchmarks.loading import load
    from grm_jax.benchmarks.registry import BENCHMARKS
    from grm_jax.benchmarks.table import notes, partial_notes, to_rich
    from grm_jax.cli import EXIT_OK, EXIT_UNJUDGED
    from grm_jax.data import fields
    from grm_jax.data.jsonl import write_jsonl
    from grm_jax.data.records import PROMPT_TOO_LONG
    from grm_jax.judge.run_identity import read_identity
    from grm_jax.parallel import hosts

    benchmark = BENCHMARKS[fields.read_choice(args.benchmark, BENCHMARKS, "grm eval", "--benchmark")]
    policies = _policies(args, benchmark)
    ks = _ks(args)
    data = load(benchmark, args.data, partial=args.partial)
    cases = chosen(data.cases, args.limit)
    items = [item for case in cases for item in case.items]
    about = {"benchmark": benchmark.name, "data": data.digest}
    with _open(args, about) as (judge, folder):
        if judge:
            _draw(judge, folder, items, max(ks), args.seed, benchmark, policies)

        def stored(item_id: str) -> "Sequence[Sample]":
            return _stored(folder, item_id)

        evaluation = evaluate(
            benchmark, cases, stored, ks, policies, seed=args.seed, run=read_identity(folder.path),
            data=f"{args.data or benchmark.name}@{data.digest}", absent=data.absent, cases_there=len(data.cases),
        )  # fmt: skip
        if judge:
            folder.write_judgements(policy=policies.vote, k=max(ks) * benchmark.games)
        if hosts.is_leader():
            write_jsonl(folder.path / _RECORD, [to_json(evaluation)])
    if not hosts.is_leader():
        return EXIT_OK
    for note in partial_notes(evaluation):
        print(f"grm eval: PARTIAL, not the benchmark's figure: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(to_json(evaluation), indent=1))
    else:
        Console().print(to_rich(evaluation))
        print("\n".join(notes(evaluation)))
        print(f"wrote {folder.path / _RECORD}")
    return EXIT_UNJUDGED if evaluation.outcomes.get(PROMPT_TOO_LONG) else EXIT_OK


def _policies(args: argparse.Namespace, benchmark: "Benchmark") -> Any:
    from grm_jax.benchmarks.benchmark import has_own_ties
    from grm_jax.benchmarks.policies import Policies
    from grm_jax.errors import UserError

    if args.ties and has_own_ties(benchmark):
        raise UserError(f"--ties {args.ties}: {benchmark.name} has its own rule for ties; leave it out")
    if args.ties == "own":
        raise UserError("--ties own: not known; use expected, half, strict or shuffle_argmax")
    return Policies(args.ties or benchmark.default.ties, args.failures or benchmark.default.failures, args.vote)


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


@contextlib.contextmanager
def _open(args: argparse.Namespace, about: dict[str, str]) -> "Iterator[tuple[Judge | None, RunFolder]]":
    """Opens the run, with the judge that fills it, if one is given; refuses a run of other data, model or template."""
    import sys

    from grm_jax.cli import configure
    from grm_jax.cli.sampling_arguments import load_judge
    from grm_jax.errors import UserError
    from grm_jax.judge.run_folder import RunFolder
    from grm_jax.judge.run_identity import read_identity

    def report(message: str) -> None:
        print(message, file=sys.stderr)

    if args.model is None:
        identity = read_identity(args.output)
        for key, value in {**about, "seed": args.seed}.items():
            if identity.get(key) != value:
                problem = f"was made with {key} = {identity.get(key)!r}, now {value!r} is asked"
                raise UserError(f"{args.output}: this run {problem}; give what it was made with or another run folder")
        with RunFolder.reopen(args.output, report=report) as folder:
            yield None, folder
        return
    configure.load(args.gin_file, args.gin_bindings)
    judge = load_judge(args)
    with RunFolder.open(args.output, judge.identity(args.seed) | about, report=report) as folder:
        folder.keep_configuration(configure.operative())
        yield judge, folder


def _draw(
    judge: "Judge",
    folder: "RunFolder",
    items: "Sequence[Item]",
    k: int,
    seed: int,
    benchmark: "Benchmark",
    policies: Any,
) -> None:
    """Draws what the folder lacks; with `resample`, also in place of critiques that cannot be read."""
    from grm_jax.benchmarks.evaluation import still_wanted
    from grm_jax.benchmarks.policies import RESAMPLE
    from grm_jax.cli.progress import bar
    from grm_jax.judge.filling import fill

    fill(judge, folder, items, k * benchmark.games, seed, bar=bar)
    while policies.failures == RESAMPLE:
        wanted = still_wanted(items, lambda item_id: _stored(folder, item_id), k, benchmark)
        if not wanted:
            return
        for total, some in sorted(wanted.items()):
            fill(judge, folder, some, total, seed, bar=bar)


def _stored(folder: "RunFolder", item_id: str) -> "Sequence[Sample]":
    from grm_jax.errors import UserError

    samples = list(folder.done(item_id).values())
    if not samples and not folder.is_too_long(item_id):
        raise UserError(f"{folder.path}: item {item_id!r} is not judged yet; give --model to judge it")
    return samples
