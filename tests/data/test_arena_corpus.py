"""The text that a tokenizer of the arena learns from, and the pieces it is given."""

import re

from grm_jax.data.arena.corpus import SPACE, corpus, pieces
from grm_jax.data.arena.words import LARGEST_NUMBER
from grm_jax.data.arena.world import items


def test_corpus_holds_prompts_responses_and_critiques() -> None:
    texts = list(corpus("train", 30, 0))
    assert texts == list(corpus("train", 30, 0))
    assert all({item["prompt"], *item["responses"]} <= set(texts) for item in items("train", 30, 0))
    assert sum(text.startswith("Principles:") for text in texts) == 30


def test_every_word_and_number_of_the_corpus_is_one_piece_with_the_space_before_it() -> None:
    """So each is the same token everywhere, save weights and the first number of a score block."""
    known, numbers = set(pieces()), set()
    assert len(known) == len(pieces())
    for text in corpus("valid", 300, 0):
        for found in re.finditer(r"(?<!\\)\b[A-Za-z]+|[0-9]+", text):
            word, before = found[0], text[found.start() - 1 : found.start()]
            if before == " ":
                assert SPACE + word in known or word in {"a", "list", "longer", "is", "better"}, text
            elif word.isdigit():
                assert before in ("(", "{"), text
            else:
                assert word in {"Write", "List", "Give", "Principles", "Response", "Scores"}, text
            numbers |= {int(word)} if word.isdigit() else set()
    assert max(numbers) <= LARGEST_NUMBER
