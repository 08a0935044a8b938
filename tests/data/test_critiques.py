"""The arena's streams of training examples: of the train split alone, pure functions of the index."""

import re
from pathlib import Path

import numpy as np
import pytest

from grm_jax.data.arena.oracle import Noise
from grm_jax.data.arena.requirements import MISSING, Requirement, Response
from grm_jax.data.arena.responses import broken_by
from grm_jax.data.arena.tasks import HELD_OUT_PAIRS, Task
from grm_jax.data.arena.words import WORDS
from grm_jax.data.arena.world import generate, split_of
from grm_jax.data.critiques import ArenaCritiques, ArenaInstructions, ArenaReadings
from grm_jax.data.examples import CritiqueExample, InstructionExample


def read_task(prompt: str) -> Task:
    asked = []
    for text in re.fullmatch(r"[A-Z][a-z ]+: ([a-z0-9; ]+)\.", prompt)[1].split("; "):
        first, second, *third = text.split()
        asked.append(Requirement("after", (first, *third)) if second == "after" else Requirement(first, (second,)))
    return Task(tuple(asked))


def read_response(text: str) -> Response:
    form = {"-": "dash", "(": "brackets", "*": "stars"}[text[0]]
    return Response(tuple(re.findall("[a-z]+", text)), form)


def test_an_instruction_is_answered_by_what_meets_all_of_it():
    stream = ArenaInstructions(seed=3)
    for index in range(500):
        example = stream(index)
        ((role, prompt),) = example.conversation
        task, response = read_task(prompt), read_response(example.completion)
        assert isinstance(example, InstructionExample)
        assert role == "user"
        assert response.text == example.completion
        assert broken_by(task, response) == ()
        assert split_of(task) == "train"
        assert not any(set(pair) <= {one.kind for one in task.requirements} for pair in HELD_OUT_PAIRS)


def test_a_reading_asks_for_each_word_once_and_says_what_follows_it():
    stream = ArenaReadings(seed=3)
    lacking, order = [], []
    for index in range(500):
        example = stream(index)
        ((role, shown),) = example.conversation
        response = read_response(shown)
        assert isinstance(example, InstructionExample)
        assert role == "user"
        assert response in generate("train", index, 3).responses
        assert example.completion.startswith(": ")
        told = [tuple(pair.split(" ")) for pair in example.completion.removeprefix(": ").split("; ")]
        assert all(follower == response.follower(word) for word, follower in told)
        asked = [word for word, _ in told]
        assert len(set(asked)) == len(asked)
        assert set(response.words) <= set(asked) <= set(WORDS)
        assert {word for word, follower in told if follower == MISSING} == set(asked) - set(response.words)
        lacking.append(len(asked) - len(set(response.words)))
        order.append(asked[0] == response.words[0])
    assert set(lacking) <= {0, 1, 2}
    assert np.mean(lacking) > 1.5  # a word that is missing is asked for in nearly every lesson
    assert np.mean(order) < 0.3  # a lesson does not go from left to right, or its answer could be copied


def test_the_documented_reading_is_what_the_stream_holds():
    page = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    ((_, shown),), completion = ArenaReadings()(1).conversation, ArenaReadings()(1).completion
    assert f"`{shown}` is answered by `{completion}`" in " ".join(page.split())


def test_readings_are_of_any_of_the_responses():
    places = []
    for index in range(1000):
        texts = generate("train", index, 0).item["responses"]
        if len(texts) == 2:
            places.append(texts.index(ArenaReadings()(index).conversation[0][1]))
    assert np.mean(places) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("make", [ArenaInstructions, ArenaReadings, lambda seed: ArenaCritiques(seed=seed, hinted=0.5)])
def test_a_stream_is_a_function_of_seed_and_index(make):
    forward = [make(seed=0)(index) for index in range(20)]
    assert forward == [make(seed=0)(index) for index in reversed(range(20))][::-1]
    assert all(one != other for one, other in zip(forward, (make(seed=1)(i) for i in range(20)), strict=True))
    assert len({example.conversation for example in forward}) == 20


@pytest.mark.parametrize("hinted", [0.0, 0.3, 1.0])
def test_critiques_are_of_train_items_and_a_share_of_them_is_hinted(hinted):
    stream = ArenaCritiques(seed=2, hinted=hinted)
    hints = []
    for index in range(600):
        example, item = stream(index), generate("train", index, 2).item
        assert isinstance(example, CritiqueExample)
        assert example.conversation == (("user", item["prompt"]),)
        assert sorted(example.responses) == sorted(item["responses"])
        hints.append(example.hint is not None)
        if example.hint is not None:
            assert example.hint.strength is None
            assert not example.critique.startswith("Principles: longer is better")
            if len(item["responses"]) > 1:
                assert example.responses[example.hint.label] == item["responses"][item["label"]]
            else:
                assert example.hint.label == item["label"] == item["meta"]["quality"][0]
    assert np.mean(hints) == pytest.approx(hinted, abs=4 * (hinted * (1 - hinted) / 600) ** 0.5)


def test_orders_are_random():
    kept = []
    for index in range(600):
        example, item = ArenaCritiques()(index), generate("train", index, 0).item
        if len(item["responses"]) == 2:
            kept.append(list(example.responses) == item["responses"])
    assert np.mean(kept) == pytest.approx(0.5, abs=0.1)


def test_noise_and_principles_reach_the_oracle():
    always = ArenaCritiques(noise=Noise(spurious=1.0))
    assert all(always(index).critique.startswith("Principles: longer is better") for index in range(30))
    for noise in (Noise.none(), Noise(spurious=1.0)):
        without = ArenaCritiques(noise=noise, principles=False)
        assert all(without(index).critique.startswith("Response 1: ") for index in range(30))
