"""Accuracy of stored judgements against labels, with named tie and failure policies, and how it scales with k.

Accuracy is that of picking the labelled best of n >= 2 responses. Items with one response have no best: for them the
mean absolute error between label and mean score is reported beside it, never mixed in. Where no item has a label, the
rates of ties and of missing verdicts are still measured.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.evaluate.curves import SampleTable
from grm_jax.evaluate.intervals import Estimate, bootstrap_interval, bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol, subsets
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import check_count, first_samples


@dataclass(frozen=True)
class ItemValues:
    """Float64 [items], each in 0..1: accuracy per labelled item with n >= 2; per item with n >= 2, labelled or not,
    whether the top was tied and whether it failed.

    `absolute_error` is per labelled item with n = 1 that has a score. With subsets, each is a mean over them.
    """

    accuracy: np.ndarray
    tied: np.ndarray
    failed: np.ndarray
    absolute_error: np.ndarray


@dataclass(frozen=True)
class ScalingRow:
    """Figures at one k; each is None where nothing is there to measure it.

    `accuracy` is over labelled items of n >= 2, the rates are over the same (over all of n >= 2 where no item has a
    label), `absolute_error` is over scored and labelled items of n = 1.
    """

    k: int
    accuracy: Estimate | None
    tie_rate: float | None
    failure_rate: float | None
    absolute_error: Estimate | None


@dataclass(frozen=True)
class ScalingReport:
    """Accuracy against k.

    `items` counts the labelled items that the rows are about; 0 means that none has a label and the rows are about all.
    `unlabelled` counts the others. `outcomes` counts all stored samples (and items never sampled) by outcome.
    """

    protocol: Protocol
    rows: tuple[ScalingRow, ...]
    items: int
    unlabelled: int
    outcomes: dict[str, int]


def item_values(judged: Sequence[Judged], k: int, protocol: Protocol) -> ItemValues:
    """Evaluates items at k, in the given order; two of these can be compared by `paired_difference`.

    Raises:
        UserError: an item has fewer than k samples, or the vote is impossible.
    """
    several = [entry for entry in judged if entry.n > 1]
    labelled = np.array([entry.label is not None for entry in several], bool)
    values = SampleTable(several).values(k, protocol)
    scored = [entry for entry in judged if entry.n == 1 and entry.label is not None]
    errors = np.array([error for entry in scored for error in _absolute_error(entry, k, protocol)])
    return ItemValues(values.accuracy[labelled], values.tied, values.failed, errors)


def scaling(judged: Sequence[Judged], ks: Sequence[int], protocol: Protocol) -> ScalingReport:
    """Returns accuracy, tie rate and failure rate at each k, with 95% bootstrap intervals over items.

    Items without a label are left out, unless none has one.

    Raises:
        UserError: some k is out of range for an item, or the vote is impossible.
    """
    labelled = [entry for entry in judged if entry.label is not None]
    outcomes: Counter[str] = Counter()
    for entry in judged:
        samples = entry.judgement.samples
        outcomes.update([sample.outcome for sample in samples] if samples else entry.judgement.outcomes)
    return ScalingReport(
        protocol=protocol,
        rows=_rows(labelled or judged, sorted(set(ks)), protocol),
        items=len(labelled),
        unlabelled=len(judged) - len(labelled),
        outcomes=dict(outcomes.most_common()),
    )


def _rows(counted: Sequence[Judged], ks: Sequence[int], protocol: Protocol) -> tuple[ScalingRow, ...]:
    values = [item_values(counted, k, protocol) for k in ks]
    accuracy = np.stack([each.accuracy for each in values], axis=1)
    levels: list[Estimate | None] = [None] * len(ks)
    if accuracy.size:
        levels = [*bootstrap_intervals(accuracy, seed=protocol.seed)]

    def rate(array: np.ndarray) -> float | None:
        return float(array.mean()) if array.size else None

    def error(array: np.ndarray) -> Estimate | None:
        return bootstrap_interval(array, seed=protocol.seed) if array.size else None

    return tuple(
        ScalingRow(k, level, rate(each.tied), rate(each.failed), error(each.absolute_error))
        for k, level, each in zip(ks, levels, values, strict=True)
    )


def _absolute_error(entry: Judged, k: int, protocol: Protocol) -> list[float]:
    """Returns the mean over subsets of |mean score - label| as a list of one, or of none when no subset has a score."""
    samples = first_samples(entry.judgement.samples, None, "")
    if not samples:
        return []  # its prompt was too long
    check_count(len(samples), k, f"item {entry.judgement.id!r}")
    picks = subsets(entry.judgement.id, len(samples), k, protocol)
    scores = np.array([sample.scores[0] if sample.scores else np.nan for sample in samples])[picks]  # [R, k]
    read = ~np.isnan(scores)
    means = np.where(read, scores, 0.0).sum(axis=1) / np.maximum(read.sum(axis=1), 1)
    errors = np.abs(means - float(entry.label or 0))[read.any(axis=1)]
    return [float(errors.mean())] if errors.size else []
