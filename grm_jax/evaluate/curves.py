"""What every item of a run is worth at any k under any vote, over arrays of all items at once.

Letters: N items, K samples an item, R subsets, n responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from grm_jax.data.records import Sample
from grm_jax.evaluate.protocol import Protocol, shuffled, subsets, worth
from grm_jax.judge.run_store import Judged
from grm_jax.judge.tally import GUIDED, Ballots, count
from grm_jax.judge.voting import check_count, check_vote, first_samples, no_meta_score

_AT_ONCE = 128  # items, to bound memory
Drawn = Mapping[str, np.ndarray]
"""By item id: bool [R, K], which samples are in each subset."""


class CurveValues(NamedTuple):
    """Float64 [items], each a mean over subsets and in 0..1.

    `accuracy` is what the verdict is worth (without meaning where there is no label), `tied` whether its top is tied, `failed`
    whether there is none.
    """

    accuracy: np.ndarray
    tied: np.ndarray
    failed: np.ndarray


@dataclass(frozen=True)
class _Group:
    """Items with the same n and K: readable bool [N, K], labels int [N] (0 without one), samples as the item has them.

    `places` are those of the items among all.
    """

    places: np.ndarray
    entries: list[Judged]
    ballots: Ballots
    readable: np.ndarray
    labels: np.ndarray


class SampleTable:
    """The samples of a run as arrays, of items with n >= 2 responses.

    Attributes:
        ids: of the items, in the run's order; these are what the values are about.
        counts: by item id: its samples; 0 for an item whose prompt was too long.
        unread: share of samples whose scores could not be read, items that were never sampled counted as a whole.
    """

    def __init__(self, judged: Sequence[Judged]):
        """Collects the samples; items of one response are left out."""
        entries = [entry for entry in judged if entry.n > 1]
        self.ids = [entry.judgement.id for entry in entries]
        self.counts = {entry.judgement.id: len(entry.judgement.samples) for entry in entries}
        groups: dict[tuple[int, int], list[int]] = {}
        for place, entry in enumerate(entries):
            groups.setdefault((entry.n, len(entry.judgement.samples)), []).append(place)
        self._groups = [_group([entries[i] for i in places], places) for _, places in sorted(groups.items())]
        most = max(self.counts.values(), default=0)
        all_samples = sum(samples or most for samples in self.counts.values())
        readable = sum(int(group.readable.sum()) for group in self._groups)
        self.unread = 1 - readable / all_samples if all_samples else 0.0

    def values(self, k: int, protocol: Protocol, *, drawn: Drawn | None = None) -> CurveValues:
        """Evaluates every item at k; an item without samples has failed at every k.

        Args:
            k: samples a vote.
            protocol: the vote, what ties and failures are worth, and the subsets.
            drawn: `draw` of this table's counts with the same k and protocol, when several votes share it.

        Raises:
            UserError: the vote is impossible, an item has fewer than k samples, or one that can vote has no meta score.
        """
        found = np.zeros((3, len(self.ids)))
        check_vote(protocol.vote, protocol.k_meta)
        for group in self._groups:
            for start in range(0, len(group.places), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                found[:, group.places[part]] = _values(group, part, k, protocol, drawn)
        return CurveValues(*found)


def draw(counts: Mapping[str, int], k: int, protocol: Protocol) -> dict[str, np.ndarray]:
    """Draws the subsets of items; counts: samples of each by id."""
    return {item_id: _members(item_id, samples, k, protocol) for item_id, samples in counts.items() if samples}


def _members(item_id: str, samples: int, k: int, protocol: Protocol) -> np.ndarray:
    check_count(samples, k, f"item {item_id!r}")
    picks = subsets(item_id, samples, k, protocol)
    members = np.zeros((len(picks), samples), bool)
    np.put_along_axis(members, picks, True, axis=1)
    return members


def _values(group: _Group, part: slice, k: int, protocol: Protocol, drawn: Drawn | None) -> np.ndarray:
    """Float64 [3, N]: means over subsets of worth, tie and failure."""
    entries = group.entries[part]
    ids = [entry.judgement.id for entry in entries]
    N, K, n = group.ballots.scores[part].shape
    if K:
        members = np.stack([drawn[i] if drawn is not None else _members(i, K, k, protocol) for i in ids])
        check_vote(protocol.vote, protocol.k_meta, k, f"item {ids[0]!r}")
    else:
        members = np.zeros((N, 1, 0), bool)
    voters = members & group.readable[part][:, None]
    ballots = Ballots(group.ballots.scores[part], group.ballots.meta[part])
    if protocol.vote in GUIDED:
        missing = np.argwhere(voters.any(axis=1) & np.isnan(ballots.meta))
        if len(missing):
            item, sample = missing[0]
            raise no_meta_score(_ordered(entries[item])[sample].index, protocol.vote, f"item {ids[item]!r}")
    ballots = Ballots(ballots.scores, np.nan_to_num(ballots.meta))  # what has none does not vote, or none is asked for
    totals, used = (
        count(ballots, voters, protocol.vote, protocol.k_meta) if K else (np.zeros((N, 1, n)), np.zeros((N, 1)))
    )
    failed = used == 0
    places = [shuffled(n, protocol, entry.judgement.seed, i) for i, entry in zip(ids, entries, strict=True)]
    keyed = None if places[0] is None else np.stack([place for place in places if place is not None])[:, None]
    worths = worth(totals, failed, group.labels[part][:, None], protocol, keyed)
    tied = ((totals == totals.max(axis=2, keepdims=True)).sum(axis=2) > 1) & ~failed
    return np.stack([worths, tied, failed]).astype(np.float64).mean(axis=2)


def _ordered(entry: Judged) -> Sequence[Sample]:
    return first_samples(entry.judgement.samples, None, "")


def _group(entries: list[Judged], places: Sequence[int]) -> _Group:
    n, samples = entries[0].n, len(entries[0].judgement.samples)
    scores = np.zeros((len(entries), samples, n), np.int64)
    readable = np.zeros((len(entries), samples), bool)
    meta = np.full((len(entries), samples), np.nan)
    for i, entry in enumerate(entries):
        for j, sample in enumerate(_ordered(entry)):
            if sample.scores is not None:
                scores[i, j], readable[i, j] = sample.scores, True
                meta[i, j] = np.nan if sample.meta_score is None else sample.meta_score
    labels = np.array([int(entry.label or 0) for entry in entries])
    return _Group(np.array(places), entries, Ballots(scores, meta), readable, labels)
