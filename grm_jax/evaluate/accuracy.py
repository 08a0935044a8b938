"""Accuracy of stored judgements against labels, with named tie and failure policies, and how it scales with k.

Accuracy is that of picking the labelled best of n >= 2 responses. Items with one response have no best: for them the
mean absolute error between label and mean score is reported beside it, never mixed in. Where no item has a label, the
rates of ties and of missing verdicts are still measured.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.data.records import Sample
from grm_jax.errors import UserError
from grm_jax.evaluate.intervals import Estimate, bootstrap_interval
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import decide, first_samples, rank
from grm_jax.keys import generator

TIES = ("expected", "half", "strict", "shuffle_argmax")
FAILURES = ("wrong", "chance")


@dataclass(frozen=True)
class Protocol:
    """How stored samples become an accuracy.

    Attributes:
        vote: voting policy, with `k_meta` as for `voting.decide`.
        ties: what an item is worth whose label shares the top score with others, t in all: "expected" 1/t, "half" 1/2,
            "strict" 0, "shuffle_argmax" 1 if the keyed shuffle of `voting.rank` puts the label first, else 0.
        failures: what an item without a verdict is worth: "wrong" 0, "chance" 1/n.
        subsets: 0 takes the first k samples; R > 0 averages over R keyed random k-subsets of each item (`subsets`), which
            estimates the same accuracy with less variance.
        seed: names the random streams (subsets, intervals).
    """

    vote: str = "sum"
    k_meta: float | None = None
    ties: str = "expected"
    failures: str = "wrong"
    subsets: int = 0
    seed: int = 0

    def __post_init__(self):
        for name, value, known in (("ties", self.ties, TIES), ("failures", self.failures, FAILURES)):
            if value not in known:
                raise UserError(f"{name}: {value!r} is not known; use one of {', '.join(known)}")
        if self.subsets < 0:
            raise UserError(f"subsets: {self.subsets} is negative; use 0 for the first k samples, or a count")


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


def item_accuracy(
    scores: Sequence[float] | None, label: int, n: int, protocol: Protocol, *, seed: int = 0, item_id: str = ""
) -> float:
    """Returns what one item of n >= 2 responses is worth, 0..1; (seed, item id) key the shuffle of "shuffle_argmax".

    Raises:
        ValueError: n = 1, which has no best response.
    """
    if n < 2:
        raise ValueError(f"item {item_id!r} has {n} response: accuracy needs two")
    if scores is None:
        return 1 / n if protocol.failures == "chance" else 0.0
    tied = sum(score == max(scores) for score in scores)
    if scores[label] < max(scores):
        return 0.0
    if tied == 1:
        return 1.0
    if protocol.ties == "shuffle_argmax":
        return float(rank(scores, seed=seed, item_id=item_id)[0] == label)
    return {"expected": 1 / tied, "half": 0.5, "strict": 0.0}[protocol.ties]


def item_values(judged: Sequence[Judged], k: int, protocol: Protocol) -> ItemValues:
    """Evaluates items at k, in the given order; two of these can be compared by `paired_difference`.

    Raises:
        UserError: an item has fewer than k samples, or the vote is impossible.
    """
    choices, labelled, errors = [], [], []
    for entry in judged:
        draws = _draws(entry, k, protocol)
        if entry.n > 1:
            choices.append(np.mean([_choice(entry, draw, protocol) for draw in draws], axis=0))
            labelled.append(entry.label is not None)
        elif entry.label is not None:
            errors += _absolute_error(entry, draws)
    accuracy, tied, failed = np.array(choices).reshape(-1, 3).T
    return ItemValues(accuracy[np.array(labelled, bool)], tied, failed, np.array(errors))


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
        rows=tuple(_row(labelled or judged, k, protocol) for k in sorted(set(ks))),
        items=len(labelled),
        unlabelled=len(judged) - len(labelled),
        outcomes=dict(outcomes.most_common()),
    )


def _row(counted: Sequence[Judged], k: int, protocol: Protocol) -> ScalingRow:
    values = item_values(counted, k, protocol)

    def estimate(array: np.ndarray) -> Estimate | None:
        return bootstrap_interval(array, seed=protocol.seed) if array.size else None

    def rate(array: np.ndarray) -> float | None:
        return float(array.mean()) if array.size else None

    return ScalingRow(
        k=k,
        accuracy=estimate(values.accuracy),
        tie_rate=rate(values.tied),
        failure_rate=rate(values.failed),
        absolute_error=estimate(values.absolute_error),
    )


def subsets(item_id: str, count: int, k: int, protocol: Protocol) -> np.ndarray:
    """Returns the k-subsets of an item's `count` samples that are averaged over, rising places int [R, k].

    They are `protocol.subsets` keyed random ones; where there are no more than that, and for k = 1, all of them.
    """
    if k == 1 or math.comb(count, k) <= protocol.subsets:
        return np.array(list(itertools.combinations(range(count), k)))
    rng = generator("subsets", protocol.seed, item_id, k)
    return np.stack([np.sort(rng.choice(count, size=k, replace=False)) for _ in range(protocol.subsets)])


def _draws(entry: Judged, k: int, protocol: Protocol) -> list[tuple[Sample, ...]]:
    judgement = entry.judgement
    if not judgement.samples and judgement.outcomes:
        return [()]  # its prompt was too long: a failure at every k
    prefix = first_samples(judgement.samples, k, f"item {judgement.id!r}")
    count = len(judgement.samples)
    if not protocol.subsets or k == count:
        return [prefix]
    everything = first_samples(judgement.samples, None, "")
    return [tuple(everything[i] for i in pick) for pick in subsets(judgement.id, count, k, protocol)]


def _choice(entry: Judged, samples: Sequence[Sample], protocol: Protocol) -> tuple[float, float, float]:
    """Returns (accuracy, tied, failed) of one vote on an item with n >= 2; the first is meaningless without a label."""
    seed, item_id = entry.judgement.seed, entry.judgement.id
    scores = decide(samples, policy=protocol.vote, k_meta=protocol.k_meta, seed=seed, item_id=item_id).scores
    accuracy = item_accuracy(scores, int(entry.label or 0), entry.n, protocol, seed=seed, item_id=item_id)
    tied = scores is not None and sum(score == max(scores) for score in scores) > 1
    return accuracy, float(tied), float(scores is None)


def _absolute_error(entry: Judged, draws: Sequence[Sequence[Sample]]) -> list[float]:
    """Returns the mean over draws of |mean score - label| as a list of one, or of none when no draw has a score."""
    drawn = [[sample.scores[0] for sample in draw if sample.scores] for draw in draws]
    errors = [abs(np.mean(scores) - float(entry.label or 0)) for scores in drawn if scores]
    return [float(np.mean(errors))] if errors else []
