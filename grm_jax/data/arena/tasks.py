"""Tasks: an operation, or two in a row, on a short list, and a form for the answer. The right answer is computed."""

from dataclasses import dataclass, replace

import numpy as np

from grm_jax.data.arena.words import LARGEST_NUMBER, chance, distinct_words, pick

SEEN_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("copy",),
    ("reverse",),
    ("sort",),
    ("first",),
    ("drop",),
    ("count",),
    ("add",),
    ("drop", "reverse"),
    ("reverse", "drop"),
    ("sort", "first"),
    ("first", "sort"),
)
"""Operations of the families that training may see, in the order in which they are done."""

HELD_OUT_FAMILIES: tuple[tuple[str, ...], ...] = (("reverse", "first"), ("drop", "sort"))
"""Compositions kept out of training. Each part is trained alone and in the same place of another composition; the pair
of operations is never trained, in either order."""

FORMS: tuple[str, ...] = ("plain", "brackets", "dot", "commas")
"""How an answer is written. Commas are asked for only where the right answer has three words or more: then an answer
with one word missing still shows them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation; `argument` is the count of `first`, the word of `drop` and `count`, else empty."""

    operation: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: `steps` on the list `given`, the answer written in `form`."""

    steps: tuple[Step, ...]
    given: tuple[str, ...]
    form: str

    @property
    def family(self) -> str:
        """The operations' names joined by `+`, such as `sort+first`."""
        return "+".join(step.operation for step in self.steps)

    @property
    def numeric(self) -> bool:
        """Whether the answer is a number."""
        return self.steps[-1].operation in ("count", "add")

    @property
    def forbidden(self) -> str:
        """The word that the answer must not hold, or an empty string."""
        return next((step.argument for step in self.steps if step.operation == "drop"), "")


def apply_step(step: Step, words: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the list that one operation makes of `words`; a number is a list of one."""
    match step.operation:
        case "copy":
            return words
        case "reverse":
            return words[::-1]
        case "sort":
            return tuple(sorted(words))
        case "first":
            return words[: int(step.argument)]
        case "drop":
            return tuple(word for word in words if word != step.argument)
        case "count":
            return (str(words.count(step.argument)),)
        case "add":
            return (str(sum(map(int, words))),)
    raise ValueError(f"unknown operation {step.operation!r}")


def right_answer(task: Task) -> tuple[str, ...]:
    """Returns the words (or the one number) of the right answer."""
    words = task.given
    for step in task.steps:
        words = apply_step(step, words)
    return words


def write(words: tuple[str, ...], form: str) -> str:
    """Returns an answer's words as text in one of `FORMS`.

    Brackets stand apart from the words, so that a word is the same token inside and outside of them.
    """
    if form == "commas":
        return ", ".join(words)
    text = " ".join(words)
    if form == "brackets":
        return f"( {text} )"
    return f"{text}." if form == "dot" else text


def draw_task(operations: tuple[str, ...], rng: np.random.Generator) -> Task:
    """Draws a task of the family that does `operations`; answers that are lists hold two to five words."""
    if operations == ("add",):
        given = _small_numbers(rng)
    elif operations == ("count",):
        given = _repeating_words(rng)
    elif "drop" in operations:
        given = distinct_words(rng, pick(rng, (4, 5)))
        if chance(rng, 0.3):
            given[-1] = given[0]
    else:
        shortest = 4 if len(operations) == 2 else 3
        given = distinct_words(rng, pick(rng, tuple(range(shortest, 6))))
    steps = tuple(Step(operation, _argument(operation, given, rng)) for operation in operations)
    task = Task(steps, tuple(given), FORMS[0])
    return replace(task, form=pick(rng, FORMS if len(right_answer(task)) > 2 else FORMS[:3]))


def _argument(operation: str, given: list[str], rng: np.random.Generator) -> str:
    if operation == "first":
        return str(pick(rng, range(2, len(given))))
    if operation == "drop":
        repeated = given[0] == given[-1]
        return given[0] if repeated else pick(rng, given)
    return pick(rng, given) if operation == "count" else ""


def _small_numbers(rng: np.random.Generator) -> list[str]:
    numbers = [pick(rng, range(1, 10)) for _ in range(pick(rng, (2, 3, 4)))]
    while sum(numbers) > LARGEST_NUMBER:
        numbers = [pick(rng, range(1, 10)) for _ in numbers]
    return [str(number) for number in numbers]


def _repeating_words(rng: np.random.Generator) -> list[str]:
    kinds = distinct_words(rng, 3)
    return [pick(rng, kinds) for _ in range(pick(rng, (5, 6, 7)))]
