"""Plots of a training run: every metric against the step."""

from pathlib import Path
from typing import Any

from grm_jax.errors import UserError
from grm_jax.train.metrics import FILE, WALL_CLOCK, read_rows

PLOT = Path("plots") / "training.png"
_COLUMNS = 3
_LAST = ("learning_rate", "weight", "skipped_steps", *WALL_CLOCK)  # after what is learnt comes what it took


def training_figure(rows: list[dict[str, Any]]) -> Any:
    """Draws one panel a metric, in the order of the rows, with the losses first and times last; a matplotlib Figure.

    Args:
        rows: of metrics.jsonl; a metric may be missing in some.
    """
    from matplotlib.figure import Figure

    found = dict.fromkeys(name for row in rows for name in row if name != "step")
    names = [name for name in found if name not in _LAST] + [name for name in _LAST if name in found]
    height = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(4.0 * _COLUMNS, 2.6 * height), layout="constrained")
    for axes, name in zip(
        figure.subplots(height, _COLUMNS, squeeze=False).flat, names + [None] * _COLUMNS, strict=False
    ):
        if name is None:
            axes.set_axis_off()
            continue
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1.2, marker="." if len(points) < 20 else None)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure


def save_training_plots(folder: Path) -> None:
    """Draws a run's metrics.jsonl to plots/training.png; nothing if there are no rows.

    Raises:
        UserError: the file cannot be written.
    """
    rows = read_rows(folder / FILE)
    if not rows:
        return
    path = folder / PLOT
    try:
        path.parent.mkdir(exist_ok=True)
        training_figure(rows).savefig(path, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); make room there") from None
