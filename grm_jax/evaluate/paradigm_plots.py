"""Plots of a comparison of paradigms: accuracy against k, and model sizes against k (as Figure 4 of arXiv 2504.02495)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

# Okabe and Ito's palette: told apart with any colour vision; markers tell the curves apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv*P"
_DASHES = (":", "--", "-.", (0, (6, 2, 1, 2, 1, 2)))


def paradigm_figure(report: Mapping[str, Any]) -> Figure:
    """Draws the rows of the largest size: a line with its 95% band for what samples, a level for what has one verdict."""
    figure, (axes,) = _figure(7.2, 4.4, 1)
    ks = report["protocol"]["ks"]
    rows = [row for row in report["rows"] if row["size"] in ("", report["largest"])]
    for number, row in enumerate(row for row in rows if row["samples"] > 1):
        _curve(axes, ks, row["points"], number, row["title"])
    for number, row in enumerate(row for row in rows if row["samples"] == 1):
        style = _DASHES[number % len(_DASHES)]
        axes.axhline(
            100 * row["points"][0]["mean"], color="0.4", linestyle=style, linewidth=1, label=row["title"], zorder=1
        )
    _by_k(axes, ks)
    axes.set_ylabel("accuracy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    return figure


def size_figure(report: Mapping[str, Any]) -> Figure:
    """Draws the GRM twice: against its parameters with a line for each k, and against k with a line for each size.

    BTRM, which has no k, stands in the first.
    """
    figure, (by_size, by_k) = _figure(8.2, 3.6, 2)
    ks = report["protocol"]["ks"]
    sizes = report["sizes"]
    parameters = [shape["parameters"] for shape in sizes.values()]
    points = {(row["name"], row["size"]): row["points"] for row in report["rows"]}
    for number, k in enumerate(ks):
        _curve(by_size, parameters, [points["grm", size][number] for size in sizes], number, f"GRM, k = {k}")
    levels = [100 * points["btrm", size][0]["mean"] for size in sizes]
    by_size.plot(parameters, levels, color="0.4", linestyle="--", marker="x", markersize=4, label="BTRM")
    by_size.set_xscale("log")
    by_size.xaxis.set_major_locator(FixedLocator(parameters))
    by_size.xaxis.set_minor_locator(NullLocator())
    by_size.set_xticklabels([f"{count / 1e6:.2f}" for count in parameters])
    by_size.set_xlabel("parameters (millions): training-time scaling")
    by_size.set_ylabel("accuracy (%)")
    for number, (size, shape) in enumerate(sizes.items()):
        _curve(by_k, ks, points["grm", size], number, f"GRM, {shape['parameters'] / 1e6:.2f}M")
    _by_k(by_k, ks)
    by_k.set_xlabel("samples per item, k: inference-time scaling")
    for axes in (by_size, by_k):
        axes.legend(frameon=False, loc="best", fontsize="small")
    return figure


def save_paradigm_plot(path: str | Path, report: Mapping[str, Any]) -> None:
    """Writes `paradigm_figure` as a PNG at 200 dots per inch."""
    paradigm_figure(report).savefig(path, format="png", dpi=200)


def save_size_plot(path: str | Path, report: Mapping[str, Any]) -> None:
    """Writes `size_figure` as a PNG at 200 dots per inch."""
    size_figure(report).savefig(path, format="png", dpi=200)


def _figure(width: float, height: float, panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curve(axes: Axes, xs: Any, points: Any, number: int, label: str) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    axes.plot(xs, [100 * p["mean"] for p in points], color=colour, marker=marker, markersize=4, label=label)
    low, high = ([100 * p[end] for p in points] for end in ("low", "high"))
    axes.fill_between(xs, low, high, color=colour, alpha=0.1, linewidth=0)


def _by_k(axes: Axes, ks: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("samples per item, k")
