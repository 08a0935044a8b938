"""Plain text of the world, for training a tokenizer."""

from collections.abc import Iterator

from grm_jax.data.arena.oracle import Noise, critique
from grm_jax.data.arena.requirements import FORMS, KINDS, LAST, MISSING
from grm_jax.data.arena.words import LARGEST_NUMBER, WORDS
from grm_jax.data.arena.world import generate
from grm_jax.keys import generator

SPACE = "▁"  # how SentencePiece writes a space

_TERMS = (*KINDS, *FORMS, LAST, MISSING, "ok", "bad", "words")
_FIRST_SCORE = "10"  # the one number of two digits that stands right after a bracket
_MARKS = ("Principles:", "Response", "Scores:", "Best:", " \\boxed{", "}", ",", ":", ".", ";", " (", ")", " )")


def corpus(split: str, count: int, seed: int) -> Iterator[str]:
    """Yields the text of `count` examples: of each the prompt, every response and one critique by the noisy oracle.

    Each is a string of its own, as each is encoded apart. The world's words are preceded by a space in all of them.
    """
    for index in range(count):
        example = generate(split, index, seed)
        rng = generator("arena corpus", seed, split, index)
        order = tuple(rng.permutation(len(example.responses)).tolist())
        yield example.item["prompt"]
        yield from example.item["responses"]
        yield critique(example, order, rng, Noise())


def pieces() -> tuple[str, ...]:
    """Returns the texts that deserve a token of their own: the world's words, terms and numbers, and the marks of critiques."""
    words = (*WORDS, *_TERMS, *map(str, range(LARGEST_NUMBER + 1)))
    return (*(SPACE + word for word in words), _FIRST_SCORE, *_MARKS)
