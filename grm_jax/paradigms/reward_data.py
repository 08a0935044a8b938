"""What scalar reward models learn from: preferences as sequences with signs, of labelled items of two responses or more.

Letters: P preferences, M sequences a preference, S prompt positions, T critique positions.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.data.critique_groups import CritiqueGroup, encode_group, pad_groups
from grm_jax.data.epochs import SortedEpochs
from grm_jax.data.parts import singles
from grm_jax.data.records import Item, Sample
from grm_jax.errors import UserError
from grm_jax.judge.meta import completion_bucket
from grm_jax.judge.run_store import RunStore, item_facts
from grm_jax.sampling.sampler import bucket
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Preference:
    """Sequences (a prompt with one critique, which may be empty) and the sign of each in the margin."""

    sequences: tuple[CritiqueGroup, ...]
    signs: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the longest sequence: what has to fit into a context."""
        return max(sequence.tokens for sequence in self.sequences)


def preferences(kind: str, items: Sequence[Item], template: Template, tokenizer: Tokenizer) -> list[Preference]:
    """Encodes what BTRM or PairRM learns from: the best response of each item against each of the others.

    A pair is shown in both orders, each a preference of its own.

    Raises:
        UserError: an item has no label, or the template cannot show it.
    """

    def sequence(item: Item, *places: int) -> CritiqueGroup:
        return encode_group(template, tokenizer, item, places, [""])

    found = []
    for item, best, other in _contrasts(items):
        if kind == "btrm":
            found.append(Preference((sequence(item, best), sequence(item, other)), (1.0, -1.0)))
        else:
            found += [
                Preference((sequence(item, best, other),), (1.0,)),
                Preference((sequence(item, other, best),), (-1.0,)),
            ]
    return found


def criticised(
    items: Sequence[Item], critiques: RunStore, where: str, template: Template, tokenizer: Tokenizer
) -> list[Preference]:
    """Encodes what CLoud learns from: as BTRM, each response with a critique of it, and once more for each further critique.

    Args:
        items: labelled.
        critiques: of the items' responses one by one (`data.parts.singles`), by the model that writes them later too. Those that
            cannot be read are left out, as they are when they vote.
        where: names the critiques in messages.
        template: of the reward model.
        tokenizer: of the reward model.

    Raises:
        UserError: critiques are missing or of other responses, or as `preferences`.
    """
    found = []
    for item, best, other in _contrasts(items):
        parts = singles(item)
        read = [[s for s in _samples(critiques, parts[place], where) if s.outcome == "ok"] for place in (best, other)]
        for chosen, rejected in zip(*read, strict=False):
            sequences = tuple(
                encode_group(template, tokenizer, item, (place,), [sample.text])
                for place, sample in ((best, chosen), (other, rejected))
            )
            found.append(Preference(sequences, (1.0, -1.0)))
    return found


class RewardBatches:
    """An endless source of batches (`train.loop.BatchSource`), in the order of `data.epochs`: what `preference_loss` reads.

    S and T are those of the batch's longest sequence, rounded up, so that few shapes are compiled.
    """

    def __init__(self, examples: Sequence[Preference], *, size: int, seed: int):
        """`size` is P; there must be a preference, and all have the same number of sequences."""
        self._examples, self._size = examples, size
        self._order = SortedEpochs("preferences", seed, [example.tokens for example in examples], size)
        self._next = 0  # batch

    def next(self, params: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Returns the next batch; `params` plays no part."""
        chosen = [self._examples[place] for place in self._order.batch(self._next)]
        epoch = self._order.epoch(self._next)
        self._next += 1
        sequences = [sequence for example in chosen for sequence in example.sequences]
        S = bucket(max(len(sequence.prompt) for sequence in sequences))
        T = completion_bucket(max(sequence.longest for sequence in sequences))
        flat = pad_groups(sequences, len(sequences), 1, S, T)
        P, M = len(chosen), len(chosen[0].signs)
        return {
            "prompt_tokens": flat["prompt_tokens"].reshape(P, M, S),
            "prompt_lengths": flat["prompt_lengths"].reshape(P, M),
            "tokens": flat["tokens"].reshape(P, M, T),
            "lengths": flat["lengths"].reshape(P, M),
            "signs": np.array([example.signs for example in chosen], np.float32),
        }, {"epoch": epoch}

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch."""
        return {"next": self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self._next = int(state["next"])


def _contrasts(items: Sequence[Item]) -> Iterator[tuple[Item, int, int]]:
    """(item, best, other) for each other response; items of one response are passed over."""
    for item in items:
        if len(item.responses) < 2:
            continue
        if item.label is None:
            raise UserError(f"item {item.id!r} has no label, so none of its responses is preferred; add it")
        best = int(item.label)
        yield from ((item, best, other) for other in range(len(item.responses)) if other != best)


def _samples(store: RunStore, part: Item, where: str) -> list[Sample]:
    facts = store.items.get(part.id)
    if facts is None or facts.digest != item_facts(part).digest:
        problem = "has no critiques there" if facts is None else "had another text when it was criticised"
        raise UserError(f"{where}: response {part.id!r} {problem}; sample the parts of these items (grm data parts)")
    return [sample for _, sample in sorted(store.samples.get(part.id, {}).items())]
