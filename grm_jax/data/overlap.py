"""Contamination: which questions of a benchmark share runs of n words with a training set.

A word is a run of letters and digits, in lower case, so that punctuation, line breaks and quoting hide nothing. Runs of 13
words are what arXiv 2005.14165 (appendix C) takes.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grm_jax.data.records import Item

_WORD = re.compile(r"[^\W_]+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing modulo 2^64
_AT_ONCE = 1 << 20  # words of the training set looked up together


@dataclass(frozen=True)
class Found:
    """What a question shares with the training set.

    Attributes:
        id: of the question.
        group: what it is counted in.
        prompt: share of the runs of n words of its prompt that the training set has; None if it is shorter than n words.
        responses: the same of its responses, counted together.
        row: of the training rows that are the first to have one of them, the one that is so most often; None where nothing
            is shared.
    """

    id: str
    group: str
    prompt: float | None
    responses: float | None
    row: str | None

    @property
    def most(self) -> float:
        """The larger of the two shares."""
        return max(self.prompt or 0.0, self.responses or 0.0)


def find_overlap(items: Sequence[Item], rows: Iterable[tuple[str, Any]], n: int = 13) -> list[Found]:
    """Looks for runs of n words of each item in training rows.

    Memory grows with the items alone; the rows are read once. Runs are compared by 64-bit hashes: that two of a billion and a
    million different ones agree by chance has a probability below 1e-4.

    Args:
        items: of the benchmark.
        rows: (where, row) of the training set; all strings in a row count, at any depth, each by itself.
        n: words a run.
    """
    parts = [_runs_of_item(item, n) for item in items]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(runs for pair in parts for runs in pair)]))
    first = np.full(len(known), -1, np.int64)  # place in `places` of the first row that has the run
    places: list[str] = []
    for names, runs, owners in _batches(rows, n):
        at = np.searchsorted(known, runs)
        there = at < len(known)
        there[there] = known[at[there]] == runs[there]
        # Later rows first, so that the first one is what stays.
        at, owners = at[there][::-1], owners[there][::-1] + len(places)
        new = first[at] < 0
        first[at[new]] = owners[new]
        places += names
    return [
        _found(item, [first[np.searchsorted(known, runs)] for runs in pair], places)
        for item, pair in zip(items, parts, strict=True)
    ]


def runs_of(text: str, n: int) -> np.ndarray:
    """Hashes uint64 of the runs of n words of a text, in their order; none if it is shorter."""
    words = np.array([_hash(word) for word in _WORD.findall(text.lower())], np.uint64)
    if len(words) < n:
        return np.zeros(0, np.uint64)
    powers = np.array([pow(_BASE, i, 1 << 64) for i in range(n)], np.uint64)
    return np.lib.stride_tricks.sliding_window_view(words, n) @ powers


@functools.lru_cache(1 << 20)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _runs_of_item(item: Item, n: int) -> tuple[np.ndarray, np.ndarray]:
    prompt = [runs_of(turn.content, n) for turn in item.conversation]
    responses = [runs_of(response, n) for response in item.responses]
    return np.concatenate(prompt), np.concatenate(responses)


def _batches(rows: Iterable[tuple[str, Any]], n: int) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """(places of some rows, their runs, int64 the row of each run)."""
    names: list[str] = []
    runs: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    size = 0
    for where, row in rows:
        for text in _strings(row):
            found = runs_of(text, n)
            runs.append(found)
            owners.append(np.full(len(found), len(names), np.int64))
            size += len(found)
        names.append(where)
        if size >= _AT_ONCE:
            yield names, np.concatenate(runs), np.concatenate(owners)
            names, runs, owners, size = [], [], [], 0
    if runs:
        yield names, np.concatenate(runs), np.concatenate(owners)


def _strings(row: Any) -> Iterator[str]:
    if isinstance(row, str):
        yield row
    elif isinstance(row, dict):
        for value in row.values():
            yield from _strings(value)
    elif isinstance(row, list | tuple):
        for value in row:
            yield from _strings(value)


def _found(item: Item, firsts: Sequence[np.ndarray], places: Sequence[str]) -> Found:
    shares = [float((first >= 0).mean()) if len(first) else None for first in firsts]
    there = np.concatenate(firsts)
    there = there[there >= 0]
    row = places[int(np.bincount(there).argmax())] if len(there) else None
    return Found(item.id, item.domain or "-", shares[0], shares[1], row)
