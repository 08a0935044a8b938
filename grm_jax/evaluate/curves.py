"""Accuracy of many runs at many k, fast: what `accuracy.item_values` gives, over arrays of all items at once.

Letters: N items, K samples an item, R subsets, n responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import Protocol, subsets
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import fits, guided_count

VOTES = ("sum", "meta_topk")
_AT_ONCE = 256  # items, to bound memory


@dataclass(frozen=True)
class CurveValues:
    """Float64 [items], each a mean over subsets and in 0..1.

    `accuracy` is what the verdict is worth, `tied` whether its top is tied, `failed` whether there is none.
    """

    accuracy: np.ndarray
    tied: np.ndarray
    failed: np.ndarray


@dataclass(frozen=True)
class _Table:
    """Samples of items with the same n: scores int [N, K, n] (0 where unreadable), readable bool [N, K], meta float [N, K].

    `places` are those of the items among all, `ids` their names, `labels` int [N].
    """

    places: np.ndarray
    ids: list[str]
    labels: np.ndarray
    scores: np.ndarray
    readable: np.ndarray
    meta: np.ndarray


class SampleTable:
    """The samples of a run as arrays, of items with a label and n >= 2 responses; every item has the same number K.

    Attributes:
        ids: of the items, in the run's order; these are what the values are about.
        samples: K.
        unread: share of samples whose scores could not be read, items that were never sampled counted as a whole.
    """

    def __init__(self, judged: Sequence[Judged]):
        """Collects the samples; items of one response and those without a label are left out.

        Raises:
            UserError: items have different numbers of samples, or there is none.
        """
        counted = [entry for entry in judged if entry.n > 1 and entry.label is not None]
        counts = {len(entry.judgement.samples) for entry in counted} - {0}
        if len(counts) != 1:
            found = f"items have {min(counts)} to {max(counts)} samples" if counts else "no labelled item has samples"
            raise UserError(f"curve: {found}; judge all items to the same k")
        self.ids = [entry.judgement.id for entry in counted]
        (self.samples,) = counts
        groups: dict[int, list[int]] = {}
        for place, entry in enumerate(counted):
            groups.setdefault(entry.n, []).append(place)
        self._tables = [_table(counted, places, self.samples, n) for n, places in sorted(groups.items())]
        readable = sum(int(table.readable.sum()) for table in self._tables)
        self.unread = 1 - readable / (len(counted) * self.samples)

    def values(
        self, k: int, protocol: Protocol, *, vote: str = "sum", drawn: Mapping[str, np.ndarray] | None = None
    ) -> CurveValues:
        """Evaluates every item at k, as `accuracy.item_values` does with ties "expected" and failures "wrong".

        Args:
            k: samples a vote.
            protocol: its `k_meta`, subsets and seed; an item's subsets are `accuracy.subsets`.
            vote: "sum" or "meta_topk".
            drawn: `draw` of the same k, K and protocol for all items, when several runs share it.

        Raises:
            UserError: another vote, k above K, k_meta above k, or a sample that can vote has no meta score.
        """
        if vote not in VOTES or (protocol.ties, protocol.failures) != ("expected", "wrong"):
            raise UserError(f"curve: {vote}, {protocol.ties}, {protocol.failures} is not drawn; use `grm report`")
        unfit = vote == "meta_topk" and protocol.k_meta is not None and not fits(protocol.k_meta, k)
        if unfit or not 1 <= k <= self.samples:
            raise UserError(f"curve: k = {k}, k_meta = {protocol.k_meta} does not fit {self.samples} samples")
        found = np.zeros((3, len(self.ids)))
        for table in self._tables:
            for start in range(0, len(table.ids), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                members = _members(table.ids[part], self.samples, k, protocol, drawn)
                kept = _guided(table, part, members, protocol.k_meta) if vote == "meta_topk" else members
                found[:, table.places[part]] = _worth(table, part, kept)
        return CurveValues(*found)


def draw(ids: Sequence[str], samples: int, k: int, protocol: Protocol) -> dict[str, np.ndarray]:
    """Returns the subsets of each item as bool [R, K]: which samples are in it."""
    return {item_id: _chosen(item_id, samples, k, protocol) for item_id in ids}


def _chosen(item_id: str, samples: int, k: int, protocol: Protocol) -> np.ndarray:
    if not protocol.subsets or k == samples:
        return (np.arange(samples) < k)[None]
    picks = subsets(item_id, samples, k, protocol)
    members = np.zeros((len(picks), samples), bool)
    np.put_along_axis(members, picks, True, axis=1)
    return members


def _members(
    ids: Sequence[str], samples: int, k: int, protocol: Protocol, drawn: Mapping[str, np.ndarray] | None
) -> np.ndarray:
    """Bool [N, R, K]."""
    return np.stack([drawn[i] if drawn is not None else _chosen(i, samples, k, protocol) for i in ids])


def _guided(table: _Table, part: slice, members: np.ndarray, k_meta: float | None) -> np.ndarray:
    """Bool [N, R, K]: of the readable members those that `meta_topk` keeps."""
    readable, meta = table.readable[part], table.meta[part]
    if np.isnan(meta[readable]).any():
        raise UserError("curve: a readable sample has no meta score; run `grm meta-score` first")
    # Stable, so that of equal scores the earlier sample stays, as in the vote itself.
    order = np.argsort(np.where(readable, -meta, np.inf), axis=1, kind="stable")
    voters = np.take_along_axis(members & readable[:, None], order[:, None], axis=2)
    rank = np.cumsum(voters, axis=2)
    limit = guided_count(k_meta, rank[:, :, -1:])
    kept = np.zeros_like(members)
    np.put_along_axis(kept, order[:, None], voters & (rank <= limit), axis=2)
    return kept


def _worth(table: _Table, part: slice, members: np.ndarray) -> np.ndarray:
    """Float64 [3, N]: means over subsets of worth, tie and failure."""
    voters = (members & table.readable[part][:, None]).astype(np.float64)
    totals = voters @ table.scores[part].astype(np.float64)  # [N, R, n]; whole numbers, so exact
    top = totals == totals.max(axis=2, keepdims=True)
    failed = voters.sum(axis=2) == 0
    winners = top.sum(axis=2)
    hit = np.take_along_axis(top, table.labels[part][:, None, None], axis=2)[:, :, 0]
    worth = np.where(failed, 0.0, hit / winners)
    return np.stack([worth, (winners > 1) & ~failed, failed]).astype(np.float64).mean(axis=2)


def _table(judged: Sequence[Judged], places: Sequence[int], samples: int, n: int) -> _Table:
    entries = [judged[place] for place in places]
    scores = np.zeros((len(entries), samples, n), np.int64)
    readable = np.zeros((len(entries), samples), bool)
    meta = np.full((len(entries), samples), np.nan)
    for i, entry in enumerate(entries):
        for j, sample in enumerate(sorted(entry.judgement.samples, key=lambda sample: sample.index)):
            if sample.scores is not None:
                scores[i, j], readable[i, j] = sample.scores, True
                meta[i, j] = np.nan if sample.meta_score is None else sample.meta_score
    labels = np.array([int(entry.label or 0) for entry in entries])
    return _Table(np.array(places), [entry.judgement.id for entry in entries], labels, scores, readable, meta)
