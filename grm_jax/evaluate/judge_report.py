"""Everything a report says of a judge, as one JSON object, from stored samples alone.

    run          model, template, seed, items, samples an item
    protocol     vote, ties, failures, subsets
    benchmark    of a benchmark's run: name, table (head, rows) and notes of its own protocol, and the record they are of
    anytime      what a rule to stop by saves and costs: its figures (`anytime.Anytime`) and notes; None without a rule
    accuracy     group -> [{k, mean, low, high, count}]; "all" first, then each domain where there are several
    rates        of samples by outcome; at the largest k: tied, failed
    flips        share of pairs whose winner changes with the order they are shown in: mean, low, high, count
    length       points a critique gives a response more for each doubling of its length, within items
    scores       counts of the scores 1 to 10: of the labelled responses, of the others, of all where nothing is labelled
    signal       right: probability that a critique scores the labelled response above another, ties half; agree: that two
                 critiques of an item name the same winner
    principles   how many a critique states, and how many times each of the most frequent is stated
    weighted     whether scores follow from the weights and sub-scores that critiques state, as in `weighted_scores`
    meta         calibration of meta scores
    curves       accuracy of every vote at every k beside the baselines, as in `vote_curves`; None without labels
    cost         tokens a critique, tokens and seconds a judgement for each k, as in `cost`

Estimates are None where nothing is there to measure them. Letters: k samples, n responses.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.data.records import Item, Sample
from grm_jax.evaluate.accuracy import scaling
from grm_jax.evaluate.calibration import calibration, scored_critiques
from grm_jax.evaluate.cost import cost
from grm_jax.evaluate.intervals import bootstrap_interval
from grm_jax.evaluate.protocol import Protocol
from grm_jax.evaluate.weighted_scores import weighted_scores
from grm_jax.judge.run_store import Judged
from grm_jax.judge.run_times import Spent

ALL = "all"
_LOWEST, _HIGHEST = 1, 10
_STATED = 20  # principles that are listed


def judge_report(
    judged: Sequence[Judged],
    ks: Sequence[int],
    protocol: Protocol,
    is_right: Callable[..., bool],
    *,
    run: Mapping[str, Any],
    items: Mapping[str, Item] | None = None,
    curves: Mapping[str, Any] | None = None,
    times: Mapping[str, Spent] | None = None,
    benchmark: Mapping[str, Any] | None = None,
    anytime: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Makes the report of the module.

    Args:
        judged: the stored judgements.
        ks: rising; no item that was sampled has fewer than the largest.
        protocol: of votes and accuracy.
        is_right: (scores, label, n) -> whether a critique is right, Eq 10 of arXiv 2504.02495.
        run: what names the run: model, template, seed.
        items: the texts, by id; without them nothing is said of length.
        curves: of `vote_curves`.
        times: of the run.
        benchmark: as in the module's.
        anytime: likewise.

    Raises:
        UserError: as `scaling`.
    """
    domains = sorted({entry.domain for entry in judged if entry.domain})
    groups = {ALL: list(judged)}
    if len(domains) > 1:
        groups |= {name: [entry for entry in judged if entry.domain == name] for name in domains}
    reports = {name: scaling(members, ks, protocol) for name, members in groups.items()}
    whole, last = reports[ALL], reports[ALL].rows[-1]
    samples = [(entry, sample) for entry in judged for sample in entry.judgement.samples]
    total = sum(whole.outcomes.values())
    scored = scored_critiques(judged, is_right)
    return {
        "run": {**run, "items": len(judged), "samples": max((len(e.judgement.samples) for e in judged), default=0)},
        "protocol": {
            name: getattr(protocol, name) for name in ("vote", "k_meta", "ties", "failures", "subsets", "seed")
        },
        "benchmark": benchmark,
        "anytime": anytime,
        "accuracy": {
            name: [{"k": row.k, **dataclasses.asdict(row.accuracy)} for row in report.rows if row.accuracy]
            for name, report in reports.items()
        },
        "rates": {
            "outcomes": {name: count / total for name, count in whole.outcomes.items()},
            "k": last.k, "tied": last.tie_rate, "failed": last.failure_rate,
        },
        "flips": _estimate([flip for entry in judged if (flip := flipped(entry)) is not None], protocol.seed),
        "length": _length(judged, items or {}, protocol.seed),
        "scores": _score_counts(samples),
        "signal": _signal(judged, protocol.seed),
        "principles": _principles([sample for _, sample in samples]),
        "weighted": weighted_scores(judged, seed=protocol.seed),
        "meta": dataclasses.asdict(calibration(scored, seed=protocol.seed)) if scored.logits.size else None,
        "curves": curves,
        "cost": cost(judged, ks, times),
    }  # fmt: skip


