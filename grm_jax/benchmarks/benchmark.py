"""What a benchmark is: where its rows are, how a row becomes questions, and how votes become figures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grm_jax.benchmarks.policies import OWN, Policies, Scores, credit
from grm_jax.data.records import Item, Turn

PAPER = "arXiv 2504.02495"
"""DeepSeek-GRM's figures: responses are shuffled before the argmax; what a failure is worth is not stated."""
PAPER_POLICIES = Policies("shuffle_argmax", "wrong")


@dataclass(frozen=True)
class Case:
    """One question of a benchmark.

    Attributes:
        id: unique in the benchmark; the ids of its items begin with it.
        group: what it is counted in, "section/subset" or the like.
        items: judged to answer it; the label of each is its right response.
        facts: what scoring needs besides.
    """

    id: str
    group: str
    items: tuple[Item, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


Votes = Mapping[str, tuple[Scores, ...]]
"""By item id: the vote of each game."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: on the command line.
        title: with its source.
        columns: those that every row has, by which another benchmark's rows are told.
        counts: rows of each subset; empty where any number will do.
        read: (row, its place, its part) -> (subset, cases).
        figures: (cases, votes, policies, seed) -> figures by name, the overall one first; those of a subset are named
            "section/subset".
        default: policies where none are given.
        published: policies of published figures, by whose they are.
        hub: specs of `open_source` by part, with the revision that is pinned; one without "@" needs the user's. Empty where the
            hub has no data set of the benchmark's own form.
        part_of: names the part of the benchmark that a file holds, None where its path does not tell.
        games: 2 where each pair is judged in both orders; k critiques are drawn for each.
        own: makes the rows where no data is given.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    counts: Mapping[str, int]
    read: Callable[[dict[str, Any], str, str], tuple[str, list[Case]]]
    figures: Callable[[Sequence[Case], Votes, Policies, int], dict[str, np.ndarray]]
    default: Policies
    published: Mapping[str, Policies] = field(default_factory=dict)
    hub: Mapping[str, str] = field(default_factory=dict)
    part_of: Callable[[str], str | None] = lambda path: ""
    games: int = 1
    own: Callable[[], Iterator[dict[str, Any]]] | None = None


def case_id(group: str, name: object) -> str:
    """Returns the id of a case: its group and its own name, on one line."""
    return re.sub(r"\s+", " ", f"{group}/{name}")


def asked(prompt: str) -> tuple[Turn, ...]:
    """Returns a conversation of one user turn."""
    return (Turn("user", prompt),)


def one_item(name: object, group: str, conversation: tuple[Turn, ...], responses: Sequence[str], label: int) -> Case:
    """Returns a case whose one item has the right response at index `label`."""
    identity = case_id(group, name)
    return Case(identity, group, (Item(identity, conversation, tuple(responses), label, domain=group),))


def credits(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> list[list[float]]:
    """Returns for each case what the vote on each of its items is worth, 0..1."""
    return [
        [
            credit(votes[item.id][0], int(item.label or 0), len(item.responses), policies, seed=seed, item_id=item.id)
            for item in case.items
        ]
        for case in cases
    ]


def has_own_ties(benchmark: Benchmark) -> bool:
    """Tells whether the benchmark's scoring says itself what a tie is."""
    return benchmark.default.ties == OWN
