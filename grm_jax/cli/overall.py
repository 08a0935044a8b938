"""`grm overall`: the paper's own overall score of a judge, from its evaluations."""

import argparse
from typing import Any

_DESCRIPTION = """\
The "Overall" of arXiv 2504.02495 (DeepSeek-GRM): the unweighted mean of the overall scores of RewardBench, PPE Preference, PPE
Correctness and RMB, at each k that all four were evaluated at. Nothing is judged: RUN/eval.json of each is read."""
_EPILOG = """\
example:
  grm overall runs/rewardbench runs/ppe_preference runs/ppe_correctness runs/rmb

The paper shuffles before the argmax: evaluate with --ties shuffle_argmax --failures wrong to score as it does."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "overall", help="the paper's overall score, from four evaluations", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders of `grm eval`, one of each benchmark")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reads and prints; returns 0."""
    import json

    from rich.console import Console
    from rich.table import Table

    from grm_jax.benchmarks.benchmark import PAPER
    from grm_jax.benchmarks.registry import PAPER_COLUMNS
    from grm_jax.benchmarks.table import partial_notes

    found = _evaluations(args.folders)
    rows = _rows(found)
    notes = [f"PARTIAL: {name}: {note}" for name in PAPER_COLUMNS for note in partial_notes(found[name])]
    for name in PAPER_COLUMNS:
        policies = found[name].policies
        if PAPER not in found[name].protocols:
            notes.append(f"{name}: ties {policies.ties}, failures {policies.failures}, not as the paper scores")
    if args.json:
        print(json.dumps({"model": found[PAPER_COLUMNS[0]].run["model"], "rows": rows, "notes": notes}, indent=1))
        return 0
    table = Table()
    for column in ("k", "overall", *PAPER_COLUMNS):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row["k"]), *(f"{100 * row[name]:.1f}" for name in ("overall", *PAPER_COLUMNS)))
    Console().print(table)
    for note in notes:
        print(note)
    return 0


def _evaluations(folders: list[str]) -> dict[str, Any]:
    """The evaluations by benchmark: each of the paper's once, of one judge."""
    from grm_jax.benchmarks.record import read_record
    from grm_jax.benchmarks.registry import PAPER_COLUMNS
    from grm_jax.errors import UserError

    found: dict[str, Any] = {}
    for folder in folders:
        record = read_record(folder)
        if record is None:
            raise UserError(f"{folder}: holds no eval.json; give run folders of `grm eval`")
        evaluation = record[0]
        if evaluation.benchmark not in PAPER_COLUMNS:
            raise UserError(
                f"{folder}: is of {evaluation.benchmark}, which is not in the paper's overall score; leave it out"
            )
        if evaluation.benchmark in found:
            raise UserError(f"{folder}: is a second run of {evaluation.benchmark}; give one of each")
        first = next(iter(found.values()), evaluation)
        for key in ("model", "template"):
            if evaluation.run.get(key) != first.run.get(key):
                problem = f"its {key} is {evaluation.run.get(key)!r}, before it was {first.run.get(key)!r}"
                raise UserError(f"{folder}: {problem}; give runs of one judge")
        found[evaluation.benchmark] = evaluation
    missing = [name for name in PAPER_COLUMNS if name not in found]
    if missing:
        raise UserError(f"there is no run of {', '.join(missing)}; the overall score is of {', '.join(PAPER_COLUMNS)}")
    return found


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    from grm_jax.benchmarks.registry import PAPER_COLUMNS, paper_overall
    from grm_jax.errors import UserError

    by_k: dict[int, dict[str, float]] = {}
    for name in PAPER_COLUMNS:
        for row in found[name].rows:
            overall = next(iter(row.figures.values()))
            if overall is not None:
                by_k.setdefault(row.k, {})[name] = overall.mean
    complete = {k: columns for k, columns in sorted(by_k.items()) if len(columns) == len(PAPER_COLUMNS)}
    if not complete:
        raise UserError("the runs were evaluated at no common k; evaluate all four with the same --k")
    return [{"k": k, "overall": paper_overall(columns), **columns} for k, columns in complete.items()]
