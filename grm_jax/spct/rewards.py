"""Rewards of rollouts: the rule of Eq 11 of arXiv 2504.02495, and what may be added to it.

The rule alone is the paper's; the rest is off by default. Everything is a function of items and samples.

Letters: P prompts, G rollouts a prompt.
"""

import dataclasses
import re
from collections.abc import Sequence, Set

import numpy as np

from grm_jax.data.records import Item, Sample
from grm_jax.spct.acceptance import reward
from grm_jax.text.principles import Principle
from grm_jax.text.template_file import Literal, Template
from grm_jax.train.grpo import Grpo

_WORD = re.compile(r"\w+")
_NAMED_RESPONSE = re.compile(r"\bresponses?\W{0,3}\d", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Rewards:
    """Rewards of a batch, float64 [P, G] each.

    Attributes:
        total: what is learnt from.
        parts: "rule" (+1 or -1) and, of the additions that are on, "format", "consistency" and "query_only" (0 to 1).
    """

    total: np.ndarray
    parts: dict[str, np.ndarray]


def rollout_rewards(
    items: Sequence[Item], samples: Sequence[Sequence[Sample]], settings: Grpo, known: Set[str] = frozenset()
) -> Rewards:
    """Returns the rewards of the rollouts of P prompts.

    Args:
        items: the item of each prompt; each has a label. With `consistency_reward` prompts 2i and 2i + 1 are one item in
            an order and its reverse.
        samples: G samples of each prompt, scores in the item's own order.
        settings: which rewards are added, and how much each counts.
        known: words that the principles may use in any case (`template_words`).
    """
    rows = list(zip(items, samples, strict=True))
    parts = {"rule": np.array([[_rule(item, sample) for sample in row] for item, row in rows])}
    total = parts["rule"]
    if settings.format_reward:
        parts["format"] = np.array([[float(sample.outcome == "ok") for sample in row] for _, row in rows])
        total = total + settings.format_reward * parts["format"]
    if settings.consistency_reward:
        shares = [agreement(row, samples[p ^ 1]) for p, row in enumerate(samples)]
        parts["consistency"] = np.array(shares)
        total = total + settings.consistency_reward * parts["consistency"]
    if settings.query_only_reward:
        parts["query_only"] = np.array(
            [[float(states_query_only(sample.principles, item, known)) for sample in row] for item, row in rows]
        )
        total = total + settings.query_only_reward * parts["query_only"]
    return Rewards(total, parts)


def pick(sample: Sample) -> int | None:
    """The response that a critique scores above all others; None if there is none: unreadable, a tie, or n = 1."""
    if sample.scores is None or len(sample.scores) < 2:
        return None
    best = max(sample.scores)
    return sample.scores.index(best) if sample.scores.count(best) == 1 else None


def agreement(samples: Sequence[Sample], others: Sequence[Sample]) -> list[float]:
    """For each sample the share of the others, shown the reverse order, that pick the same response; 0 if it picks none."""
    picks = [pick(other) for other in others]
    chosen = [pick(sample) for sample in samples]
    return [0.0 if mine is None else picks.count(mine) / len(picks) for mine in chosen]


def states_query_only(principles: Sequence[Principle], item: Item, known: Set[str] = frozenset()) -> bool:
    """Tells whether principles were written of the query alone.

    They name no response ("Response 2"), and use no word that stands in a response but neither in the conversation nor in
    `known`. Principles that are not stated are not of the query. A word is a run of letters and digits, in any case.
    """
    if not principles:
        return False
    text = "\n".join(principle.text for principle in principles)
    if _NAMED_RESPONSE.search(text):
        return False
    given = _words(" ".join(turn.content for turn in item.conversation)) | known
    return not (_words(text) & _words(" ".join(item.responses))) - given


def template_words(template: Template) -> frozenset[str]:
    """The words of a template's own text: every judge it drives has read them, whatever the responses say."""
    blocks = (*template.blocks.values(), *template.single.values())
    texts = [part.text for block in blocks for part in block if isinstance(part, Literal)]
    return frozenset(_words(" ".join(texts)))


def _rule(item: Item, sample: Sample) -> float:
    assert item.label is not None
    return reward(sample.scores, item.label, len(item.responses))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
