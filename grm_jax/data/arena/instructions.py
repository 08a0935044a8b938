"""The plain English in which a task is asked."""

import numpy as np

from grm_jax.data.arena.tasks import Step, Task
from grm_jax.data.arena.words import pick

_OPENINGS = ("List: {}.", "Here is a list: {}.", "Look at this list: {}.")

_OPERATIONS = {
    "copy": ("copy the words", "repeat the words as they are", "write the same words again"),
    "reverse": ("reverse the words", "put the words in reverse order", "turn the list around"),
    "sort": ("sort the words", "put the words in alphabetical order", "order the words from a to z"),
    "first": ("keep the first {} words", "take only the first {} words", "cut the list after {} words"),
    "drop": ("drop the word {}", "leave out the word {}", "remove every {}"),
    "count": ("count the word {}", "count how many times {} occurs", "say how often {} occurs"),
    "add": ("add the numbers", "find the sum of the numbers", "sum up the numbers"),
}

_FORMS = {
    "plain": ("Use no marks.", "Write it plain."),
    "brackets": ("Put it in brackets.", "Write it in brackets."),
    "dot": ("End with a dot.", "Put a dot at the end."),
    "commas": ("Put commas between the words.", "Write it with commas."),
}


def write_instruction(task: Task, rng: np.random.Generator) -> str:
    """Returns the task as a prompt, in one of several wordings."""
    opening = pick(rng, _OPENINGS).format(" ".join(task.given))
    request = ", then ".join(_phrase(step, rng) for step in task.steps)
    return f"{opening} {request.capitalize()}. {pick(rng, _FORMS[task.form])}"


def _phrase(step: Step, rng: np.random.Generator) -> str:
    return pick(rng, _OPERATIONS[step.operation]).format(step.argument)
