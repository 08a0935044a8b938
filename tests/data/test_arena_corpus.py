"""The text that a tokenizer of the arena learns from, and the pieces it is given."""

import re

from grm_jax.data.arena.corpus import corpus, pieces
from grm_jax.data.arena.words import LARGEST_NUMBER
from grm_jax.data.arena.world import items


def test_corpus_holds_prompts_responses_and_critiques() -> None:
    texts = list(corpus("train", 30, 0))
    assert texts == list(corpus("train", 30, 0))
    assert all({item["prompt"], *item["responses"]} <= set(texts) for item in items("train", 30, 0))
    assert sum(text.startswith("Principles:") for text in texts) == 30


def test_every_word_and_number_of_the_corpus_is_a_piece() -> None:
    known = {
        *pieces(),
        "Write",
        "List",
        "Give",
        "a",
        "list",
        "Principles",
        "Response",
        "Scores",
        "longer",
        "is",
        "better",
    }
    assert len(set(pieces())) == len(pieces())
    numbers = set()
    for text in corpus("valid", 300, 0):
        words = set(re.findall("[A-Za-z]+|[0-9]+", text.replace("\\boxed", " ")))
        assert words <= known
        numbers |= {int(word) for word in words if word.isdigit()}
    assert max(numbers) <= LARGEST_NUMBER
