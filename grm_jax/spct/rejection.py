"""Rejective fine-tuning: which sampled critiques become training data (section 3.2.1 of arXiv 2504.02495).

Of each item N_RFT samples are judged by Eq 10. Wrong ones are rejected, and right ones too where all are right: the item
teaches nothing. An item of which none is right may have one sample more, drawn with a hint, rejected only if wrong.
"""

import dataclasses
from collections.abc import Sequence

from grm_jax.data.records import OUTCOMES, Item, Sample
from grm_jax.errors import UserError
from grm_jax.spct.acceptance import accepted

ACCEPTED, WRONG, TOO_EASY = "accepted", "wrong", "too_easy"
DECISIONS = (ACCEPTED, WRONG, TOO_EASY, *(outcome for outcome in OUTCOMES if outcome != "ok"))
"""What is found of a sample, exactly one each: right, wrong, right on an item that is too easy, or why it was unreadable."""


@dataclasses.dataclass(frozen=True)
class Rft:
    """Settings of rejective fine-tuning's sampling.

    Attributes:
        samples: N_RFT, samples an item without a hint.
        hinted: one hinted sample for each item of which no sample without a hint is right.
        temperature: of all samples. The paper gives 0.5 for its votes and none for this stage.
        max_new: tokens a critique, at most; 0 is the judge's own default.
        rows: critiques decoded together.
        seed: of orders and samples.
        reject_wrong: leave wrong samples out; without it (an ablation) all that can be read is kept.
        reject_easy: leave items out whose samples are all right.
    """

    samples: int = 3
    hinted: bool = False
    temperature: float = 0.5
    max_new: int = 0
    rows: int = 64
    seed: int = 0
    reject_wrong: bool = True
    reject_easy: bool = True

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("max_new", 0), ("rows", 1)):
            if getattr(self, name) < least:
                raise UserError(f"Rft.{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"Rft.temperature is {self.temperature}; it must be 0 (greedy) or a positive number")


@dataclasses.dataclass(frozen=True)
class Decision:
    """A sample, what was found of it (one of `DECISIONS`), and whether it becomes training data."""

    sample: Sample
    found: str
    kept: bool


def decide(item: Item, samples: Sequence[Sample], settings: Rft) -> list[Decision]:
    """Decides on the samples without a hint of one item.

    Args:
        item: with a label.
        samples: in the order of their index; an item is too easy only when there are `settings.samples` of them.
        settings: N_RFT and what is rejected.

    Returns:
        A decision for each sample, in order.

    Raises:
        ValueError: the item has no label, or one that does not fit.
    """
    right = [is_right(item, sample) for sample in samples]
    easy = all(right) and len(right) >= settings.samples
    return [
        _decision(sample, TOO_EASY if easy else ACCEPTED if good else WRONG, settings)
        for sample, good in zip(samples, right, strict=True)
    ]


def decide_hinted(item: Item, sample: Sample, settings: Rft) -> Decision:
    """Decides on the hinted sample of one item: it is rejected only if wrong."""
    return _decision(sample, ACCEPTED if is_right(item, sample) else WRONG, settings)


def is_hard(item: Item, samples: Sequence[Sample]) -> bool:
    """Tells whether no sample is right, so that a hint may help."""
    return not any(is_right(item, sample) for sample in samples)


def is_right(item: Item, sample: Sample) -> bool:
    """Tells whether a sample agrees with the label of its item (Eq 10)."""
    if item.label is None:
        raise ValueError(f"item {item.id!r} has no label")
    return accepted(sample.scores, item.label, len(item.responses))


def _decision(sample: Sample, found: str, settings: Rft) -> Decision:
    if sample.outcome != "ok":
        return Decision(sample, sample.outcome, kept=False)
    kept = {ACCEPTED: True, WRONG: not settings.reject_wrong, TOO_EASY: not settings.reject_easy}[found]
    return Decision(sample, found, kept)