def flipped(entry: Judged) -> float | None:
    """Whether the winner of a pair changes with the order: the votes of the critiques in each order are summed apart.

    Returns:
        1 or 0, and one half where one of the two votes is tied; None for other items, and for one that lacks an order.
    """
    if entry.n != 2:
        return None
    margins: dict[tuple[int, ...], int] = {}
    for sample in _readable(entry):
        assert sample.scores is not None
        margins[sample.order] = margins.get(sample.order, 0) + sample.scores[0] - sample.scores[1]
    if len(margins) < 2:
        return None
    signs = [int(np.sign(margin)) for margin in margins.values()]
    return 0.0 if signs[0] == signs[1] else 1.0 if 0 not in signs else 0.5


def length_slope(scores: np.ndarray, lengths: Sequence[int]) -> float | None:
    """Points more for each doubling of a response's length: the least-squares slope within an item.

    Args:
        scores: float [k, n].
        lengths: characters of the n responses.

    Returns:
        The slope, averaged over critiques; None where all are equally long.
    """
    doublings = np.log2(np.maximum(np.asarray(lengths, np.float64), 1.0))
    doublings -= doublings.mean()
    spread = float(doublings @ doublings)
    return float((scores @ doublings).mean() / spread) if spread > 1e-12 else None


def _length(judged: Sequence[Judged], items: Mapping[str, Item], seed: int) -> dict[str, Any] | None:
    slopes = []
    for entry in judged:
        item, readable = items.get(entry.judgement.id), _readable(entry)
        if item and entry.n > 1 and readable:
            scores = np.array([sample.scores for sample in readable], np.float64)
            slopes.append(length_slope(scores, [len(response) for response in item.responses]))
    return _estimate([slope for slope in slopes if slope is not None], seed)


def _score_counts(samples: Sequence[tuple[Judged, Sample]]) -> dict[str, list[int]]:
    counts = {name: [0] * _HIGHEST for name in ("labelled", "others", "unlabelled")}
    for entry, sample in samples:
        for response, score in enumerate(sample.scores or ()):
            best = entry.label is not None and entry.n > 1
            name = "unlabelled" if not best else "labelled" if response == entry.label else "others"
            counts[name][score - _LOWEST] += 1
    return {name: values for name, values in counts.items() if any(values)}


def _signal(judged: Sequence[Judged], seed: int) -> dict[str, Any]:
    right, agree = [], []
    for entry in judged:
        readable = _readable(entry)
        if entry.n < 2 or not readable:
            continue
        scores = np.array([sample.scores for sample in readable])
        if entry.label is not None:
            others = np.delete(scores, int(entry.label), axis=1)
            best = scores[:, int(entry.label)][:, None]
            right.append(float(((best > others) + 0.5 * (best == others)).mean()))
        if len(scores) > 1:
            tops = scores == scores.max(axis=1, keepdims=True)
            shares = tops / tops.sum(axis=1, keepdims=True)  # a tied top names each of its responses a little
            k, sums = len(shares), shares.sum(axis=0)
            agree.append(float((sums @ sums - (shares**2).sum()) / (k * (k - 1))))  # the mean over pairs of a . b
    return {"right": _estimate(right, seed), "agree": _estimate(agree, seed)}


def _principles(samples: Sequence[Sample]) -> dict[str, Any]:
    stated = Counter(principle.text for sample in samples for principle in sample.principles)
    return {
        "each": sum(stated.values()) / len(samples) if samples else 0.0,
        "different": len(stated),
        "most": [{"text": text, "count": count} for text, count in stated.most_common(_STATED)],
    }


def _estimate(values: Sequence[float], seed: int) -> dict[str, Any] | None:
    return dataclasses.asdict(bootstrap_interval(values, seed=seed)) if len(values) else None


def _readable(entry: Judged) -> list[Sample]:
    return [sample for sample in entry.judgement.samples if sample.scores is not None]


def finite(value: Any) -> Any:
    """The same with None for what JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value
