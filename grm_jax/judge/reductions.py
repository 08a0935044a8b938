"""From what a paradigm says of an item to a total for each response: numpy only. Greatest is best.

    mean      semi-scalar, pointwise: the mean of k rewards of each response                   (Eq 12 of arXiv 2504.02495)
    majority  generative, pairwise: of each pair the response that more verdicts name          (Eq 13)
    TokenProb the same, a verdict counting as much as the model was sure of its token
    sum       generative, pointwise: the sum of k scores; in `judge.tally`                     (Eq 14)
    decided   scalar, pairwise: of each pair the response that the sign names                  (Eq 5)

Of n > 2 responses a pairwise paradigm decides every pair, and a response's total is the pairs it has won; an undecided pair
is worth half to each. Letters: K samples, R sets of voters, n responses, Q = n (n - 1) / 2 pairs in the order of
`data.parts.pairs_of`.
"""

from typing import NamedTuple

import numpy as np

from grm_jax.data.parts import pairs_of


class Reduced(NamedTuple):
    """totals float64 [R, n]; failed bool [R]: there is no verdict, and totals mean nothing."""

    totals: np.ndarray
    failed: np.ndarray


def mean_rewards(rewards: np.ndarray, members: np.ndarray) -> Reduced:
    """Eq 12: the mean reward of each response over the voters.

    Args:
        rewards: float64 [K, n]; NaN where there is none, as of a critique that was cut off.
        members: bool [R, K], which samples vote.

    Returns:
        The means; failed where some response has no reward.
    """
    there = ~np.isnan(rewards)
    counts = members.astype(np.float64) @ there.astype(np.float64)
    sums = members.astype(np.float64) @ np.where(there, rewards, 0.0)
    return Reduced(sums / np.maximum(counts, 1), (counts == 0).any(axis=1))


def majority(verdicts: np.ndarray, members: np.ndarray, n: int, weights: np.ndarray | None = None) -> Reduced:
    """Eq 13 for every pair, then the pairs won.

    Args:
        verdicts: float64 [K, Q]: 1 for the first of the pair, 0 for the second, NaN for neither.
        members: bool [R, K], which samples vote.
        n: responses.
        weights: float64 [K, Q] of the verdicts, positive; None counts each as one, exactly.

    Returns:
        The pairs won; failed where no pair has a verdict.
    """
    weights = np.where(np.isnan(verdicts), 0.0, 1.0 if weights is None else weights)
    voters = members.astype(np.float64)
    first, second = voters @ (weights * (verdicts == 1)), voters @ (weights * (verdicts == 0))
    return Reduced(wins((1 + np.sign(first - second)) / 2, n), (first + second == 0).all(axis=1))


def decided(forward: np.ndarray, backward: np.ndarray, n: int) -> Reduced:
    """Eq 5 for every pair, then the pairs won: the first of a pair where S > 0, the second where S < 0.

    S is the mean over both orders, so that a decision does not depend on which response stands first: exchanged, S is -S.

    Args:
        forward: float64 [Q], S with the pair in its own order.
        backward: float64 [Q], S with it reversed.
        n: responses.

    Returns:
        One row of totals.
    """
    return Reduced(wins((1 + np.sign(forward - backward)) / 2, n)[None], np.zeros(1, bool))


def wins(shares: np.ndarray, n: int) -> np.ndarray:
    """Pairs won [..., n], of shares [..., Q]: what the first of each pair has of it, 0, 1/2 or 1."""
    totals = np.zeros((*shares.shape[:-1], n))
    for q, (i, j) in enumerate(pairs_of(n)):
        totals[..., i] += shares[..., q]
        totals[..., j] += 1 - shares[..., q]
    return totals
