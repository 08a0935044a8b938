"""The comparison of paradigms as Markdown, and its short form for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def to_markdown(report: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """Writes a report of `paradigm_report`, with `largest`, `sizes` and `minutes`; percentages with 95% intervals over items.

    `plots` are file names to show.
    """
    protocol = report["protocol"]
    ks, most = protocol["ks"], protocol["ks"][-1]
    lines = ["# Paradigms", ""]
    lines += [
        f"{report['items']} items, samples at temperature {report['temperature']:g}; k = 1 is the mean over all samples, a larger "
        f"k below {most} that over {protocol['subsets']} random subsets. A tie of t responses is worth 1/t, no verdict 0."
    ]
    lines += [line for name in plots for line in ("", f"![{name.removesuffix('.png')}]({name})")]
    here = [row for row in report["rows"] if row["size"] in ("", report["largest"])]
    head = [
        "paradigm",
        "kind",
        "vote",
        *(f"k = {k}" for k in ks),
        f"less GRM, k = {ks[0]}",
        f"k = {most}",
        "tokens",
        "unread",
    ]
    lines += ["", f"## At size {report['largest']}", "", *_table(head, [_line(row) for row in here])]
    lines += ["", "## Sizes", "", *_table(*_sizes(report))]
    if report.get("minutes"):
        lines += [
            "",
            "## Time",
            "",
            *_table(["stage", "minutes"], [[n, f"{m:.1f}"] for n, m in report["minutes"].items()]),
        ]
    return "\n".join(lines) + "\n"


def summary(report: Mapping[str, Any]) -> str:
    """Returns the accuracy of every row as plain text for a terminal."""
    ks = report["protocol"]["ks"]
    width = max(len(_name(row)) for row in report["rows"])
    lines = [f"{'paradigm':{width}}" + "".join(f"{f'@{k}':>7}" for k in ks)]
    for row in report["rows"]:
        points = row["points"] if row["samples"] > 1 else row["points"][:1]
        lines.append(f"{_name(row):{width}}" + "".join(f"{100 * point['mean']:7.1f}" for point in points))
    return "\n".join(lines)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['title']} ({row['size']})" if row["size"] else str(row["title"])


def _line(row: Mapping[str, Any]) -> list[str]:
    samples = row["samples"] > 1
    points = row["points"]
    levels = [_interval(points[0]), *(f"{100 * point['mean']:.1f}" for point in points[1:-1])]
    levels = [*levels, _interval(points[-1])] if len(points) > 1 else levels
    levels = levels if samples else [levels[0], *[""] * (len(points) - 1)]
    differences = [_interval(each, sign="+") for each in row["differences"]]
    ends = [differences[0], differences[-1]] if differences else ["", ""]
    cost = [f"{row['tokens']:.0f}", f"{100 * row['unread']:.1f}%"] if samples else ["", ""]
    return [row["title"], " ".join(filter(None, (row["kind"], row["mode"]))), row["vote"], *levels, *ends, *cost]


def _sizes(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    ks = report["protocol"]["ks"]
    cells = []
    for size, shape in report["sizes"].items():
        about = [size, f"{shape['parameters']:,}", str(shape["model_dim"]), str(shape["num_layers"])]
        for row in report["rows"]:
            if row["size"] == size and row["name"] in ("grm", "btrm"):
                points = row["points"] if row["samples"] > 1 else row["points"][:1]
                levels = [_interval(point) for point in points] + [""] * (len(ks) - len(points))
                cells.append([*about, row["title"], *levels])
    return ["size", "parameters", "D", "layers", "paradigm", *(f"k = {k}" for k in ks)], cells


def _interval(estimate: Mapping[str, float], sign: str = "") -> str:
    mean, low, high = (100 * estimate[name] for name in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} ({low:.1f} to {high:.1f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
