"""The arena's splits: example i of a split is a pure function of (split, families, i, seed)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from grm_jax.data.arena.faults import FaultRates, Response, diagnose, draw_response, quality
from grm_jax.data.arena.instructions import write_instruction
from grm_jax.data.arena.tasks import HELD_OUT_FAMILIES, SEEN_FAMILIES, Task, draw_task, right_answer, write
from grm_jax.data.arena.words import chance, pick, weighted
from grm_jax.errors import UserError
from grm_jax.keys import digest, generator

SPLITS: tuple[str, ...] = ("train", "valid", "test")

SMALLEST_GAP = 2
"""The best response of n >= 2 is at least this much better than every other."""

_RESPONSE_COUNTS = {1: 0.15, 2: 0.6, 3: 0.15, 4: 0.1}
_BEST = FaultRates(content=0.15, form=0.2, chatter=0.2)
_OTHER = FaultRates(content=0.85, form=0.2, chatter=0.1)
_KEPT_NARROW_GAPS = 0.4


@dataclass(frozen=True, slots=True)
class Example:
    """An item and what an oracle knows about it.

    `item` follows the Item contract; `answer` holds the right answer's words; `faults[i]` belongs to `responses[i]`.
    """

    item: dict[str, Any]
    task: Task
    answer: tuple[str, ...]
    responses: tuple[Response, ...]
    faults: tuple[tuple[str, ...], ...]


def generate(split: str, index: int, seed: int, families: str | None = None) -> Example:
    """Returns example `index` of a split.

    `families` is "seen", "held_out" or "all" (even indices seen, odd ones held out). None stands for what the split is
    for: "seen" in train, "all" in valid and test. Train has seen families only. An example that "all" shares with
    "seen" or "held_out" is the same example with the same id.

    Raises `UserError` for an unknown split or choice of families, a negative index, and held-out families in train.
    """
    group = _group(split, index, families)
    rng = generator("arena", seed, split, group, index)
    operations = pick(rng, HELD_OUT_FAMILIES if group == "held_out" else SEEN_FAMILIES)
    task = draw_task(operations, rng)
    while split_of(task.given) != split:
        task = draw_task(operations, rng)
    prompt = write_instruction(task, rng)
    answer = right_answer(task)
    responses, label = _draw_responses(task, answer, weighted(rng, _RESPONSE_COUNTS), rng)
    faults = tuple(diagnose(task, answer, response) for response in responses)
    qualities = [quality(found) for found in faults]
    item = {
        "id": f"arena-{split}-{group}-{seed}-{index}",
        "prompt": prompt,
        "responses": [response.text for response in responses],
        "label": qualities[0] if len(responses) == 1 else label,
        "domain": task.family,
        "meta": {
            "answer": write(answer, task.form),
            "quality": qualities,
            "faults": [list(found) for found in faults],
            "family": task.family,
            "held_out": group == "held_out",
        },
    }
    return Example(item, task, answer, responses, faults)


def items(split: str, count: int, seed: int, families: str | None = None) -> Iterator[dict[str, Any]]:
    """Yields the first `count` items of a split; see `generate`."""
    for index in range(count):
        yield generate(split, index, seed, families).item


def split_of(given: tuple[str, ...]) -> str:
    """Returns the one split in which a given list may occur: 80% of all lists are train's, 10% each valid's and test's.

    No list is shared between splits, under any operation, wording, form or seed, so no prompt is either.
    """
    bucket = digest("arena split", " ".join(given))[0]
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
    task: Task, answer: tuple[str, ...], count: int, rng: np.random.Generator
) -> tuple[tuple[Response, ...], int]:
    """Draws `count` responses and the place of the best, each place as likely as any other."""
    if count == 1:
        return (draw_response(task, _BEST if chance(rng, 0.5) else _OTHER, rng),), 0
    best, top = _draw_best(task, answer, rng)
    others: list[Response] = []
    texts = {best.text}
    while len(others) < count - 1:
        response = draw_response(task, _OTHER, rng)
        gap = top - quality(diagnose(task, answer, response))
        if gap < SMALLEST_GAP or response.text in texts:
            continue
        # Narrow gaps are where even a patient judge fails, so most of them are left out.
        if gap == SMALLEST_GAP and not chance(rng, _KEPT_NARROW_GAPS):
            continue
        texts.add(response.text)
        others.append(response)
    label = int(rng.random() * count)
    others.insert(label, best)
    return tuple(others), label


def _draw_best(task: Task, answer: tuple[str, ...], rng: np.random.Generator) -> tuple[Response, int]:
    lowest = 4
    while True:
        response = draw_response(task, _BEST, rng)
        top = quality(diagnose(task, answer, response))
        if top >= lowest:
            return response, top
