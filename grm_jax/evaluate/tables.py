"""A scaling report as a table: for the terminal, as plain text, as JSON."""

import dataclasses
from typing import Any

from rich.table import Table
from rich.text import Text

from grm_jax.evaluate.accuracy import ScalingReport, ScalingRow
from grm_jax.evaluate.intervals import Estimate

_NONE = "-"


def to_json(report: ScalingReport) -> dict[str, Any]:
    """Returns the report as a JSON object: every figure as a fraction (errors in score points), nothing rounded."""
    return dataclasses.asdict(report)


def to_text(report: ScalingReport) -> str:
    """Returns the table as aligned plain text, one row a k, then what it was measured on; percentages unless named."""
    rows = [_columns(report), *(_cells(row, report) for row in report.rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, *_notes(report)]) + "\n"


def to_rich(report: ScalingReport) -> Table:
    """Returns the same table for a terminal."""
    table = Table(caption=Text("\n".join(_notes(report))), caption_justify="left")
    for column in _columns(report):
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(*_cells(row, report))
    return table


def _columns(report: ScalingReport) -> list[str]:
    error = ["error (n = 1)", "95% interval"] if _has_errors(report) else []
    return ["k", "accuracy", "95% interval", "tied", "no verdict", *error]


def _cells(row: ScalingRow, report: ScalingReport) -> list[str]:
    cells = [str(row.k), *_estimate(row.accuracy, 100, 1), f"{100 * row.tie_rate:.1f}", f"{100 * row.failure_rate:.1f}"]
    return cells + (_estimate(row.absolute_error, 1, 2) if _has_errors(report) else [])


def _estimate(estimate: Estimate | None, scale: float, digits: int) -> list[str]:
    if estimate is None:
        return [_NONE, _NONE]
    mean, low, high = (f"{scale * value:.{digits}f}" for value in (estimate.mean, estimate.low, estimate.high))
    return [mean, f"{low} to {high}"]


def _has_errors(report: ScalingReport) -> bool:
    return any(row.absolute_error for row in report.rows)


def _notes(report: ScalingReport) -> list[str]:
    protocol = report.protocol
    vote = protocol.vote + (f" (k_meta {protocol.k_meta})" if protocol.k_meta else "")
    taken = f"mean of {protocol.subsets} subsets of k" if protocol.subsets else "the first k samples"
    left_out = f", {report.unlabelled} without label left out" if report.unlabelled else ""
    total = sum(report.outcomes.values())
    rates = ", ".join(f"{name} {100 * count / total:.1f}%" for name, count in report.outcomes.items())
    return [
        f"{report.items} items{left_out}; vote {vote} on {taken}; ties {protocol.ties}, failures {protocol.failures}",
        f"all samples: {rates}",
    ]
