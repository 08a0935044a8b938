"""The reliability plot: how often critiques are right, against how often their meta scores say so."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grm_jax.errors import UserError
from grm_jax.evaluate.calibration import Calibration

_BLUE, _GREY = "#0072B2", "0.4"


def reliability_figure(calibration: Calibration) -> Figure:
    """Draws one point a bin, with a 95% binomial (Wilson) interval, over the histogram of the probabilities."""
    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    held = [entry for entry in calibration.bins if entry.count]
    confidence = np.array([entry.confidence for entry in held], np.float64)
    right = np.array([entry.right for entry in held], np.float64)
    low, high = _wilson(right, np.array([entry.count for entry in held]))
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="calibrated")
    axes.axhline(calibration.right, color=_GREY, linestyle=":", linewidth=1, label="share of right critiques")
    axes.errorbar(
        confidence, right, yerr=np.abs(np.stack([right - low, high - right])), color=_BLUE, marker="o", markersize=4,
        linewidth=1, capsize=2, label=f"meta model (error {100 * calibration.expected_error:.1f} points)",
    )  # fmt: skip
    axes.set_ylabel("share that is right")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, loc="upper left", fontsize="small")
    width = 1 / len(calibration.bins)
    below.bar([entry.low for entry in calibration.bins], [entry.count for entry in calibration.bins],
              width=width, align="edge", color=_BLUE, alpha=0.4, edgecolor="white")  # fmt: skip
    below.set_xlabel("probability of being right, by the meta score")
    below.set_ylabel("critiques")
    below.set_xlim(-0.02, 1.02)
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    return figure


def save_reliability_plot(path: str | Path, calibration: Calibration) -> None:
    """Writes `reliability_figure` as a PNG at 200 dots per inch.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        reliability_figure(calibration).savefig(path, format="png", dpi=200)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% score interval of a binomial share (Wilson 1927)."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return centre - half, centre + half
