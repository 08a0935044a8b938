"""The scaling plot: accuracy against the number of samples."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import ScalingReport

# Okabe and Ito's palette: told apart with any colour vision; markers tell the curves apart in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dv*"


def scaling_figure(curves: Mapping[str, ScalingReport]) -> Figure:
    """Draws accuracy (%) against k on a log2 axis: one curve a report with its 95% band, named by its key.

    A dashed line continues the accuracy of one sample of the first curve that has k = 1.

    Raises:
        UserError: no report has a labelled item with two responses or more.
    """
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    baseline = None
    ticks = set()
    for number, (name, report) in enumerate(curves.items()):
        points = [(row.k, row.accuracy) for row in report.rows if row.accuracy is not None]
        ks = [k for k, _ in points]
        ticks.update(ks)
        colour = _COLOURS[number % len(_COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(ks, [100 * e.mean for _, e in points], color=colour, marker=marker, markersize=4, label=name)
        low, high = ([100 * getattr(e, end) for _, e in points] for end in ("low", "high"))
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
        if baseline is None:
            baseline = next((100 * estimate.mean for k, estimate in points if k == 1), None)
    if not ticks:
        raise UserError("plot: no labelled item with two responses or more; give some to draw accuracy")
    if baseline is not None:
        axes.axhline(baseline, color="0.4", linestyle="--", linewidth=1, label="one sample", zorder=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("samples per item, k")
    axes.set_ylabel("accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    return figure


def save_scaling_plot(path: str | Path, curves: Mapping[str, ScalingReport]) -> None:
    """Writes `scaling_figure` as a PNG at 200 dots per inch.

    Raises:
        UserError: as `scaling_figure`, or the file cannot be written.
    """
    figure = scaling_figure(curves)
    try:
        figure.savefig(path, format="png", dpi=200)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path") from None
