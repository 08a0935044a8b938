"""An evaluation: figures of a benchmark at each k, from the stored critiques of a run, and their record."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import Benchmark, Case, Votes
from grm_jax.benchmarks.figures import Interval, interval
from grm_jax.benchmarks.policies import Policies, Scores, games, item_votes, missing_draws, voters
from grm_jax.data.records import PROMPT_TOO_LONG, Item, Sample
from grm_jax.keys import digest

Stored = Callable[[str], Sequence[Sample]]
"""The samples of an item by id; none where its prompt did not fit."""


@dataclass(frozen=True)
class Row:
    """Figures at one k.

    Attributes:
        k: critiques a vote.
        figures: by name, the overall one first; None where it is not defined.
        tied: share of votes over two responses or more whose top is shared.
        failed: share of votes without a verdict.
        first_place: share of readable critiques whose highest score stands at the first place shown, ties shared.
    """

    k: int
    figures: dict[str, Interval | None]
    tied: float | None
    failed: float
    first_place: float | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and how.

    Attributes:
        benchmark: its name; `title` has its source.
        policies: that turned critiques into figures.
        protocols: whose published figures used the same policies.
        published: policies of all published figures, by whose they are.
        run: the identity of the run: model, template, seed, sampling policy and so on.
        data: spec and digest of the data.
        absent: what the data lacked (`loading.Data`).
        cases: questions evaluated, of `cases_there`; each counts once.
        items: comparisons or responses judged for them.
        seed: of ties, intervals and samples.
        outcomes: of all critiques of these items, by name.
        rows: by rising k.
    """

    benchmark: str
    title: str
    policies: Policies
    protocols: tuple[str, ...]
    published: dict[str, Policies]
    run: dict[str, Any]
    data: str
    absent: tuple[str, ...]
    cases: int
    cases_there: int
    items: int
    seed: int
    outcomes: dict[str, int]
    rows: tuple[Row, ...]


def chosen(cases: Sequence[Case], limit: int | None) -> list[Case]:
    """Returns `limit` cases spread over a benchmark; a larger limit keeps those of a smaller one. None: all of them."""
    if limit is None or limit >= len(cases):
        return list(cases)
    kept = set(sorted((case.id for case in cases), key=lambda name: digest("limit", name))[:limit])
    return [case for case in cases if case.id in kept]


def still_wanted(items: Sequence[Item], stored: Stored, k: int, benchmark: Benchmark) -> dict[int, list[Item]]:
    """Returns the items that `resample` draws more critiques for, by how many they shall have in all.

    It depends on what is stored alone, so an interrupted run goes on to the same critiques.
    """
    wanted: dict[int, list[Item]] = {}
    for item in items:
        samples = stored(item.id)
        if samples and (more := missing_draws(samples, k, benchmark.games)):
            wanted.setdefault(len(samples) + more, []).append(item)
    return wanted


def evaluate(
    benchmark: Benchmark,
    cases: Sequence[Case],
    stored: Stored,
    ks: Sequence[int],
    policies: Policies,
    *,
    seed: int,
    **about: Any,
) -> Evaluation:
    """Votes at each k and scores; `about` are the attributes of `Evaluation` that say which data it was.

    Raises:
        UserError: an item has fewer samples than some k needs.
    """
    items = [item for case in cases for item in case.items]
    samples = {item.id: stored(item.id) for item in items}
    outcomes: Counter[str] = Counter()
    for found in samples.values():
        outcomes.update([sample.outcome for sample in found] or [PROMPT_TOO_LONG])
    return Evaluation(
        benchmark=benchmark.name,
        title=benchmark.title,
        policies=policies,
        protocols=tuple(name for name, published in benchmark.published.items() if published == policies),
        published=dict(benchmark.published),
        cases=len(cases),
        items=len(items),
        seed=seed,
        outcomes=dict(outcomes.most_common()),
        rows=tuple(_row(benchmark, cases, items, samples, k, policies, seed) for k in sorted(set(ks))),
        **about,
    )


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the evaluation as a JSON object, every figure as a fraction."""
    return dataclasses.asdict(evaluation)


def _row(
    benchmark: Benchmark,
    cases: Sequence[Case],
    items: Sequence[Item],
    samples: dict[str, Sequence[Sample]],
    k: int,
    policies: Policies,
    seed: int,
) -> Row:
    votes: Votes = {
        item.id: item_votes(
            samples[item.id], len(item.responses), k, policies, count=benchmark.games, seed=seed, item_id=item.id
        )
        for item in items
    }
    figures = benchmark.figures(cases, votes, policies, seed)
    cast = [vote for item in items for vote in votes[item.id]]
    compared = [vote for item in items if len(item.responses) > 1 for vote in votes[item.id]]
    asked = [
        sample
        for item in items
        if len(item.responses) > 1 and samples[item.id]
        for game in games(samples[item.id], benchmark.games)
        for sample in voters(game, k, policies.failures, item.id)
    ]
    first = [_first_place(sample) for sample in asked if sample.scores is not None]
    return Row(
        k=k,
        figures={name: interval(figure) for name, figure in figures.items()},
        tied=float(np.mean([_is_tied(vote) for vote in compared])) if compared else None,
        failed=float(np.mean([vote is None for vote in cast])),
        first_place=float(np.mean(first)) if first else None,
    )


def _is_tied(scores: Scores) -> bool:
    return scores is not None and sum(score == max(scores) for score in scores) > 1


def _first_place(sample: Sample) -> float:
    """The share of the top that the response shown first has: 1, 1/t among t, or 0."""
    assert sample.scores is not None
    top = [response for response, score in enumerate(sample.scores) if score == max(sample.scores)]
    return float(sample.order[0] in top) / len(top)
