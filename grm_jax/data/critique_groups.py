"""Critiques of one prompt as arrays: what a model reads that rewards critiques.

Letters: P prompts, G critiques a prompt, S prompt positions (padded), T critique positions (padded).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.text.template import PromptTooLong, encode_prompt
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import END_OF_TURN, Tokenizer


@dataclass(frozen=True)
class CritiqueGroup:
    """A prompt int32 [s] and critiques of it, each int32 [t] with its end of turn last."""

    prompt: np.ndarray
    critiques: tuple[np.ndarray, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the prompt with its longest critique: what has to fit into a context."""
        return len(self.prompt) + self.longest

    @property
    def longest(self) -> int:
        """Tokens of the longest critique."""
        return max(map(len, self.critiques))


def encode_group(
    template: Template, tokenizer: Tokenizer, item: Item, order: Sequence[int], critiques: Sequence[str]
) -> CritiqueGroup:
    """Encodes an item, its responses in the order shown, and critiques written of them in that order.

    A critique is text that nobody vouches for, like the rest: it is encoded apart, and no control id comes of it.

    Raises:
        UserError: the template cannot show the item, or the tokenizer has no end of turn.
    """
    try:
        prompt = encode_prompt(
            template,
            tokenizer,
            [(turn.role, turn.content) for turn in item.conversation],
            [item.responses[i] for i in order],
            reference=item.reference,
            principles=item.principles,
        )
    except UserError as error:
        raise UserError(f"item {item.id!r}: {error}") from error
    assert not isinstance(prompt, PromptTooLong)  # no limit was given
    end = tokenizer.control_id(END_OF_TURN)
    return CritiqueGroup(prompt.ids, tuple(np.array([*tokenizer.encode(text), end], np.int32) for text in critiques))


def pad_groups(groups: Sequence[CritiqueGroup], P: int, G: int, S: int, T: int) -> dict[str, np.ndarray]:
    """Stacks at most P groups of at most G critiques, padded on the right.

    Returns:
        prompt_tokens int32 [P, S], prompt_lengths int32 [P] (1 where there is no prompt), tokens int32 [P, G, T],
        lengths int32 [P, G] (0 where there is no critique), mask float32 [P, G]: 1 where there is one.

    Raises:
        ValueError: something does not fit.
    """
    batch = {
        "prompt_tokens": np.zeros((P, S), np.int32),
        "prompt_lengths": np.ones(P, np.int32),
        "tokens": np.zeros((P, G, T), np.int32),
        "lengths": np.zeros((P, G), np.int32),
        "mask": np.zeros((P, G), np.float32),
    }
    for p, group in enumerate(groups):
        if p >= P or len(group.prompt) > S or len(group.critiques) > G or group.longest > T:
            raise ValueError(f"group {p} does not fit [{P}, {G}] of {S} + {T} tokens")
        batch["prompt_tokens"][p, : len(group.prompt)] = group.prompt
        batch["prompt_lengths"][p] = len(group.prompt)
        for g, critique in enumerate(group.critiques):
            batch["tokens"][p, g, : len(critique)] = critique
            batch["lengths"][p, g] = len(critique)
            batch["mask"][p, g] = 1.0
    return batch
