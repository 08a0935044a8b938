"""How good meta scores are: do they rank right critiques above wrong ones, and are they probabilities?

A meta score is a logit; the probability it stands for is its sigmoid. Right is what Eq 10 of arXiv 2504.02495 accepts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.evaluate.intervals import LEVEL, Estimate, bootstrap_interval
from grm_jax.judge.run_store import Judged
from grm_jax.keys import generator

BINS = 10
_RESAMPLES = 1000  # of the overall AUC, which is computed anew for each


@dataclass(frozen=True)
class ScoredCritiques:
    """Critiques that have a meta score and whose truth is known; arrays over critiques.

    `logits` float64, `right` bool, `items` int: critiques of one item have one number, counted from 0.
    """

    logits: np.ndarray
    right: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class Bin:
    """Critiques whose probability p is low <= p < high (<= for the last): their count, mean p, and the share that is right.

    The last two are None in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    right: float | None


@dataclass(frozen=True)
class Calibration:
    """Figures of scored critiques.

    Attributes:
        critiques: how many there are.
        right: the share that is right: a Brier score and an error are to be read beside it.
        bins: the reliability table.
        expected_error: expected calibration error, sum over bins of count / critiques * |right - confidence|.
        brier: mean squared difference of probability and truth.
        auc: probability that a right critique scores above a wrong one, ties half, over all pairs; its interval resamples
            items. None where all are right or all wrong.
        within_item_auc: the same over pairs of one item, averaged over the items that have both: what guided voting lives on.
    """

    critiques: int
    right: float
    bins: tuple[Bin, ...]
    expected_error: float
    brier: float
    auc: Estimate | None
    within_item_auc: Estimate | None


def scored_critiques(judged: Sequence[Judged], is_right: Callable[..., bool]) -> ScoredCritiques:
    """Collects the readable, scored critiques of labelled items; `is_right(scores, label, n)` is Eq 10."""
    logits, right, items = [], [], []
    for number, entry in enumerate(entry for entry in judged if entry.label is not None):
        for sample in entry.judgement.samples:
            if sample.scores is not None and sample.meta_score is not None:
                logits.append(sample.meta_score)
                right.append(is_right(sample.scores, entry.label, entry.n))
                items.append(number)
    return ScoredCritiques(np.array(logits, np.float64), np.array(right, bool), np.array(items, np.int64))


def calibration(scored: ScoredCritiques, *, bins: int = BINS, seed: int = 0) -> Calibration:
    """Measures scored critiques; `bins` of equal width divide the probabilities, `seed` is of the intervals.

    Raises:
        ValueError: there are none.
    """
    if not scored.logits.size:
        raise ValueError("no scored critiques: calibration needs at least one")
    probability = np.exp(-np.logaddexp(0.0, -scored.logits))
    table = reliability(probability, scored.right, bins)
    gaps = [entry.count * abs(entry.right - entry.confidence) for entry in table if entry.count]  # type: ignore[operator]
    by_item = within_item_aucs(scored)
    return Calibration(
        critiques=scored.logits.size,
        right=float(scored.right.mean()),
        bins=table,
        expected_error=float(sum(gaps) / scored.logits.size),
        brier=float(np.mean((probability - scored.right) ** 2)),
        auc=_overall(scored, seed),
        within_item_auc=bootstrap_interval(by_item, seed=seed) if by_item.size else None,
    )


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Returns the reliability table of probabilities [N] in 0..1 and truths bool [N]: `bins` bins of equal width."""
    where = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(where, minlength=bins)
    confidence = np.bincount(where, weights=probability, minlength=bins)
    hits = np.bincount(where, weights=right, minlength=bins)
    return tuple(
        Bin(i / bins, (i + 1) / bins, int(n), float(p / n) if n else None, float(hit / n) if n else None)
        for i, (n, p, hit) in enumerate(zip(counts, confidence, hits, strict=True))
    )


def auc(logits: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    """Returns the probability that a right critique scores above a wrong one, ties half; None without both kinds.

    `logits` and bool `right` are [N]; `weights` [N] count each critique that many times (default: once).
    """
    _, level = np.unique(logits, return_inverse=True)
    return _auc(level, right, np.ones(len(logits)) if weights is None else weights)


def _auc(level: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float | None:
    """`auc` of scores that are given by their rank among the distinct ones, int [N]."""
    wrong = np.bincount(level, weights=weights * ~right)
    good = np.bincount(level, weights=weights * right)
    pairs = wrong.sum() * good.sum()
    if not pairs:
        return None
    below = np.cumsum(wrong) - wrong
    return float(good @ (below + wrong / 2) / pairs)


def within_item_aucs(scored: ScoredCritiques) -> np.ndarray:
    """Returns the AUC of each item that has right and wrong critiques, float64 [items]."""
    order = np.argsort(scored.items, kind="stable")
    cuts = np.flatnonzero(np.diff(scored.items[order])) + 1
    found = (auc(scored.logits[part], scored.right[part]) for part in np.split(order, cuts))
    return np.array([value for value in found if value is not None])


def _overall(scored: ScoredCritiques, seed: int) -> Estimate | None:
    value = auc(scored.logits, scored.right)
    if value is None:
        return None
    _, item = np.unique(scored.items, return_inverse=True)
    _, level = np.unique(scored.logits, return_inverse=True)
    count = int(item.max()) + 1
    rng = generator("bootstrap AUC", seed)
    # An item is drawn with all its critiques: they are not independent.
    draws = (rng.multinomial(count, np.full(count, 1 / count))[item] for _ in range(_RESAMPLES))
    values = [drawn for weights in draws if (drawn := _auc(level, scored.right, weights)) is not None]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), count)
