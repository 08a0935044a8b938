"""The arena's splits: example i of a split is a pure function of (split, families, i, seed)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from grm_jax.data.arena.requirements import Requirement, Response, quality
from grm_jax.data.arena.responses import draw_response
from grm_jax.data.arena.tasks import Task, draw_task, write_instruction
from grm_jax.data.arena.words import weighted
from grm_jax.errors import UserError
from grm_jax.keys import digest, generator

SPLITS: tuple[str, ...] = ("train", "valid", "test")

SMALLEST_GAP = 2
"""The best response of n >= 2 is at least this much better than every other."""

_RESPONSE_COUNTS = {1: 0.08, 2: 0.67, 3: 0.15, 4: 0.10}
_BROKEN_BY_BEST = {0: 0.5, 1: 0.4, 2: 0.1}
_BROKEN_BY_OTHERS = {1: 0.45, 2: 0.4, 3: 0.15}


@dataclass(frozen=True, slots=True)
class Example:
    """An item and what an oracle knows about it.

    `item` follows the Item contract; `broken[i]` belongs to `responses[i]`.
    """

    item: dict[str, Any]
    task: Task
    responses: tuple[Response, ...]
    broken: tuple[tuple[Requirement, ...], ...]


def generate(split: str, index: int, seed: int, families: str | None = None) -> Example:
    """Returns example `index` of a split.

    `families` is "seen", "held_out" or "all" (even indices seen, odd ones held out). None stands for what the split is
    for: "seen" in train, "all" in valid and test. Train has seen families only. An example that "all" shares with
    "seen" or "held_out" is the same example with the same id.

    Raises `UserError` for an unknown split or choice of families, a negative index, and held-out families in train.
    """
    group = _group(split, index, families)
    rng = generator("arena", seed, split, group, index)
    drawn = None
    while drawn is None:
        task = draw_task(group == "held_out", rng)
        if split_of(task) == split:
            drawn = _draw_responses(task, weighted(rng, _RESPONSE_COUNTS), rng)
    responses, broken, label = drawn
    qualities = [quality(found) for found in broken]
    item = {
        "id": f"arena-{split}-{group}-{seed}-{index}",
        "prompt": write_instruction(task, rng),
        "responses": [response.text for response in responses],
        "label": qualities[0] if len(responses) == 1 else label,
        "domain": task.family,
        "meta": {
            "quality": qualities,
            "broken": [[requirement.text for requirement in found] for found in broken],
            "held_out": group == "held_out",
        },
    }
    return Example(item, task, responses, broken)


def items(split: str, count: int, seed: int, families: str | None = None) -> Iterator[dict[str, Any]]:
    """Yields the first `count` items of a split; see `generate`."""
    for index in range(count):
        yield generate(split, index, seed, families).item


def split_of(task: Task) -> str:
    """Returns the one split in which a task may occur: 80% of all tasks are train's, 10% each valid's and test's.

    It depends on the set of requirements alone, so no two splits share one, under any wording, order or seed.
    """
    bucket = digest("arena split", task.facts)[0]
    return "test" if bucket < 26 else "valid" if bucket < 52 else "train"


def _group(split: str, index: int, families: str | None) -> str:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r} of the arena: choose one of {', '.join(SPLITS)}")
    if families not in (None, "seen", "held_out", "all"):
        raise UserError(f"unknown families {families!r} of the arena: choose one of seen, held_out, all")
    if split == "train" and families in ("held_out", "all"):
        raise UserError(
            f"families {families!r} of the arena's train split: train holds seen families only, use valid or test"
        )
    if index < 0:
        raise UserError(f"index {index} of the arena's {split} split: indices start at 0")
    if families in ("seen", "held_out"):
        return str(families)
    return "held_out" if split != "train" and index % 2 else "seen"


def _draw_responses(
    task: Task, count: int, rng: np.random.Generator
) -> tuple[tuple[Response, ...], tuple[tuple[Requirement, ...], ...], int] | None:
    """Draws `count` responses, what each breaks, and the place of the best, each place as likely as any other.

    None when some response cannot be made; the task is then drawn anew.
    """
    best = _subset(task, weighted(rng, _BROKEN_BY_BEST if count > 1 else {**_BROKEN_BY_OTHERS, 0: 0.5}), rng)
    others: list[tuple[Requirement, ...]] = []
    attempts = 0
    while len(others) < count - 1:
        broken = _subset(task, weighted(rng, _BROKEN_BY_OTHERS), rng)
        if quality(best) - quality(broken) >= SMALLEST_GAP:
            others.append(broken)
        attempts += 1
        if attempts > 50:
            return None
    label = int(rng.random() * count)
    chosen = (*others[:label], best, *others[label:])
    responses: list[Response] = []
    for broken in chosen:
        response = draw_response(task, broken, rng)
        if response is None or any(response.text == other.text for other in responses):
            return None
        responses.append(response)
    return tuple(responses), chosen, label


def _subset(task: Task, count: int, rng: np.random.Generator) -> tuple[Requirement, ...]:
    places = sorted(rng.permutation(len(task.requirements))[:count].tolist())
    return tuple(task.requirements[place] for place in places)
