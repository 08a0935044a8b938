"""Responses with known faults, and the diagnosis that names the faults of any response."""

from dataclasses import dataclass

import numpy as np

from grm_jax.data.arena.tasks import FORMS, Task, apply_step, right_answer, write
from grm_jax.data.arena.words import LARGEST_NUMBER, WORDS, chance, pick, weighted

SEVERITY: dict[str, int] = {
    "wrong word": 4,
    "several wrong words": 6,
    "swapped words": 4,
    "wrong order": 5,
    "missing word": 4,
    "extra word": 4,
    "forbidden word": 5,
    "off by one": 4,
    "wrong number": 6,
    "wrong form": 3,
    "chatter": 2,
}
"""Points that each kind of fault costs."""

CHATTER: tuple[tuple[str, str], ...] = (("sure: ", ""), ("ok, here: ", ""), ("", " good luck!"), ("", " done!"))
"""What an unasked remark puts before and after the answer."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response in parts. `chatter` is an entry of `CHATTER`, or two empty strings."""

    words: tuple[str, ...]
    form: str
    chatter: tuple[str, str] = ("", "")

    @property
    def text(self) -> str:
        """The response as the judge sees it."""
        before, after = self.chatter
        return before + write(self.words, self.form) + after


def quality(faults: tuple[str, ...]) -> int:
    """Returns 10 minus the severities, at least 1."""
    return max(1, 10 - sum(SEVERITY[fault] for fault in faults))


def content_kinds(task: Task) -> tuple[str, ...]:
    """Returns the kinds of content fault that a response to `task` can have."""
    if task.numeric:
        return ("off by one", "wrong number")
    kinds = ("wrong word", "several wrong words", "swapped words", "wrong order", "missing word", "extra word")
    return (*kinds, "forbidden word") if task.forbidden else kinds


def diagnose(task: Task, answer: tuple[str, ...], response: Response) -> tuple[str, ...]:
    """Returns the faults of a response measured against `answer`: at most one each of content, form and chatter."""
    content = _content_fault(task, answer, response.words)
    form = "wrong form" if response.form != task.form else ""
    return tuple(fault for fault in (content, form, "chatter" if any(response.chatter) else "") if fault)


def _content_fault(task: Task, answer: tuple[str, ...], words: tuple[str, ...]) -> str:
    if words == answer:
        return ""
    if task.numeric:
        return "off by one" if abs(int(words[0]) - int(answer[0])) == 1 else "wrong number"
    if task.forbidden in words:
        return "forbidden word"
    if len(words) != len(answer):
        return "missing word" if len(words) < len(answer) else "extra word"
    mismatches = sum(left != right for left, right in zip(words, answer, strict=True))
    if sorted(words) == sorted(answer):
        return "swapped words" if mismatches == 2 else "wrong order"
    return "wrong word" if mismatches == 1 else "several wrong words"


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probability that a drawn response has a fault of content, of form, and chatter."""

    content: float
    form: float
    chatter: float


def draw_response(task: Task, rates: FaultRates, rng: np.random.Generator) -> Response:
    """Draws a response to `task` with faults at the given rates."""
    words = right_answer(task)
    if chance(rng, rates.content):
        words = _wrong_number(words, rng) if task.numeric else _wrong_list(task, words, rng)
    form = task.form
    if chance(rng, rates.form):
        possible = FORMS if len(words) > 1 else FORMS[:3]
        form = pick(rng, [other for other in possible if other != task.form])
    return Response(words, form, pick(rng, CHATTER) if chance(rng, rates.chatter) else ("", ""))


def _wrong_number(words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    right = int(words[0])
    shifts = (-1, 1) if chance(rng, 0.6) else (-4, -3, -2, 2, 3, 4)
    return (str(pick(rng, [right + s for s in shifts if 0 <= right + s <= LARGEST_NUMBER])),)


def _wrong_list(task: Task, words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    weights = {"replace": 2.0, "replace two": 1.0, "swap": 2.0, "omit": 2.3, "insert": 1.0, "skip": 2.0}
    wrong = words
    while wrong == words:
        wrong = _mutate(weighted(rng, weights), task, words, rng)
    return wrong


def _mutate(kind: str, task: Task, words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    changed = list(words)
    place = int(rng.random() * len(words))
    other = (place + 1 + int(rng.random() * (len(words) - 1))) % len(words)
    match kind:
        case "skip":
            return _skip_a_step(task, rng)
        case "swap":
            changed[place], changed[other] = changed[other], changed[place]
        case "omit":
            del changed[place]
        case "insert":
            changed.insert(int(rng.random() * (len(words) + 1)), _stranger(task, rng))
        case _:
            changed[place] = _stranger(task, rng)
            if kind == "replace two":
                changed[other] = _stranger(task, rng)
    return tuple(changed)


def _skip_a_step(task: Task, rng: np.random.Generator) -> tuple[str, ...]:
    skipped = int(rng.random() * len(task.steps))
    words = task.given
    for index, step in enumerate(task.steps):
        if index != skipped:
            words = apply_step(step, words)
    return words


def _stranger(task: Task, rng: np.random.Generator) -> str:
    word = pick(rng, WORDS)
    while word in task.given:
        word = pick(rng, WORDS)
    return word
