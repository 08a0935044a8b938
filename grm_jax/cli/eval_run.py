"""The run folder of `grm eval`: opened for its own data alone, and filled with what it lacks."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grm_jax.benchmarks.benchmark import Benchmark
    from grm_jax.data.records import Item, Sample
    from grm_jax.judge.judge import Judge
    from grm_jax.judge.run_folder import RunFolder


def judge_of(args: argparse.Namespace, about: dict[str, str]) -> "Judge | None":
    """Loads the judge, if one is given; without one refuses a run of other data."""
    from grm_jax.cli import configure
    from grm_jax.cli.sampling_arguments import load_judge
    from grm_jax.errors import UserError
    from grm_jax.judge.run_identity import read_identity

    if args.model is not None:
        configure.load(args.gin_file, args.gin_bindings)
        return load_judge(args)
    identity = read_identity(args.output)
    for key, value in {**about, "seed": args.seed}.items():
        if identity.get(key) != value:
            problem = f"was made with {key} = {identity.get(key)!r}, now {value!r} is asked"
            raise UserError(f"{args.output}: this run {problem}; give what it was made with or another run folder")
    return None


def open_run(args: argparse.Namespace, about: dict[str, str], judge: "Judge | None") -> "RunFolder":
    """Opens the run; refuses one of other data, model or template."""
    import sys

    from grm_jax.cli import configure
    from grm_jax.cli.outputs import keep_compiled
    from grm_jax.judge.run_folder import RunFolder

    def report(message: str) -> None:
        print(message, file=sys.stderr)

    if judge is None:
        return RunFolder.reopen(args.output, report=report)
    folder = RunFolder.open(args.output, judge.identity(args.seed) | about, report=report)
    folder.keep_configuration(configure.operative())
    keep_compiled(folder.path)
    return folder


def draw(
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
        wanted = still_wanted(items, lambda item_id: stored(folder, item_id), k, benchmark)
        if not wanted:
            return
        for total, some in sorted(wanted.items()):
            fill(judge, folder, some, total, seed, bar=bar)


def stored(folder: "RunFolder", item_id: str) -> "Sequence[Sample]":
    """Returns the samples of an item; none where its prompt did not fit."""
    from grm_jax.errors import UserError

    samples = list(folder.done(item_id).values())
    if not samples and not folder.is_too_long(item_id):
        raise UserError(f"{folder.path}: item {item_id!r} is not judged yet; give --model to judge it")
    return samples
