"""What helps a judge in the arena: the principles that weigh most, a reference answer; and critiques that use them."""

import re

import numpy as np
import pytest

from grm_jax.data.arena.aids import GIVEN, aided, principle, reference, rubric
from grm_jax.data.arena.oracle import Noise, critique
from grm_jax.data.arena.responses import broken_by
from grm_jax.data.arena.world import generate
from grm_jax.data.critiques import ArenaCritiques
from grm_jax.data.records import item_from_json
from grm_jax.errors import UserError
from grm_jax.keys import generator

EXAMPLES = [generate(split, index, 7) for split in ("train", "test") for index in range(150)]


def test_given_principles_are_those_that_weigh_most():
    for example in EXAMPLES:
        chosen = rubric(example.task)
        left = [one.weight for one in example.task.requirements if one not in chosen]
        assert len(chosen) == GIVEN and min(one.weight for one in chosen) >= max(left)
        assert [one.weight for one in chosen] == sorted((one.weight for one in chosen), reverse=True)


def test_a_reference_answer_breaks_nothing_and_is_not_to_be_judged():
    for example in EXAMPLES:
        drawn = reference(example)
        assert broken_by(example.task, drawn) == ()
        assert drawn.text not in example.item["responses"]
        assert drawn == reference(example)


def test_aids_are_part_of_the_item_and_nothing_else_changes():
    for example in EXAMPLES[:20]:
        item = item_from_json(aided(example, principles=True, with_reference=True), "x")
        assert item.principles == tuple(map(principle, rubric(example.task)))
        assert item.reference == reference(example).text
        assert aided(example) == example.item
        assert {**example.item, "principles": list(item.principles), "reference": item.reference} == aided(
            example, principles=True, with_reference=True
        )


def test_a_critique_applies_the_given_principles_and_no_others():
    stream = ArenaCritiques(seed=4, given=0.5)
    given = 0
    for index in range(200):
        example = stream(index)
        stated = example.critique.splitlines()[0].removeprefix("Principles: ").split("; ")
        if example.principles:
            given += 1
            assert tuple(stated) == example.principles
    assert 70 < given < 130


def test_who_compares_with_a_reference_sees_what_is_broken_more_often():
    def share(compared):
        found = []
        for number, example in enumerate(EXAMPLES):
            n = len(example.responses)
            text = critique(example, tuple(range(n)), generator("seen", number), Noise.none(), compared=compared)
            stated = re.findall(r"([a-z ]+\w) \(\d\)", text.splitlines()[0])
            broken = {one.text for faults in example.broken for one in faults}
            found.append(np.mean([one.strip() in broken for one in stated]))
        return np.mean(found)

    assert share(True) > share(False) + 0.15
    shown = [ArenaCritiques(seed=4, referenced=0.5)(index) for index in range(100)]
    assert 30 < sum(example.reference is not None for example in shown) < 70
    assert not any("longer is better" in example.critique for example in shown if example.reference)


@pytest.mark.parametrize(("shown", "count"), [("pair", 2), ("one", 1)])
def test_some_of_the_responses_are_shown_each_in_any_place(shown, count):
    stream = ArenaCritiques(seed=4, shown=shown)
    for index in range(100):
        example = stream(index)
        assert len(set(example.responses)) == count
        assert example.critique.count("Response ") == count
    whole = [generate("train", index, 4).item["responses"] for index in range(100)]
    places = [texts.index(stream(i).responses[0]) for i, texts in enumerate(whole) if len(texts) == 2]
    assert 0.3 < np.mean(places) < 0.7


def test_a_verdict_names_the_response_with_the_fewest_faults_found():
    named, level = [], []
    for number, example in enumerate(EXAMPLES):
        n = len(example.responses)
        if n < 2:
            continue
        order = tuple(range(n))
        verdict = critique(example, order, generator("verdict", number), Noise.none(), verdict=True)
        scored = critique(example, order, generator("verdict", number), Noise.none())
        assert verdict.splitlines()[:-1] == scored.splitlines()[:-1]  # all but the block is the same
        best = int(re.fullmatch(r"Best: \\boxed\{(\d)\}", verdict.splitlines()[-1])[1])
        scores = [int(score) for score in re.search(r"\\boxed\{(.*)\}", scored)[1].split(", ")]
        assert scores[best - 1] == max(scores)
        if scores.count(max(scores)) > 1:
            level.append(scores.index(max(scores)) == best - 1)
        named.append(best)
    assert 0.25 < np.mean(level) < 0.7 and set(named) == {1, 2, 3, 4}


def test_a_malformed_verdict_names_none():
    noise = Noise(spurious=0, irrelevant=0, careless=0, illogical=0, malformed=1)
    for number, example in enumerate(EXAMPLES[:60]):
        n = len(example.responses)
        text = critique(example, tuple(range(n)), generator("bad", number), noise, verdict=True)
        last = text.splitlines()[-1]
        assert last in ("Best:", f"Best: \\boxed{{{n + 1}}}", "Best: \\boxed{1, 2}")


@pytest.mark.parametrize(
    "bad", [{"shown": "some"}, {"shown": "pair", "hinted": 0.1}, {"given": 0.1, "principles": False}]
)
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(UserError, match=r"ArenaCritiques\."):
        ArenaCritiques(**bad)


def test_what_is_not_asked_for_changes_no_stream():
    """The streams that shipped models were made from: a digest of critiques as they were before there were aids."""
    from grm_jax.keys import digest

    texts = [ArenaCritiques(seed=0, hinted=0.1, noise=Noise(guess=1.0))(index).critique for index in range(50)]
    assert digest(*texts).hex()[:16] == "53088864613c95a0"
