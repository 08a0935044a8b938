"""The records everything exchanges: `Item` (a task), `Sample` (one critique), `Judgement` (a verdict with its samples).

Each has a JSON form, written by `*_to_json` and read by `*_from_json`; reading back what was written gives an equal
record. Field names and meanings: docs/design.md, Contracts.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grm_jax.data import fields
from grm_jax.data.fields import fail
from grm_jax.text.parser import Outcome
from grm_jax.text.principles import Principle

ROLES = ("user", "assistant", "system", "tool")
OUTCOMES = tuple(outcome.value for outcome in Outcome)
"""What a sampled critique can be; only `ok` carries scores."""
PROMPT_TOO_LONG = "prompt_too_long"
"""The outcome of an item that was never sampled."""

_BIG = 2**64 - 1
_ITEM_KEYS = (
    "id", "prompt", "conversation", "responses", "label", "strength", "reference", "principles", "domain", "meta",
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """A conversation and the n >= 1 responses to judge.

    `label` is the index of the best response; for n = 1 a score in 0..10. `strength` says how much the best is
    preferred: 1 slightly, 2 clearly, 3 much better. `principles` are given ones. `meta` is the user's own and never read.
    """

    id: str
    conversation: tuple[Turn, ...]
    responses: tuple[str, ...]
    label: int | float | None = None
    strength: int | None = None
    reference: str | None = None
    principles: tuple[str, ...] = ()
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One critique of one item.

    `order[j]` is the index of the response shown at place j. `scores` has one score a response in the item's own order;
    it is None exactly when `outcome` is not "ok". `tokens` counts the generated tokens, `logprob` sums their natural
    log-probabilities under the model itself (temperature 1, no filter). `meta_score` is the meta reward model's logit.
    `verdict_logprob` is the part of `logprob` that the tokens of the verdict have, where a judge names the best response (its
    `scores` are then the highest for that one and the lowest for all others); None where it gives scores.
    """

    index: int
    order: tuple[int, ...]
    text: str
    principles: tuple[Principle, ...] = ()
    scores: tuple[int, ...] | None
    outcome: str
    tokens: int
    logprob: float | None
    meta_score: float | None = None
    verdict_logprob: float | None = None
    seed: int


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict over the first k samples of an item, with every sample it has.

    `scores` has one score a response on the scale of the vote, None when no sample could vote; then `best` is None and
    `ranking` (indices, best first) empty. `outcomes` counts the outcomes of the k samples. `seconds` is wall time, None
    when rebuilt from a store. `stop` is the rule by which k is less than all that were asked, or might have been
    (`grm_jax.judge.anytime.stop_record`); None where no rule was.
    """

    id: str
    scores: tuple[int | float, ...] | None
    best: int | None
    ranking: tuple[int, ...]
    k: int
    vote: str
    samples: tuple[Sample, ...]
    outcomes: Mapping[str, int]
    model: str
    template: str
    seed: int
    seconds: float | None = None
    stop: Mapping[str, Any] | None = None


def item_from_json(obj: Any, where: str) -> Item:
    """Reads one item; `prompt` becomes a conversation of one user turn.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = fields.read_object(obj, where, "item")
    fields.check_keys(obj, _ITEM_KEYS, ("id", "responses"), where, "put fields of your own under 'meta'")
    responses = fields.read_texts(obj["responses"], where, "responses")
    if not responses:
        fail(where, "responses", "is empty", "give at least one response")
    label = read_label(obj.get("label"), len(responses), where)
    strength = None if obj.get("strength") is None else fields.read_integer(obj["strength"], where, "strength", 1, 3)
    if strength is not None and (label is None or len(responses) == 1):
        fail(where, "strength", "belongs to a label that names the best response", "add the label or remove it")
    return Item(
        id=fields.read_name(obj["id"], where, "id"),
        conversation=read_conversation(obj, where),
        responses=responses,
        label=label,
        strength=strength,
        reference=fields.read_optional(fields.read_text, obj.get("reference"), where, "reference"),
        principles=fields.read_optional(fields.read_texts, obj.get("principles"), where, "principles") or (),
        domain=fields.read_optional(fields.read_text, obj.get("domain"), where, "domain"),
        meta=fields.read_optional(fields.read_extra, obj.get("meta"), where, "meta") or {},
    )


def item_to_json(item: Item) -> dict[str, Any]:
    """Writes an item as a JSON object; fields that hold nothing are left out."""
    optional = {
        "label": item.label,
        "strength": item.strength,
        "reference": item.reference,
        "principles": list(item.principles) or None,
        "domain": item.domain,
        "meta": dict(item.meta) or None,
    }
    return {
        "id": item.id,
        "conversation": [{"role": turn.role, "content": turn.content} for turn in item.conversation],
        "responses": list(item.responses),
        **{key: value for key, value in optional.items() if value is not None},
    }


def read_label(value: Any, n: int, where: str) -> int | float | None:
    """Returns the label of an item with n responses: an index, for n = 1 a score in 0..10, or None; refuses others."""
    if value is None:
        return None
    if n == 1:
        return fields.read_number(value, where, "label", 0, 10)
    return fields.read_integer(value, where, "label", 0, n - 1)


