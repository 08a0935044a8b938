"""Tasks: a few requirements on a short list of words, drawn so that all of them can be met, or any of them broken."""

from dataclasses import dataclass

import numpy as np

from grm_jax.data.arena.requirements import FORMS, KINDS, Requirement
from grm_jax.data.arena.words import distinct_words, pick

HELD_OUT_PAIRS: tuple[tuple[str, str], ...] = (("start", "double"), ("avoid", "end"))
"""Kinds that no task of the training split asks for together. A held-out task asks for just one of these pairs."""

SIZES: tuple[int, ...] = (4, 5)
"""How many requirements a task may have."""

_OPENINGS = ("Write words: {}.", "List words: {}.", "Give a list: {}.")
_WORDS_TAKEN = {"use": 1, "start": 1, "end": 1, "after": 2, "double": 2}


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: requirements of different kinds, in the order of `KINDS`, about words that all differ."""

    requirements: tuple[Requirement, ...]

    @property
    def family(self) -> str:
        """The held-out pair that it asks for, such as "start+double", or "seen"."""
        kinds = {requirement.kind for requirement in self.requirements}
        return next(("+".join(pair) for pair in HELD_OUT_PAIRS if kinds.issuperset(pair)), "seen")

    @property
    def mentioned(self) -> set[str]:
        """All arguments."""
        return {argument for requirement in self.requirements for argument in requirement.arguments}

    @property
    def facts(self) -> str:
        """The requirements as one string, the same in every wording and order."""
        return "; ".join(sorted(requirement.text for requirement in self.requirements))


def draw_task(held_out: bool, rng: np.random.Generator) -> Task:
    """Draws a task that asks for one held-out pair of kinds, or for none."""
    pair = pick(rng, HELD_OUT_PAIRS) if held_out else None
    while True:
        kinds = set(rng.permutation(len(KINDS))[: pick(rng, SIZES)].tolist())
        chosen = [kind for place, kind in enumerate(KINDS) if place in kinds]
        if [both for both in HELD_OUT_PAIRS if set(both) <= set(chosen)] == ([pair] if pair else []):
            break
    words = iter(distinct_words(rng, 8))
    # A response that breaks `length` may be a word shorter, and then has room for all others.
    room = sum(_WORDS_TAKEN.get(kind, 0) for kind in chosen)
    length = max(4, room + pick(rng, (1, 2)))

    def arguments(kind: str) -> tuple[str, ...]:
        if kind == "length":
            return (str(length),)
        if kind == "form":
            return (pick(rng, FORMS),)
        return (next(words), next(words)) if kind == "after" else (next(words),)

    return Task(tuple(Requirement(kind, arguments(kind)) for kind in chosen))


def write_instruction(task: Task, rng: np.random.Generator) -> str:
    """Returns the task as a prompt: its requirements in random order, in one of three openings."""
    order = rng.permutation(len(task.requirements)).tolist()
    return pick(rng, _OPENINGS).format("; ".join(task.requirements[place].text for place in order))
