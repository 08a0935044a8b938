"""Tasks: small, about words that differ, with room to break each requirement; held-out pairs apart."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from grm_jax.data.arena.requirements import FORMS, KINDS, LAST, MISSING, Requirement, Response
from grm_jax.data.arena.responses import broken_by, draw_response
from grm_jax.data.arena.tasks import HELD_OUT_PAIRS, SIZES, Task, draw_task, write_instruction
from grm_jax.data.arena.words import LARGEST_NUMBER, WORDS, chance, distinct_words, pick, weighted
from grm_jax.keys import generator

TASKS = {held_out: [draw_task(held_out, generator("tasks", held_out, i)) for i in range(1500)] for held_out in (0, 1)}
BOTH = [*TASKS[0], *TASKS[1]]


def pairs(task: Task) -> list[tuple[str, str]]:
    kinds = [requirement.kind for requirement in task.requirements]
    return [pair for pair in HELD_OUT_PAIRS if pair[0] in kinds and pair[1] in kinds]


def test_requirements_differ_in_kind_and_word_and_stand_in_order() -> None:
    sizes = Counter(len(task.requirements) for task in BOTH)
    assert set(sizes) == set(SIZES) == {4, 5}
    for task in BOTH:
        kinds = [requirement.kind for requirement in task.requirements]
        assert kinds == [kind for kind in KINDS if kind in kinds]
        arguments = [argument for requirement in task.requirements for argument in requirement.arguments]
        assert len(set(arguments)) == len(arguments)
        assert task.mentioned == set(arguments)
        for requirement in task.requirements:
            assert len(requirement.arguments) == (2 if requirement.kind == "after" else 1)
            if requirement.kind not in ("length", "form"):
                assert set(requirement.arguments) <= set(WORDS)
    assert {r.arguments[0] for task in BOTH for r in task.requirements if r.kind == "form"} == set(FORMS)


def test_seen_tasks_hold_no_held_out_pair_and_others_hold_one() -> None:
    assert all(pairs(task) == [] and task.family == "seen" for task in TASKS[0])
    assert all(len(pairs(task)) == 1 and task.family == "+".join(*pairs(task)) for task in TASKS[1])
    assert Counter(task.family for task in TASKS[1]).keys() == {"start+double", "avoid+end"}


def test_each_kind_of_a_held_out_pair_is_trained_with_every_other_kind() -> None:
    trained = {frozenset((a.kind, b.kind)) for t in TASKS[0] for a in t.requirements for b in t.requirements if a != b}
    every = {frozenset((a, b)) for a in KINDS for b in KINDS if a != b}
    assert trained == every - {frozenset(pair) for pair in HELD_OUT_PAIRS}


def test_lengths_leave_room_to_break_any_requirement() -> None:
    taken = {"use": 1, "start": 1, "end": 1, "after": 2, "double": 2}
    for task in BOTH:
        room = sum(taken.get(requirement.kind, 0) for requirement in task.requirements)
        for requirement in task.requirements:
            if requirement.kind == "length":
                assert max(4, room + 1) <= int(requirement.arguments[0]) <= max(4, room + 2) < LARGEST_NUMBER


def test_a_response_breaks_just_what_it_is_to_break() -> None:
    """Every task can be met whole, and any one or two of its requirements be broken alone."""
    missing = 0
    for index, task in enumerate([*TASKS[0][:150], *TASKS[1][:150]]):
        asked = task.requirements
        for broken in [(), *((one,) for one in asked), *pairwise(asked)]:
            response = draw_response(task, broken, generator("break", index, len(broken)))
            missing += response is None
            if response is not None:
                assert broken_by(task, response) == broken
                assert tuple(one for one in asked if not one.met(response)) == broken
                assert 3 <= len(response.words) <= LARGEST_NUMBER
                assert set(response.words) <= set(WORDS)
    assert missing <= 6  # of some 2,500


def test_what_is_to_stand_together_is_broken_in_each_way() -> None:
    """Of a broken `after` both words are there, apart or the other way round; of a broken `double` the word once."""
    ways = Counter()
    for index, task in enumerate(TASKS[0]):
        for one in task.requirements:
            if one.kind not in ("after", "double"):
                continue
            response = draw_response(task, (one,), generator("ways", index))
            if response is not None:
                assert [response.words.count(word) for word in one.arguments] == [1] * len(one.arguments)
                ways[one.kind, response.follower(one.arguments[0]) == one.arguments[-1]] += 1
    assert set(ways) == {("after", False), ("after", True), ("double", False)}
    assert min(ways.values()) > 100


def test_what_cannot_be_broken_is_none_after_some_attempts() -> None:
    task = Task((Requirement("use", ("sun",)), Requirement("start", ("sun",))))
    assert draw_response(task, (task.requirements[0],), generator("none")) is None
    assert isinstance(draw_response(task, (), generator("none")), Response)


def test_a_prompt_states_the_requirements_in_random_order() -> None:
    openings, firsts = Counter(), Counter()
    for index, task in enumerate(BOTH):
        prompt = write_instruction(task, generator("prompt", index))
        found = re.fullmatch(r"(Write words|List words|Give a list): ([a-z0-9; ]+)\.", prompt)
        assert found, prompt
        stated = found[2].split("; ")
        assert sorted(stated) == sorted(requirement.text for requirement in task.requirements)
        assert task.facts == "; ".join(sorted(stated))
        openings[found[1]] += 1
        firsts[[requirement.text for requirement in task.requirements].index(stated[0])] += 1
    assert min(openings.values()) > 0.29 * len(BOTH)
    assert min(firsts[place] for place in range(4)) > 0.17 * len(BOTH)


def test_vocabulary_is_short_sorted_and_apart_from_the_terms() -> None:
    assert list(WORDS) == sorted(set(WORDS))
    assert all(re.fullmatch("[a-z]{2,5}", word) for word in WORDS)
    terms = {"write", "words", "list", "give", "a", "ok", "bad", "longer", "is", "better"}
    assert not set(WORDS) & {*KINDS, *FORMS, LAST, MISSING, *terms, "principles", "response", "scores"}


def test_draws_follow_their_weights() -> None:
    rng = generator("weighted")
    counts = np.bincount([weighted(rng, {0: 1.0, 1: 2.0, 2: 5.0}) for _ in range(8000)], minlength=3)
    np.testing.assert_allclose(counts / 8000, [0.125, 0.25, 0.625], atol=0.02)
    counts = np.bincount([pick(rng, (0, 1, 2, 3)) for _ in range(8000)], minlength=4)
    np.testing.assert_allclose(counts / 8000, 0.25, atol=0.02)
    assert np.mean([chance(rng, 0.2) for _ in range(8000)]) == pytest.approx(0.2, abs=0.02)
    assert not chance(rng, 0.0)
    drawn = [distinct_words(rng, 8) for _ in range(500)]
    assert all(len(set(words)) == 8 for words in drawn)
    assert {word for words in drawn for word in words} == set(WORDS)
