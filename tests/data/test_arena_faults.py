"""Faults are what the response's text shows, and quality is what they cost."""

import re

import pytest

from grm_jax.data.arena.faults import SEVERITY, Response, content_kinds, diagnose, quality
from grm_jax.data.arena.tasks import Step, Task
from grm_jax.data.arena.world import generate

TASK = Task((Step("drop", "cat"),), ("owl", "cat", "sun", "pen", "key"), "plain")
ANSWER = ("owl", "sun", "pen", "key")
REMARK = re.compile(r"^(sure: |ok, here: )|( good luck!| done!)$")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("owl sun pen key", None),
        ("owl sun pen dog", "wrong word"),
        ("owl sun hat dog", "several wrong words"),
        ("owl pen sun key", "swapped words"),
        ("key sun pen owl", "swapped words"),
        ("key owl sun pen", "wrong order"),
        ("owl sun pen", "missing word"),
        ("owl sun pen key dog", "extra word"),
        ("owl cat sun pen key", "forbidden word"),
        ("owl cat sun pen", "forbidden word"),
    ],
)
def test_diagnosis_names_the_fault_of_a_list(words: str, fault: str | None) -> None:
    assert diagnose(TASK, ANSWER, Response(tuple(words.split()), "plain")) == ((fault,) if fault else ())


@pytest.mark.parametrize(
    ("number", "fault"), [("3", ()), ("2", ("off by one",)), ("4", ("off by one",)), ("5", ("wrong number",))]
)
def test_diagnosis_names_the_fault_of_a_number(number: str, fault: tuple[str, ...]) -> None:
    task = Task((Step("add"),), ("1", "2"), "dot")
    assert diagnose(task, ("3",), Response((number,), "dot")) == fault


def test_form_and_chatter_come_on_top() -> None:
    response = Response(("owl", "sun", "pen"), "dot", ("sure: ", ""))
    assert response.text == "sure: owl sun pen."
    assert diagnose(TASK, ANSWER, response) == ("missing word", "wrong form", "chatter")
    assert quality(("missing word", "wrong form", "chatter")) == 10 - 4 - 3 - 2
    assert quality(("wrong number", "wrong form", "chatter")) == 1
    assert quality(()) == 10


def test_faults_of_a_text_can_be_read_off_it() -> None:
    """Form, chatter and correctness, read by pattern from the text, agree with the faults the world recorded."""
    for index in range(1500):
        example = generate("train", index, 11)
        for text, faults in zip(example.item["responses"], example.faults, strict=True):
            bare = REMARK.sub("", text)
            assert ("chatter" in faults) == (bare != text)
            form = next(
                name
                for name, pattern in {
                    "brackets": r"\( .* \)",
                    "dot": r".*\.",
                    "commas": ".*,.*",
                    "plain": r"[a-z0-9 ]+",
                }.items()
                if re.fullmatch(pattern, bare)
            )
            assert ("wrong form" in faults) == (form != example.task.form)
            right = tuple(re.findall("[a-z0-9]+", bare)) == example.answer
            assert right == (not set(faults) & set(content_kinds(example.task)))


def test_every_kind_of_fault_occurs() -> None:
    seen = {fault for index in range(1500) for found in generate("train", index, 12).faults for fault in found}
    assert seen == set(SEVERITY)
