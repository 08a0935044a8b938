"""Votes: reductions from the samples of an item to a verdict. Nothing is sampled here.

Only samples with outcome "ok" vote. With S[j, i] the score that voter j gives response i, the policies are:

    sum        sum_j S[j, i]                            (Eq 14 of arXiv 2504.02495; m voters: one of m..10m)
    mean       sum_j S[j, i] / m
    majority   each voter splits one vote evenly among the responses it scores highest
    rank       Borda: each voter gives i the number of responses below it, plus half of those level with it
    meta_topk  sum over the k_meta voters with the highest meta score (the same paper; k_meta = k / 2); k_meta below 1 is a share
               of the voters (`guided_count`)
    meta_soft  mean weighted by sigmoid(meta score): the meta model is trained with binary cross-entropy, so that is its
               probability that the critique is right; unlike a softmax it does not let one sample outshout all others
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grm_jax.data.records import PROMPT_TOO_LONG, Judgement, Sample
from grm_jax.errors import UserError
from grm_jax.keys import generator


@dataclass(frozen=True)
class Verdict:
    """What a vote decides: `scores` and `best` are None and `ranking` empty when no sample could vote.

    `ranking` lists response indices, best first. `used` counts the samples that voted.
    """

    scores: tuple[int | float, ...] | None
    best: int | None
    ranking: tuple[int, ...]
    used: int


def vote(judgement: Judgement, *, policy: str = "sum", k: int | None = None, k_meta: float | None = None) -> Judgement:
    """Votes again on the first k samples of a judgement (default: all it has) and returns the judgement so decided.

    The samples all stay, so it can be voted on again with any other k. An item that was never sampled stays without a
    verdict at every k.

    Raises:
        UserError: unknown policy, k above the number of samples, k_meta above k, or meta scores missing.
    """
    where = f"item {judgement.id!r}"
    if judgement.samples or not judgement.outcomes:
        voters = first_samples(judgement.samples, k, where)
        outcomes = dict(Counter(sample.outcome for sample in voters))
    else:
        voters, outcomes = (), dict(judgement.outcomes)
    verdict = decide(voters, policy=policy, k_meta=k_meta, seed=judgement.seed, item_id=judgement.id)
    return replace(
        judgement,
        scores=verdict.scores,
        best=verdict.best,
        ranking=verdict.ranking,
        k=len(voters),
        vote=policy,
        outcomes=outcomes,
    )


def unvoted(
    item_id: str, samples: Sequence[Sample], *, model: str, template: str, seed: int, seconds: float | None = None
) -> Judgement:
    """Returns the judgement of an item before any vote. An item without samples is one whose prompt was too long."""
    return Judgement(
        id=item_id,
        scores=None,
        best=None,
        ranking=(),
        k=0,
        vote="",
        samples=tuple(sorted(samples, key=lambda sample: sample.index)),
        outcomes={} if samples else {PROMPT_TOO_LONG: 1},
        model=model,
        template=template,
        seed=seed,
        seconds=seconds,
    )


def decide(
    samples: Sequence[Sample], *, policy: str = "sum", k_meta: float | None = None, seed: int, item_id: str
) -> Verdict:
    """Reduces samples of one item to a verdict. `k_meta` belongs to meta_topk; default: half of the voters.

    With fewer ok samples than `k_meta`, all of them vote. Equal scores are ranked by `rank`.

    Raises:
        UserError: unknown policy, k_meta misplaced or out of 1..len(samples), or meta scores missing.
    """
    where = f"item {item_id!r}"
    if policy not in POLICIES:
        raise UserError(f"vote: {policy!r} is not known; use one of {', '.join(POLICIES)}")
    if k_meta is not None and policy != "meta_topk":
        raise UserError(f"k_meta: the vote '{policy}' does not use it; leave it out or vote meta_topk")
    if k_meta is not None and samples and not fits(k_meta, len(samples)):
        raise UserError(f"{where}: k_meta = {k_meta:g} does not fit k = {len(samples)}; use {fitting(len(samples))}")
    voters = sorted((sample for sample in samples if sample.outcome == "ok"), key=lambda sample: sample.index)
    if policy in ("meta_topk", "meta_soft"):
        _check_meta_scores(voters, policy, where)
    if policy == "meta_topk":
        # sorted is stable, so of equal meta scores the earlier sample stays
        best_first = sorted(voters, key=lambda sample: -(sample.meta_score or 0.0))
        voters = best_first[: int(guided_count(k_meta, np.array(len(voters))))]
    if not voters:
        return Verdict(None, None, (), 0)
    scores = POLICIES[policy](np.array([voter.scores for voter in voters]), voters)
    ranking = rank(scores, seed=seed, item_id=item_id)
    return Verdict(scores, ranking[0], ranking, len(voters))


def rank(scores: Sequence[float], *, seed: int, item_id: str) -> tuple[int, ...]:
    """Ranks response indices, best first; equal scores fall as in a shuffle keyed by (seed, item id).

    So `best` is the argmax after a seeded shuffle (arXiv 2504.02495, evaluation protocol).
    """
    shuffled = range(len(scores))
    if len(set(scores)) < len(scores):
        shuffled = generator("ties", seed, item_id).permutation(len(scores)).tolist()
    return tuple(sorted(shuffled, key=lambda response: -scores[response]))


def guided_count(k_meta: float | None, voters: np.ndarray) -> np.ndarray:
    """How many critiques a guided vote keeps.

    Args:
        k_meta: a count; below 1 a share of the voters, rounded up; None is half of them.
        voters: int [...], critiques that can vote.

    Returns:
        int, of the same shape; a count may be more than the voters there are.
    """
    if k_meta is not None and k_meta >= 1:
        return np.full_like(voters, int(k_meta))
    # A product that is whole but for rounding, as 0.55 * 20, is not rounded up past itself.
    return np.ceil((k_meta or 0.5) * voters - 1e-9).astype(voters.dtype)


def fits(k_meta: float, k: int) -> bool:
    """Whether a guided vote on k samples can have this `k_meta`: a share above 0, or a whole number from 1 to k."""
    return 0 < k_meta < 1 or (float(k_meta).is_integer() and 1 <= k_meta <= k)


def fitting(k: int) -> str:
    """What `fits` takes, for a message."""
    return f"1..{k}, or a share between 0 and 1"


def first_samples(samples: Sequence[Sample], k: int | None, where: str) -> tuple[Sample, ...]:
    """Returns the k samples of lowest index (default: all), in order of index.

    Raises:
        UserError: k is not in 1..len(samples).
    """
    ordered = tuple(sorted(samples, key=lambda sample: sample.index))
    if k is not None and not 1 <= k <= len(ordered):
        remedy = f"use 1..{len(ordered)}" if ordered else "sample it first"
        raise UserError(f"{where}: has {len(ordered)} samples, k = {k} is asked; {remedy}")
    return ordered[:k]


def _check_meta_scores(voters: Sequence[Sample], policy: str, where: str) -> None:
    for voter in voters:
        if voter.meta_score is None:
            problem = f"sample {voter.index} has no meta score, which the vote '{policy}' needs"
            raise UserError(f"{where}: {problem}; judge with a meta model or vote sum")


def _sum(scores: np.ndarray, voters: Sequence[Sample]) -> tuple[int, ...]:
    return tuple(scores.sum(axis=0).tolist())


def _mean(scores: np.ndarray, voters: Sequence[Sample]) -> tuple[float, ...]:
    return tuple((scores.sum(axis=0) / len(scores)).tolist())


def _majority(scores: np.ndarray, voters: Sequence[Sample]) -> tuple[float, ...]:
    top = scores == scores.max(axis=1, keepdims=True)
    winners = top.sum(axis=1).tolist()
    # Shares in units of one over their common multiple are Python integers: equal totals stay exactly equal.
    unit = math.lcm(*winners)
    shares = np.array([unit // count for count in winners], dtype=object)
    return tuple(int(total) / unit for total in shares @ top.astype(object))


def _rank(scores: np.ndarray, voters: Sequence[Sample]) -> tuple[float, ...]:
    difference = scores[:, :, None] - scores[:, None, :]
    level = (difference == 0).sum(axis=(0, 2)) - len(scores)
    return tuple(((difference > 0).sum(axis=(0, 2)) + level / 2).tolist())


def _meta_soft(scores: np.ndarray, voters: Sequence[Sample]) -> tuple[float, ...]:
    log_weights = -np.logaddexp(0.0, -np.array([voter.meta_score for voter in voters]))
    weights = np.exp(log_weights - log_weights.max())
    return tuple(((weights[:, None] * scores).sum(axis=0) / weights.sum()).tolist())


POLICIES: dict[str, Callable[[np.ndarray, Sequence[Sample]], tuple[int, ...] | tuple[float, ...]]] = {
    "sum": _sum,
    "mean": _mean,
    "majority": _majority,
    "rank": _rank,
    "meta_topk": _sum,
    "meta_soft": _meta_soft,
}
"""Voting policies by name: (scores of the voters, int [voters, n]; the voters) -> one total a response."""