def read_conversation(obj: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    """Returns the turns of an object that has either `conversation` or `prompt`, which is one user turn.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    if ("prompt" in obj) == ("conversation" in obj):
        problem = "both are given" if "prompt" in obj else "missing"
        fail(where, "prompt or conversation", problem, "give exactly one of the two")
    if "prompt" in obj:
        return (Turn("user", fields.read_text(obj["prompt"], where, "prompt")),)
    turns = []
    for i, turn in enumerate(fields.read_array(obj["conversation"], where, "conversation")):
        name = f"conversation[{i}]"
        turn = fields.read_object(turn, where, name)
        _check_every_field(turn, Turn, f"{where}: {name}")
        role = fields.read_choice(turn["role"], ROLES, where, f"{name}.role")
        turns.append(Turn(role, fields.read_text(turn["content"], where, f"{name}.content")))
    if not turns:
        fail(where, "conversation", "is empty", "give at least one turn")
    return tuple(turns)


def read_messages(value: Any, where: str, name: str) -> tuple[Turn, ...]:
    """Returns chat messages, [{role, content, ...}], as turns; what else a message holds is not read.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    turns = []
    for i, message in enumerate(fields.read_array(value, where, name)):
        message = fields.read_object(message, where, f"{name}[{i}]")
        fields.check_keys(message, message, ("role", "content"), f"{where}: {name}[{i}]", "")
        role = fields.read_choice(message["role"], ROLES, where, f"{name}[{i}].role")
        turns.append(Turn(role, fields.read_text(message["content"], where, f"{name}[{i}].content")))
    if not turns:
        fail(where, name, "is empty", "give at least one message")
    return tuple(turns)


def sample_from_json(obj: Any, where: str) -> Sample:
    """Reads one sample, and checks that order, scores and outcome agree.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = {"verdict_logprob": None, **fields.read_object(obj, where, "sample")}
    _check_every_field(obj, Sample, where)
    order = fields.read_integers(obj["order"], where, "order", 0, _BIG)
    if sorted(order) != list(range(len(order))) or not order:
        fail(where, "order", f"{fields.show(order)} is no permutation of 0..n-1", "restore the line or remove it")
    outcome = fields.read_choice(obj["outcome"], OUTCOMES, where, "outcome")
    scores = None if obj["scores"] is None else fields.read_integers(obj["scores"], where, "scores", 1, 10)
    if (scores is not None) != (outcome == "ok") or (scores is not None and len(scores) != len(order)):
        problem = f"{fields.show(scores)} does not fit outcome '{outcome}' with {len(order)} responses"
        fail(where, "scores", problem, "restore the line or remove it")
    return Sample(
        index=fields.read_integer(obj["index"], where, "index", 0, _BIG),
        order=order,
        text=fields.read_text(obj["text"], where, "text"),
        principles=_principles(obj["principles"], where),
        scores=scores,
        outcome=outcome,
        tokens=fields.read_integer(obj["tokens"], where, "tokens", 0, _BIG),
        logprob=fields.read_optional(fields.read_number, obj["logprob"], where, "logprob"),
        meta_score=fields.read_optional(fields.read_number, obj["meta_score"], where, "meta_score"),
        verdict_logprob=fields.read_optional(fields.read_number, obj["verdict_logprob"], where, "verdict_logprob"),
        seed=fields.read_integer(obj["seed"], where, "seed", -_BIG, _BIG),
    )


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """Writes a sample as a JSON object with every field; `verdict_logprob` where there is one."""
    obj = dataclasses.asdict(sample)
    return obj if sample.verdict_logprob is not None else {k: v for k, v in obj.items() if k != "verdict_logprob"}


def judgement_from_json(obj: Any, where: str) -> Judgement:
    """Reads one judgement.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = fields.read_object(obj, where, "judgement")
    _check_every_field({"stop": None, **obj}, Judgement, where)  # written before there were rules, it has none
    samples = fields.read_array(obj["samples"], where, "samples")
    outcomes = fields.read_object(obj["outcomes"], where, "outcomes")
    scores, best = obj["scores"], obj["best"]
    numbers = None if scores is None else fields.read_array(scores, where, "scores")
    return Judgement(
        id=fields.read_name(obj["id"], where, "id"),
        scores=None if numbers is None else tuple(fields.read_number(s, where, "scores") for s in numbers),
        best=None if best is None else fields.read_integer(best, where, "best", 0, len(numbers or ()) - 1),
        ranking=fields.read_integers(obj["ranking"], where, "ranking", 0, _BIG),
        k=fields.read_integer(obj["k"], where, "k", 0, _BIG),
        vote=fields.read_name(obj["vote"], where, "vote"),
        samples=tuple(sample_from_json(sample, f"{where}: samples[{i}]") for i, sample in enumerate(samples)),
        outcomes={name: fields.read_integer(n, where, f"outcomes.{name}", 0, _BIG) for name, n in outcomes.items()},
        model=fields.read_text(obj["model"], where, "model"),
        template=fields.read_text(obj["template"], where, "template"),
        seed=fields.read_integer(obj["seed"], where, "seed", -_BIG, _BIG),
        seconds=fields.read_optional(fields.read_number, obj["seconds"], where, "seconds"),
        stop=fields.read_optional(fields.read_object, obj.get("stop"), where, "stop"),
    )


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    """Writes a judgement as a JSON object with every field."""
    return {**dataclasses.asdict(judgement), "samples": [sample_to_json(sample) for sample in judgement.samples]}


def _check_every_field(obj: Mapping[str, Any], record: type, where: str) -> None:
    names = _field_names(record)
    fields.check_keys(obj, names, names, where, "remove it")


@functools.cache
def _field_names(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(record))


def _principles(value: Any, where: str) -> tuple[Principle, ...]:
    principles = []
    for i, principle in enumerate(fields.read_array(value, where, "principles")):
        name = f"principles[{i}]"
        principle = fields.read_object(principle, where, name)
        _check_every_field(principle, Principle, f"{where}: {name}")
        text = fields.read_text(principle["text"], where, f"{name}.text")
        principles.append(
            Principle(text, fields.read_optional(fields.read_number, principle["weight"], where, f"{name}.weight"))
        )
    return tuple(principles)
