"""On what principles does one side lose? Critiques of two sets of responses, sorted by what they looked at.

The judge as an offline evaluator (arXiv 2504.02495, section 5): of the pairs in which a principle was stated, how often do the
responses of one side win, and is that more or less than where it was not stated?
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.evaluate.intervals import Estimate, bootstrap_interval
from grm_jax.judge.run_store import Judged


@dataclass(frozen=True)
class Standing:
    """How one side fares where a principle is stated.

    Attributes:
        principle: as stated most often.
        critiques: that state it.
        won: share of them in which the side scores above every other response, a shared top split; over items, each its own mean.
        difference: the same less what critiques of the same items that do not state it say; None where no item has both.
    """

    principle: str
    critiques: int
    won: Estimate
    difference: Estimate | None


def standings(
    judged: Sequence[Judged], sides: Mapping[str, int], *, least: int = 10, seed: int = 0
) -> tuple[Estimate | None, list[Standing]]:
    """Sorts critiques by their principles.

    Principles are the same when they have the same words, in whatever case, order and punctuation.

    Args:
        judged: runs of two or more responses an item.
        sides: by item id, which response is the side's; items that are not named are passed over.
        least: items a principle must be stated in.
        seed: of the intervals.

    Returns:
        The side's share over all items, and the principles, those first on which it fares worst.
    """
    whole: list[float] = []
    stated: dict[str, dict[str, int]] = {}
    withs: dict[str, list[float]] = {}
    gaps: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for entry in judged:
        side = sides.get(entry.judgement.id)
        samples = [sample for sample in entry.judgement.samples if sample.scores is not None]
        if side is None or entry.n < 2 or not samples:
            continue
        worth = np.array([_worth(sample.scores or (), side) for sample in samples])
        whole.append(float(worth.mean()))
        names = [{_key(principle.text) for principle in sample.principles} for sample in samples]
        for sample in samples:
            for principle in sample.principles:
                forms = stated.setdefault(_key(principle.text), {})
                forms[principle.text] = forms.get(principle.text, 0) + 1
        for name in set().union(*names):
            holds = np.array([name in each for each in names])
            withs.setdefault(name, []).append(float(worth[holds].mean()))
            counts[name] = counts.get(name, 0) + int(holds.sum())
            if not holds.all():
                gaps.setdefault(name, []).append(float(worth[holds].mean() - worth[~holds].mean()))
    found = [
        Standing(
            _most(stated[name]), counts[name],
            bootstrap_interval(values, seed=seed),
            bootstrap_interval(gaps[name], seed=seed) if gaps.get(name) else None,
        )
        for name, values in withs.items() if name and len(values) >= least
    ]  # fmt: skip
    return (
        bootstrap_interval(whole, seed=seed) if whole else None,
        sorted(found, key=lambda standing: (standing.won.mean, standing.principle)),
    )


def _worth(scores: Sequence[int], side: int) -> float:
    best = max(scores)
    return (scores[side] == best) / sum(score == best for score in scores)


def _most(forms: Mapping[str, int]) -> str:
    return max(forms, key=forms.__getitem__)


def _key(text: str) -> str:
    return " ".join(sorted(re.findall(r"\w+", text.casefold())))
