"""The right answer, re-derived from the prompt's English alone by a second, slower program."""

import re

import numpy as np
import pytest

from grm_jax.data.arena.instructions import write_instruction
from grm_jax.data.arena.tasks import HELD_OUT_FAMILIES, SEEN_FAMILIES, draw_task, right_answer, write
from grm_jax.data.arena.words import WORDS, weighted
from grm_jax.keys import generator

FAMILIES = SEEN_FAMILIES + HELD_OUT_FAMILIES


def solve(prompt: str) -> str:
    """Reads a prompt and answers it, sharing nothing with the package."""
    found = re.fullmatch(r".*?[Ll]ist: ([a-z0-9 ]+)\. ([A-Z][a-z0-9 ,]+)\. ([A-Z][a-z ]+)\.", prompt)
    assert found, prompt
    words = found[1].split()
    for request in found[2].lower().split(", then "):
        words = obey(request, words)
    if "comma" in found[3]:
        return ", ".join(words)
    if "bracket" in found[3]:
        return "( " + " ".join(words) + " )"
    return " ".join(words) + ("." if "dot" in found[3] else "")


def obey(request: str, words: list[str]) -> list[str]:
    """Carries out one request, found by its key word."""
    if "number" in request:
        total = 0
        for word in words:
            total += int(word)
        return [str(total)]
    if request.startswith(("count", "say")):
        target = next(word for word in request.split() if word in WORDS)
        return [str(len([word for word in words if word == target]))]
    if request.startswith(("drop", "leave", "remove")):
        kept = []
        for word in words:
            if word != request.split()[-1]:
                kept.append(word)
        return kept
    if digits := re.search(r"\d+", request):
        return [words[place] for place in range(int(digits[0]))]
    if "alphabet" in request or "sort" in request or "a to z" in request:
        rest, ordered = list(words), []
        while rest:
            smallest = rest[0]
            for word in rest:
                if word < smallest:
                    smallest = word
            rest.remove(smallest)
            ordered.append(smallest)
        return ordered
    if "reverse" in request or "around" in request:
        return [words[len(words) - 1 - place] for place in range(len(words))]
    assert "copy" in request or "repeat" in request or "same" in request, request
    return list(words)


@pytest.mark.parametrize("operations", FAMILIES, ids="+".join)
def test_right_answer_is_what_the_prompt_asks_for(operations: tuple[str, ...]) -> None:
    rng = generator("test", *operations)
    for _ in range(300):
        task = draw_task(operations, rng)
        assert write(right_answer(task), task.form) == solve(write_instruction(task, rng))


@pytest.mark.parametrize("operations", FAMILIES, ids="+".join)
def test_tasks_stay_small(operations: tuple[str, ...]) -> None:
    rng = generator("small", *operations)
    for _ in range(300):
        task = draw_task(operations, rng)
        answer = right_answer(task)
        if task.numeric:
            assert len(answer) == 1
            assert 0 <= int(answer[0]) <= 20
        else:
            assert 2 <= len(answer) <= 5
        assert 2 <= len(task.given) <= 7
        assert len(write_instruction(task, rng).split()) <= 32
        if task.form == "commas":
            assert len(answer) >= 3


def test_held_out_pairs_are_never_trained_though_their_parts_are() -> None:
    trained_pairs = {frozenset(family) for family in SEEN_FAMILIES if len(family) == 2}
    for first, second in HELD_OUT_FAMILIES:
        assert frozenset((first, second)) not in trained_pairs
        for place, operation in enumerate((first, second)):
            assert (operation,) in SEEN_FAMILIES
            assert any(len(family) == 2 and family[place] == operation for family in SEEN_FAMILIES)


def test_vocabulary_is_short_sorted_and_apart_from_the_instructions() -> None:
    assert list(WORDS) == sorted(set(WORDS))
    assert all(re.fullmatch("[a-z]{2,5}", word) for word in WORDS)
    spoken = set()
    for operations in FAMILIES:
        rng = generator("spoken", *operations)
        for _ in range(60):
            task = draw_task(operations, rng)
            prompt = write_instruction(task, rng).lower()
            spoken |= set(re.findall("[a-z]+", prompt)) - set(task.given)
    assert not spoken & set(WORDS)


def test_weighted_draws_follow_their_weights() -> None:
    rng = generator("weighted")
    counts = np.bincount([weighted(rng, {0: 1.0, 1: 2.0, 2: 5.0}) for _ in range(8000)], minlength=3)
    np.testing.assert_allclose(counts / 8000, [0.125, 0.25, 0.625], atol=0.02)
