"""The scaling plot: accuracy of the votes against the number of critiques, and against the tokens they cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from grm_jax.errors import UserError
from grm_jax.evaluate.svg import Series
from grm_jax.evaluate.vote_tables import GREEDY, levels, series

# Okabe and Ito's palette: told apart with any colour vision; markers tell the curves apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dv*"


def scaling_figure(curves: Mapping[str, Any] | None) -> Figure:
    """Draws the curves of `vote_curves` twice, on log2 axes: against k with the baselines as levels, and against tokens.

    The band is the 95% interval of the sum.

    Raises:
        UserError: there are none.
    """
    if curves is None:
        raise UserError("plot: no labelled item with two responses or more; give some to draw accuracy")
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    by_k, by_tokens = figure.subplots(1, 2, sharey=True)
    _draw(by_k, series(curves))
    for (name, value), style in zip(levels(curves), ("--", ":") if curves["greedy"] else (":",), strict=True):
        by_k.axhline(value, color="0.4", linestyle=style, linewidth=1, label=name, zorder=1)
    by_k.set_xlabel("critiques per item, k")
    by_k.set_ylabel("accuracy (%)")
    _draw(by_tokens, series(curves, by_tokens=True))
    by_tokens.set_xlabel("generated tokens per judgement")
    by_k.legend(frameon=False, loc="best", fontsize="small")
    return figure


def save_scaling_plot(path: str | Path, curves: Mapping[str, Any] | None) -> None:
    """Writes `scaling_figure` as a PNG at 200 dots per inch.

    Raises:
        UserError: as `scaling_figure`, or the file cannot be written.
    """
    figure = scaling_figure(curves)
    try:
        figure.savefig(path, format="png", dpi=200)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def _draw(axes: Axes, lines: list[Series]) -> None:
    ticks: set[float] = set()
    for number, line in enumerate(lines):
        xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
        if line.name == GREEDY:
            axes.plot(xs, ys, markersize=4, label=line.name, color="0.25", marker="X", linestyle="")
            continue
        ticks.update(xs)
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.plot(xs, ys, markersize=4, label=line.name, color=colour, marker=marker)
        if line.bands:
            low, high = [low for low, _ in line.bands], [high for _, high in line.bands]
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.spines[["top", "right"]].set_visible(False)
