"""The arena (docs/arena.md): comparisons of which the truth is known, of families seen in training and held out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import Benchmark, Case, Votes, credits
from grm_jax.benchmarks.figures import accuracies, weighted
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields
from grm_jax.data.arena.world import items
from grm_jax.data.records import item_from_json

ITEMS = 1000
_GROUPS = {False: "seen", True: "held out"}


def _own() -> Iterator[dict[str, Any]]:
    return items("test", ITEMS, 0)


def _read(row: dict[str, Any], where: str, part: str) -> tuple[str, list[Case]]:
    item = item_from_json(row, where)
    if "held_out" not in item.meta:
        fields.fail(where, "meta.held_out", "missing", "give items of `grm data arena`")
    group = _GROUPS[bool(item.meta["held_out"])]
    if len(item.responses) == 1:
        return group, []  # has no best response
    if item.label is None:
        fields.fail(where, "label", "missing", "give items of `grm data arena`")
    return group, [Case(item.id, group, (item,))]


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    values = np.array(credits(cases, votes, policies, seed))
    groups = [case.group for case in cases]
    by_group = accuracies(groups, values, seed)
    return {"overall": weighted(by_group, Counter(groups)), **by_group}


ARENA = Benchmark(
    name="arena",
    title="the arena's test split",
    columns=("id", "prompt", "responses", "label", "meta"),
    counts={},
    read=_read,
    figures=_figures,
    default=Policies("expected", "wrong"),
    own=_own,
)
"""Items of `grm data arena`; without data, the first 1,000 of the test split. Items of one response are left out."""
