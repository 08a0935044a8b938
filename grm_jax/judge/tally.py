"""What a vote adds up, for one set of voters or for many sets at once: numpy only.

With S[j, i] the score that voter j gives response i, and m voters, the policies are:

    sum        sum_j S[j, i]                            (Eq 14 of arXiv 2504.02495; m voters: one of m..10m)
    mean       sum_j S[j, i] / m
    majority   each voter splits one vote evenly among the responses it scores highest
    rank       Borda: each voter gives i the number of responses below it, plus half of those level with it
    meta_topk  sum over the k_meta voters with the highest meta score (the same paper; k_meta = k / 2); k_meta below 1 is a share
               of the voters (`guided_count`)
    meta_soft  mean weighted by sigmoid(meta score): the meta model is trained with binary cross-entropy, so that is its
               probability that the critique is right; unlike a softmax it does not let one sample outshout all others

Sums are exact: what is equal by arithmetic is equal in the totals, whichever samples stand between the voters. Letters: K samples,
R sets of voters, n responses; leading axes [...] are items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from grm_jax.text.parser import HIGHEST, LOWEST

POLICIES = ("sum", "mean", "majority", "rank", "meta_topk", "meta_soft")
GUIDED = ("meta_topk", "meta_soft")
"""Those that read meta scores."""


@dataclass(frozen=True)
class Ballots:
    """Readable critiques: scores int [..., K, n] and meta scores float64 [..., K]; rows that never vote hold anything."""

    scores: np.ndarray
    meta: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[Sequence[int]], meta: Sequence[float]) -> "Ballots":
        """Makes those of one item."""
        return cls(np.array(scores, np.int64), np.array(meta, np.float64))


class Tally(NamedTuple):
    """totals [..., R, n], int64 for sums and float64 else; used int [..., R] counts who voted; without one totals mean nothing."""

    totals: np.ndarray
    used: np.ndarray


def count(ballots: Ballots, voters: np.ndarray, policy: str, k_meta: float | None = None) -> Tally:
    """Adds up a vote for every set of voters.

    Args:
        ballots: of the items.
        voters: bool [..., R, K], which samples can vote; none that cannot be read.
        policy: one of `POLICIES`.
        k_meta: of meta_topk: as for `guided_count`.
    """
    if policy == "meta_topk":
        voters = guided(ballots.meta, voters, k_meta)
    used = voters.sum(axis=-1)
    if policy == "meta_soft":
        return Tally(_weighted(ballots, voters), used)
    points, unit = given(ballots.scores, policy)
    totals = _add(voters, points)
    if policy == "mean":
        return Tally(totals / np.maximum(used, 1)[..., None], used)
    if policy in ("majority", "rank"):
        return Tally((totals / unit).astype(np.float64), used)
    return Tally(totals, used)


def given(scores: np.ndarray, policy: str) -> tuple[np.ndarray, int]:
    """Returns what each critique gives each response in a policy that adds up.

    Args:
        scores: int [..., K, n].
        policy: one that weighs all voters alike; the mean divides what the sum adds up.

    Returns:
        Whole numbers [..., K, n], so that equal sums are equal, and how many of them are one point of the vote.
    """
    if policy == "majority":
        return _shares(scores)
    if policy == "rank":
        return _twice_borda(scores), 2
    return scores, 1


def widest(policy: str, n: int) -> int:
    """The most points that one critique can put between two of n responses in a policy that `given` knows."""
    return {"majority": 1, "rank": n - 1}.get(policy, HIGHEST - LOWEST)


def guided(meta: np.ndarray, voters: np.ndarray, k_meta: float | None) -> np.ndarray:
    """Returns bool [..., R, K]: of the voters those that meta_topk keeps; of equal meta scores the earlier sample stays."""
    order = np.argsort(-meta, axis=-1, kind="stable")[..., None, :]
    order = np.broadcast_to(order, voters.shape)
    ranked = np.take_along_axis(voters, order, axis=-1)
    place = np.cumsum(ranked, axis=-1)
    kept = np.zeros_like(voters)
    np.put_along_axis(kept, order, ranked & (place <= guided_count(k_meta, place[..., -1:])), axis=-1)
    return kept


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


def _add(voters: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Sums over voters what each gives: [..., R, K] and whole numbers [..., K, n] to [..., R, n] of the same type."""
    if given.dtype == object:
        return voters.astype(object) @ given
    # Whole numbers below 2^53 add up exactly as float64, which is multiplied ten times faster than int64.
    return (voters.astype(np.float64) @ given.astype(np.float64)).astype(np.int64)


def _shares(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """`given` of majority."""
    top = scores == scores.max(axis=-1, keepdims=True)
    winners = top.sum(axis=-1, keepdims=True)
    unit = math.lcm(*np.unique(winners).tolist())
    if unit * scores.shape[-2] < 2**53:
        return top * (unit // winners), unit
    return top.astype(object) * (unit // winners.astype(object)), unit


def _twice_borda(scores: np.ndarray) -> np.ndarray:
    difference = scores[..., :, None] - scores[..., None, :]
    return 2 * (difference > 0).sum(axis=-1) + (difference == 0).sum(axis=-1) - 1


def _weighted(ballots: Ballots, voters: np.ndarray) -> np.ndarray:
    log_weights = -np.logaddexp(0.0, -ballots.meta)[..., None, :]
    most = np.where(voters, log_weights, -np.inf).max(axis=-1, keepdims=True)
    weights = np.exp(np.where(voters, log_weights - np.where(np.isfinite(most), most, 0.0), -np.inf))
    # Added one after another: who does not vote adds 0 and changes no rounding, so the company of a voter plays no part.
    parts = np.cumsum(weights[..., None] * ballots.scores[..., None, :, :], axis=-2)[..., -1, :]
    whole = np.cumsum(weights, axis=-1)[..., -1:]
    return parts / np.where(whole > 0, whole, 1.0)
