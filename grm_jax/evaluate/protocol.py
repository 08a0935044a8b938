"""How stored samples become an accuracy: the vote, what ties and failures are worth, which samples are asked."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.errors import UserError
from grm_jax.judge.voting import tie_order
from grm_jax.keys import generator

TIES = ("expected", "half", "strict", "shuffle_argmax")
FAILURES = ("wrong", "chance")
SUBSETS = 64
"""Random subsets an item where nothing else is asked."""


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


def worth(
    totals: np.ndarray, failed: np.ndarray, labels: np.ndarray, protocol: Protocol, places: np.ndarray | None = None
) -> np.ndarray:
    """Returns float64 [...]: what votes on items of n >= 2 responses are worth, 0..1.

    Args:
        totals: [..., n], of the responses.
        failed: bool [...], there is no verdict.
        labels: int, broadcastable to [...], the best response.
        protocol: its ties and failures.
        places: int, broadcastable to [..., n], where "shuffle_argmax" puts each response; other ties need none.
    """
    top = totals == totals.max(axis=-1, keepdims=True)
    winners = top.sum(axis=-1)
    is_label = np.arange(totals.shape[-1]) == labels[..., None]
    if protocol.ties == "shuffle_argmax":
        assert places is not None
        won = (np.argmin(np.where(top, places, totals.shape[-1]), axis=-1) == labels).astype(np.float64)
    else:
        tied = {"expected": 1 / winners, "half": 0.5, "strict": 0.0}[protocol.ties]
        won = (top & is_label).any(axis=-1) * np.where(winners == 1, 1.0, tied)
    return np.where(failed, 1 / totals.shape[-1] if protocol.failures == "chance" else 0.0, won)


def item_accuracy(
    scores: Sequence[float] | None, label: int, n: int, protocol: Protocol, *, seed: int = 0, item_id: str = ""
) -> float:
    """Returns what one item of n >= 2 responses is worth, 0..1; (seed, item id) key the shuffle of "shuffle_argmax".

    Raises:
        ValueError: n = 1, which has no best response.
    """
    if n < 2:
        raise ValueError(f"item {item_id!r} has {n} response: accuracy needs two")
    totals = np.array([0.0] * n if scores is None else scores)
    return float(
        worth(totals, np.array(scores is None), np.array(label), protocol, shuffled(n, protocol, seed, item_id))
    )


def shuffled(n: int, protocol: Protocol, seed: int, item_id: str) -> np.ndarray | None:
    """Returns the `places` of `worth` for an item; None where the protocol needs none."""
    return np.argsort(tie_order(n, seed=seed, item_id=item_id)) if protocol.ties == "shuffle_argmax" else None


def subsets(item_id: str, count: int, k: int, protocol: Protocol) -> np.ndarray:
    """Returns the k-subsets of an item's `count` samples that are averaged over, rising places int [R, k].

    They are `protocol.subsets` keyed random ones; where there are no more than that, and for k = 1, all of them. With no subsets
    asked it is the first k.
    """
    if not protocol.subsets:
        return np.arange(k)[None]
    if k == 1 or math.comb(count, k) <= protocol.subsets:
        return np.array(list(itertools.combinations(range(count), k)))
    rng = generator("subsets", protocol.seed, item_id, k)
    # Floyd's algorithm for all subsets at once; the draws are those of `rng.choice(count, k, replace=False)`, one call each.
    highest = np.concatenate([np.arange(count - k, count), np.arange(k - 1, 0, -1)])
    draws = rng.integers(0, np.tile(highest, (protocol.subsets, 1)), endpoint=True)
    members, rows = np.zeros((protocol.subsets, count), bool), np.arange(protocol.subsets)
    for last, drawn in zip(range(count - k, count), draws.T, strict=False):
        members[rows, np.where(members[rows, drawn], last, drawn)] = True
    return np.nonzero(members)[1].reshape(protocol.subsets, k)
