"""Means over items with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.keys import generator

RESAMPLES = 10_000
LEVEL = 0.95
_CELLS = 4_000_000  # counts held at once, to bound memory


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` items, with the bounds of its interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Estimate:
    """Returns the mean of values [items] with its percentile bootstrap interval over items.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        raise ValueError("no values: an interval needs at least one item")
    # Drawing items with replacement is a multinomial draw over the distinct values, of which accuracies have few.
    distinct, counts = np.unique(values, return_counts=True)
    rng = generator("bootstrap", seed)
    at_once = max(1, _CELLS // distinct.size)
    means = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        means.append(rng.multinomial(values.size, counts / values.size, size=size) @ distinct / values.size)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high), values.size)


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Returns mean(a - b) with its interval; a and b [items] hold the same items in the same order.

    Raises:
        ValueError: the lengths differ or are zero.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"values of {first.size} and of {second.size} items cannot be paired")
    return bootstrap_interval(first - second, seed=seed, resamples=resamples, level=level)


def bootstrap_intervals(
    values: np.ndarray, *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> list[Estimate]:
    """Returns for each column of values [items, columns] its mean with its percentile bootstrap interval over items.

    The columns share their resamples, so many are as quick as one; a column of differences gives a paired interval.

    Raises:
        ValueError: there are no items.
    """
    values = np.asarray(values, dtype=np.float64)
    items, columns = values.shape
    if not items:
        raise ValueError("no values: an interval needs at least one item")
    rng = generator("bootstrap columns", seed)
    means = np.empty((resamples, columns))
    at_once = max(1, _CELLS // items)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = rng.integers(0, items, (size, items)) + np.arange(size)[:, None] * items
        counts = np.bincount(drawn.ravel(), minlength=size * items).reshape(size, items)
        means[start : start + size] = counts.astype(np.float64) @ values / items
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    whole = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Estimate(mean, least, most, items) for mean, least, most in whole]
