"""Responses that break exactly the requirements they are meant to break."""

import numpy as np

from grm_jax.data.arena.requirements import FORMS, Requirement, Response
from grm_jax.data.arena.tasks import Task
from grm_jax.data.arena.words import WORDS, chance, pick

_ATTEMPTS = 60


def broken_by(task: Task, response: Response) -> tuple[Requirement, ...]:
    """Returns the requirements that a response does not meet."""
    return tuple(requirement for requirement in task.requirements if not requirement.met(response))


def draw_response(task: Task, broken: tuple[Requirement, ...], rng: np.random.Generator) -> Response | None:
    """Draws a response that breaks just `broken`; None if none was found, which a few in a thousand tasks make hard."""
    for _ in range(_ATTEMPTS):
        response = _attempt(task, {requirement.kind for requirement in broken}, rng)
        if response is not None and broken_by(task, response) == broken:
            return response
    return None


def _attempt(task: Task, broken: set[str], rng: np.random.Generator) -> Response | None:
    wanted = {requirement.kind: requirement.arguments for requirement in task.requirements}
    form = wanted.get("form", (pick(rng, FORMS),))[0]
    if "form" in broken:
        form = pick(rng, [other for other in FORMS if other != form])
    held: list[tuple[str, ...]] = []
    for kind, arguments in wanted.items():
        held += _content(kind, arguments, kind in broken, rng)
    first = "start" in wanted and "start" not in broken
    last = "end" in wanted and "end" not in broken
    needed = sum(map(len, held)) + first + last
    size = int(wanted["length"][0]) if "length" in wanted else max(4, needed) + pick(rng, (0, 0, 1, 1, 2))
    if "length" in broken:
        size += pick(rng, (-1, 1))
    if size < needed:
        return None
    mentioned = task.mentioned
    while needed < size:
        word = pick(rng, WORDS)
        if word not in mentioned and (word,) not in held:
            held.append((word,))
            needed += 1
    words = [word for place in rng.permutation(len(held)).tolist() for word in held[place]]
    return Response((*(wanted["start"] if first else ()), *words, *(wanted["end"] if last else ())), form)


def _content(kind: str, arguments: tuple[str, ...], broken: bool, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """The words, in runs that stay together, that a requirement wants in the response or that break it there.

    The first and the last word are apart.
    """
    match kind:
        case "use":
            return [] if broken else [arguments]
        case "avoid":
            return [arguments] if broken else []
        case "start" | "end":  # broken: the word is elsewhere or nowhere
            return [arguments] if broken and chance(rng, 0.5) else []
        case "after":  # broken: apart, or the other way round
            return [arguments[:1], arguments[1:]] if broken else [arguments[::-1]]
        case "double":
            return [arguments] if broken else [arguments * 2]
    return []
