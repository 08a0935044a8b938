"""Figures with their bootstrap replicates.

A figure is a vector float64 [1 + R]: its value, then R values of it on resampled cases. Sums and means of figures are figures,
so whatever a benchmark averages, its interval follows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.evaluate.intervals import LEVEL
from grm_jax.keys import generator

REPLICATES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure, with the bounds of its 95% percentile bootstrap interval."""

    mean: float
    low: float
    high: float


def group_means(groups: Sequence[str], values: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Returns for each group the mean of its rows of values [cases, C] as figures [1 + R, C]; resampled within the group."""
    if not groups:
        return {}
    values = np.asarray(values, np.float64).reshape(len(groups), -1)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    means = {}
    for group, places in members.items():
        # Drawing cases with replacement is a multinomial draw over their distinct rows, of which there are few.
        rows, counts = np.unique(values[places], axis=0, return_counts=True)
        rng = generator("bootstrap benchmark", seed, group)
        drawn = rng.multinomial(len(places), counts / len(places), REPLICATES) @ rows / len(places)
        means[group] = np.concatenate([values[places].mean(axis=0)[None], drawn])
    return means


def accuracies(groups: Sequence[str], worths: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Returns for each group the mean of what its cases are worth, one number a case, as a figure [1 + R]."""
    return {group: figure[:, 0] for group, figure in group_means(groups, worths, seed).items()}


def mean(figures: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the unweighted mean of figures."""
    return np.mean(list(figures), axis=0)


def weighted(figures: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Returns the mean of figures by weights; with group sizes for weights it is the mean over all cases."""
    total = sum(weights[name] for name in figures)
    return np.sum([figures[name] * weights[name] for name in figures], axis=0) / total


def interval(figure: np.ndarray) -> Interval | None:
    """Returns a figure with its interval; None where it is not defined (NaN)."""
    if np.isnan(figure[0]):
        return None
    low, high = np.nanquantile(figure[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(figure[0]), float(low), float(high))
