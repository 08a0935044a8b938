"""From the samples of an item to a verdict; nothing is sampled here. What each policy adds up is in `tally`.

Only samples with outcome "ok" vote.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from grm_jax.data.records import PROMPT_TOO_LONG, Judgement, Sample
from grm_jax.errors import UserError
from grm_jax.judge.tally import GUIDED, POLICIES, Ballots, count
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
        stop=None,
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
    check_vote(policy, k_meta, len(samples) or None, where)
    voters = sorted((sample for sample in samples if sample.outcome == "ok"), key=lambda sample: sample.index)
    unscored = next((voter for voter in voters if voter.meta_score is None), None)
    if policy in GUIDED and unscored:
        raise no_meta_score(unscored.index, policy, where)
    if not voters:
        return Verdict(None, None, (), 0)
    ballots = Ballots.of([voter.scores or () for voter in voters], [voter.meta_score or 0.0 for voter in voters])
    tally = count(ballots, np.ones((1, len(voters)), bool), policy, k_meta)
    scores = tuple(tally.totals[0].tolist())
    ranking = rank(scores, seed=seed, item_id=item_id)
    return Verdict(scores, ranking[0], ranking, int(tally.used[0]))


def rank(scores: Sequence[float], *, seed: int, item_id: str) -> tuple[int, ...]:
    """Ranks response indices, best first; equal scores fall as in a shuffle keyed by (seed, item id).

    So `best` is the argmax after a seeded shuffle (arXiv 2504.02495, evaluation protocol).
    """
    shuffled = range(len(scores))
    if len(set(scores)) < len(scores):
        shuffled = tie_order(len(scores), seed=seed, item_id=item_id).tolist()
    return tuple(sorted(shuffled, key=lambda response: -scores[response]))


def tie_order(n: int, *, seed: int, item_id: str) -> np.ndarray:
    """Returns the keyed shuffle of an item's responses, int [n]: of equal ones that which stands first here is ranked first."""
    return generator("ties", seed, item_id).permutation(n)


def check_vote(policy: str, k_meta: float | None, k: int | None = None, where: str = "vote") -> None:
    """Refuses a vote that means nothing; without k, what is wrong at every k.

    Raises:
        UserError: an unknown policy, a k_meta misplaced or out of 1..k.
    """
    if policy not in POLICIES:
        raise UserError(f"vote: {policy!r} is not known; use one of {', '.join(POLICIES)}")
    if k_meta is not None and policy != "meta_topk":
        raise UserError(f"k_meta: the vote '{policy}' does not use it; leave it out or vote meta_topk")
    if k_meta is not None and k is not None and not fits(k_meta, k):
        raise UserError(f"{where}: k_meta = {k_meta:g} does not fit k = {k}; use {fitting(k)}")


def no_meta_score(index: int, policy: str, where: str) -> UserError:
    """What to raise when a sample that votes has no meta score."""
    problem = f"sample {index} has no meta score, which the vote '{policy}' needs"
    return UserError(f"{where}: {problem}; judge with a meta model or vote sum")


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
    if k is not None:
        check_count(len(ordered), k, where)
    return ordered[:k]


def check_count(samples: int, k: int, where: str) -> None:
    """Refuses a k that an item's samples do not reach.

    Raises:
        UserError: k is not in 1..samples.
    """
    if not 1 <= k <= samples:
        remedy = f"use 1..{samples}" if samples else "sample it first"
        raise UserError(f"{where}: has {samples} samples, k = {k} is asked; {remedy}")
