"""A scaling report as a table: for the terminal, as plain text, as JSON."""

import dataclasses
from typing import Any

from rich.table import Table
from rich.text import Text

from grm_jax.evaluate.accuracy import ScalingReport, ScalingRow
from grm_jax.evaluate.calibration import Calibration
from grm_jax.evaluate.intervals import Estimate

_NONE = "-"
_ERROR = "error, n=1"  # with its interval in the same column: the table has to fit into 80 columns


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
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row, report))
    return table


def calibration_notes(calibration: Calibration) -> str:
    """Returns two lines on meta scores: how well they rank critiques, and how far they are from probabilities."""

    def ranked(estimate: Estimate | None) -> str:
        return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" if estimate else _NONE

    items = f" over {calibration.within_item_auc.count} items" if calibration.within_item_auc else ""
    return (
        f"meta scores: AUC within items {ranked(calibration.within_item_auc)}{items}, overall {ranked(calibration.auc)}\n"
        f"calibration error {calibration.expected_error:.3f}, Brier {calibration.brier:.3f}; "
        f"{_percent(calibration.right)}% of {calibration.critiques} critiques are right"
    )


def _columns(report: ScalingReport) -> list[str]:
    error = [_ERROR] if _has_errors(report) else []
    return ["k", "accuracy", "95% interval", "tied", "no verdict", *error]


def _cells(row: ScalingRow, report: ScalingReport) -> list[str]:
    cells = [str(row.k), *_accuracy(row.accuracy), _percent(row.tie_rate), _percent(row.failure_rate)]
    return cells + ([_error(row.absolute_error)] if _has_errors(report) else [])


def _accuracy(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return [_NONE, _NONE]
    return [_percent(estimate.mean), f"{_percent(estimate.low)} to {_percent(estimate.high)}"]


def _error(estimate: Estimate | None) -> str:
    return f"{estimate.mean:.2f} ({estimate.low:.2f} to {estimate.high:.2f})" if estimate else _NONE


def _percent(fraction: float | None) -> str:
    return _NONE if fraction is None else f"{100 * fraction:.1f}"


def _has_errors(report: ScalingReport) -> bool:
    return any(row.absolute_error for row in report.rows)


def _notes(report: ScalingReport) -> list[str]:
    protocol = report.protocol
    vote = protocol.vote + (f" (k_meta {protocol.k_meta:g})" if protocol.k_meta else "")
    taken = f"mean of {protocol.subsets} subsets of k" if protocol.subsets else "the first k samples"
    counted = f"{report.items} items"
    if report.unlabelled:
        none = f"{report.unlabelled} items, none with a label"
        counted = f"{counted}, {report.unlabelled} without label left out" if report.items else none
    total = sum(report.outcomes.values())
    rates = ", ".join(f"{name} {100 * count / total:.1f}%" for name, count in report.outcomes.items())
    return [
        f"{counted}; vote {vote} on {taken}; ties {protocol.ties}, failures {protocol.failures}",
        f"all samples: {rates}",
    ]
