"""Which checkpoint is the best one: by the mean of a metric since the one before."""

from collections.abc import Mapping

from grm_jax.errors import UserError


class Score:
    """Adds up one metric between checkpoints."""

    def __init__(self, name: str):
        """`name` is that of a metric of which more is better, or with a minus in front less; "" for no score."""
        self._name, self._sign = name.removeprefix("-"), -1.0 if name.startswith("-") else 1.0
        self._values: list[float] = []

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes note of a step.

        Raises:
            UserError: it has no such metric.
        """
        if not self._name:
            return
        if self._name not in metrics:
            raise UserError(f"keep_best: there is no metric '{self._name}'; there are {', '.join(sorted(metrics))}")
        self._values.append(metrics[self._name])

    def take(self) -> float | None:
        """The score of the steps since it was last taken: higher is better, NaN if a step's was; None if there is none."""
        values, self._values = self._values, []
        return self._sign * sum(values) / len(values) if values else None
