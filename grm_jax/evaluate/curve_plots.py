"""The scaling plot over several judges: one panel a temperature, a colour a judge, a line style a vote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from grm_jax.errors import UserError
from grm_jax.evaluate.curve_report import GREEDY, META, VOTING

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's, as in evaluate.plots
_STYLES: dict[str, tuple[Any, str, str]] = {
    VOTING: ("-", "o", "Voting"),
    META: ("--", "^", "MetaRM"),
    GREEDY: (":", "", "greedy"),
}


def curve_figure(report: Mapping[str, Any], group: str) -> Figure:
    """Draws accuracy (%) against k on a log2 axis with 95% bands; greedy accuracy is a dotted level.

    Raises:
        UserError: the report has no such group.
    """
    rows = [row for row in report["points"] if row["group"] == group]
    if not rows:
        raise UserError(f"plot: the report has no group {group!r}; it has {', '.join(report['items'])}")
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows if row["temperature"]))
    figure = Figure(figsize=(0.6 + 3.9 * len(temperatures), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(temperatures), sharey=True, squeeze=False)[0]
    for axes, temperature in zip(panels, temperatures, strict=True):
        for judge, colour in zip(judges, _COLOURS, strict=False):
            for vote, (style, marker, _) in _STYLES.items():
                mine = [row for row in rows if (row["judge"], row["vote"]) == (judge, vote)]
                if vote == GREEDY:
                    for row in mine:
                        axes.axhline(100 * row["mean"], color=colour, linestyle=style, linewidth=1, zorder=1)
                    continue
                mine = [row for row in mine if row["temperature"] == temperature]
                ks = [row["k"] for row in mine]
                low, high = ([100 * row[end] for row in mine] for end in ("low", "high"))
                axes.plot(
                    ks, [100 * row["mean"] for row in mine], color=colour, linestyle=style, marker=marker, markersize=4
                )
                axes.fill_between(ks, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set_title(f"temperature {temperature:g}", fontsize="medium")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted({row["k"] for row in rows})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("critiques per item, k")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy (%)")
    votes = [vote for vote in _STYLES if any(row["vote"] == vote for row in rows)]
    handles = [Line2D([], [], color=colour, label=judge) for judge, colour in zip(judges, _COLOURS, strict=False)]
    handles += [Line2D([], [], color="0.3", linestyle=_STYLES[v][0], marker=_STYLES[v][1], markersize=4, label=_STYLES[v][2])
                for v in votes]  # fmt: skip
    panels[-1].legend(handles=handles, frameon=False, loc="best", fontsize="small")
    return figure


def save_curve_plot(path: str | Path, report: Mapping[str, Any], group: str) -> None:
    """Writes `curve_figure` as a PNG at 200 dots per inch.

    Raises:
        UserError: as `curve_figure`, or the file cannot be written.
    """
    figure = curve_figure(report, group)
    try:
        figure.savefig(path, format="png", dpi=200)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path") from None
