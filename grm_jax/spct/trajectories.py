"""Trajectories: sampled critiques with the truth about them, which the meta reward model learns from.

A trajectory was drawn without a hint, is kept whether right or wrong, and has the responses in the order the judge saw.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grm_jax.data import fields
from grm_jax.data.examples import CritiqueExample
from grm_jax.data.jsonl import parse_line, read_lines
from grm_jax.data.records import OUTCOMES, Item, Sample
from grm_jax.spct.rejection import is_right


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One critique of an item.

    Attributes:
        id: of the item.
        index: of the sample.
        order: order[j] is the index of the response shown at place j.
        text: what the judge wrote.
        scores: one a response, in the item's own order; None when `outcome` is not "ok".
        outcome: of reading the scores.
        accepted: whether the scores agree with the item's label (Eq 10 of arXiv 2504.02495).
    """

    id: str
    index: int
    order: tuple[int, ...]
    text: str
    scores: tuple[int, ...] | None
    outcome: str
    accepted: bool


def trajectory(item: Item, sample: Sample) -> Trajectory:
    """Returns a sample as a trajectory. What depends on the batch it was computed in, its log-probability, is left out."""
    right = is_right(item, sample)
    return Trajectory(item.id, sample.index, sample.order, sample.text, sample.scores, sample.outcome, right)


def trajectory_to_json(trajectory: Trajectory) -> dict[str, Any]:
    """Writes a trajectory as a JSON object with every field."""
    return dataclasses.asdict(trajectory)


def trajectory_from_json(obj: Any, where: str) -> Trajectory:
    """Reads one trajectory.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = fields.read_object(obj, where, "trajectory")
    names = [field.name for field in dataclasses.fields(Trajectory)]
    fields.check_keys(obj, names, names, where, "remove it")
    order = fields.read_integers(obj["order"], where, "order", 0, 2**32)
    if not order or sorted(order) != list(range(len(order))):
        fields.fail(where, "order", f"{fields.show(order)} is no permutation of 0..n-1", "have the line made again")
    outcome = fields.read_choice(obj["outcome"], OUTCOMES, where, "outcome")
    scores = None if obj["scores"] is None else fields.read_integers(obj["scores"], where, "scores", 1, 10)
    if (scores is not None) != (outcome == "ok") or (scores is not None and len(scores) != len(order)):
        problem = f"{fields.show(scores)} does not fit outcome '{outcome}' with {len(order)} responses"
        fields.fail(where, "scores", problem, "have the line made again")
    if not isinstance(obj["accepted"], bool) or (obj["accepted"] and scores is None):
        fields.fail(where, "accepted", f"{fields.show(obj['accepted'])} does not fit", "give true or false")
    return Trajectory(
        id=fields.read_name(obj["id"], where, "id"),
        index=fields.read_integer(obj["index"], where, "index", 0, 2**64),
        order=order,
        text=fields.read_text(obj["text"], where, "text"),
        scores=scores,
        outcome=outcome,
        accepted=obj["accepted"],
    )


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Reads a file of trajectories, such as the `trajectories.jsonl` of a run of `grm rft`.

    Raises:
        UserError: the file cannot be read, or a line is no trajectory.
    """
    places = ((f"{path}:{number}", line) for number, line in read_lines(path))
    return [trajectory_from_json(parse_line(line, where), where) for where, line in places]


def critique_example(item: Item, sample: Sample, *, hinted: bool) -> CritiqueExample:
    """Returns a sample as a training example: the prompt is the one without a hint, whether or not there was one."""
    meta: Mapping[str, Any] = {"id": item.id, "index": sample.index, "hinted": hinted}
    return CritiqueExample(
        conversation=tuple((turn.role, turn.content) for turn in item.conversation),
        responses=tuple(item.responses[i] for i in sample.order),
        critique=sample.text,
        principles=item.principles,
        reference=item.reference,
        meta=meta,
    )
