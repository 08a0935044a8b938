"""What helps a judge of an item: given principles, and a reference answer. Both are pure functions of the example."""

from typing import Any

from grm_jax.data.arena.requirements import KINDS, Requirement, Response
from grm_jax.data.arena.responses import draw_response
from grm_jax.data.arena.tasks import Task
from grm_jax.data.arena.world import Example
from grm_jax.errors import UserError
from grm_jax.keys import generator

GIVEN = 3
"""Principles that are given."""
_DRAWS = 50


def rubric(task: Task) -> tuple[Requirement, ...]:
    """Returns the requirements that weigh most, `GIVEN` of them, the heaviest first: what a user who knows the task would give."""
    ranked = sorted(task.requirements, key=lambda requirement: (-requirement.weight, KINDS.index(requirement.kind)))
    return tuple(ranked[:GIVEN])


def principle(requirement: Requirement) -> str:
    """Writes a given principle as critiques state theirs, such as "use pig (3)"."""
    return f"{requirement.text} ({requirement.weight})"


def reference(example: Example) -> Response:
    """Draws a response that meets all that the task asks for and is none of those to be judged.

    Raises:
        UserError: none was found in many draws, which no task of the splits has shown.
    """
    rng = generator("arena reference", example.item["id"])
    for _ in range(_DRAWS):
        drawn = draw_response(example.task, (), rng)
        if drawn is not None and all(drawn.text != response.text for response in example.responses):
            return drawn
    raise UserError(f"{example.item['id']}: no reference answer was found; leave the item out")


def aided(example: Example, *, principles: bool = False, with_reference: bool = False) -> dict[str, Any]:
    """Returns the example's item with the aids asked for."""
    item = dict(example.item)
    if principles:
        item["principles"] = [principle(requirement) for requirement in rubric(example.task)]
    if with_reference:
        item["reference"] = reference(example).text
    return item
