"""An evaluation for the terminal: figures down, k across; and in notes below how they came about."""

from rich.table import Table

from grm_jax.benchmarks.evaluation import Evaluation, Row
from grm_jax.benchmarks.figures import Interval


def to_rich(evaluation: Evaluation) -> Table:
    """Returns the table of an evaluation in percent; figures of subsets, "section/subset", are left to the JSON."""
    table = Table()
    table.add_column(evaluation.benchmark, no_wrap=True)
    for row in evaluation.rows:
        table.add_column(f"k = {row.k}", justify="right")
    for number, (name, cells) in enumerate(lines(evaluation)):
        table.add_row(name, *cells, style="bold" if number == 0 else None)
    return table


def lines(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    """Returns (name, a cell for each k): the overall figure, its interval, the other figures, then the rates."""
    rows = evaluation.rows
    names = list(rows[0].figures)
    shown = [name for name in names if "/" not in name] if any("/" not in name for name in names) else names

    def across(name: str) -> tuple[str, list[str]]:
        return name, [_percent(_mean(row, name)) for row in rows]

    first, *others = shown
    return [
        across(first),
        ("95% interval", [_interval(row.figures[first]) for row in rows]),
        *(across(name) for name in others),
        ("tied", [_percent(row.tied) for row in rows]),
        ("no verdict", [_percent(row.failed) for row in rows]),
        ("first place", [_percent(row.first_place) for row in rows]),
    ]


def notes(evaluation: Evaluation) -> list[str]:
    """Returns what stands below the table."""
    policies = evaluation.policies
    whose = f", as {'; '.join(evaluation.protocols)}" if evaluation.protocols else ", as in no published figure"
    kept = f" (k_meta {policies.k_meta:g})" if policies.k_meta else ""
    total = sum(evaluation.outcomes.values())
    rates = ", ".join(f"{name} {100 * count / total:.1f}%" for name, count in evaluation.outcomes.items())
    return [
        evaluation.title,
        f"{evaluation.cases} questions, {evaluation.items} items",
        f"vote {policies.vote}{kept}, ties {policies.ties}, failures {policies.failures}{whose}",
        f"critiques: {rates}",
        *(f"PARTIAL: {note}" for note in partial_notes(evaluation)),
    ]


def figure_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of all figures, those of subsets too, with their intervals, in percent: a column a k."""
    names = list(evaluation.rows[0].figures)
    head = [evaluation.benchmark, *(f"k = {row.k}" for row in evaluation.rows)]
    return head, [[name, *(_with_interval(row.figures.get(name)) for row in evaluation.rows)] for name in names]


def partial_notes(evaluation: Evaluation) -> list[str]:
    """Returns what keeps the figures from being the benchmark's; empty when it was evaluated whole."""
    found = [f"the data lacks rows: {', '.join(evaluation.absent)}"] if evaluation.absent else []
    if evaluation.cases < evaluation.cases_there:
        found.append(f"{evaluation.cases} of {evaluation.cases_there} questions, by --limit")
    return found


def _mean(row: Row, name: str) -> float | None:
    figure = row.figures[name]
    return figure.mean if figure else None


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _with_interval(figure: Interval | None) -> str:
    return f"{100 * figure.mean:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})" if figure else "-"


def _interval(figure: Interval | None) -> str:
    return f"{100 * figure.low:.1f}-{100 * figure.high:.1f}" if figure else "-"
