"""What supervised training learns from: critiques to write after a judge's prompt, and completions of a chat.

Each has a JSON form (one object a line) and an encoding: ids with a weight each, 1 on what is to be learnt and 0 before it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grm_jax.data import fields
from grm_jax.data.records import Turn, read_conversation, read_messages
from grm_jax.text.template import Hint, PromptTooLong, encode_prompt
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import END_OF_TURN, Tokenizer

Conversation = tuple[tuple[str, str], ...]
"""(role, content) of each turn."""

_CRITIQUE_KEYS = ("prompt", "conversation", "responses", "critique", "reference", "principles", "hint", "meta")
_INSTRUCTION_KEYS = ("prompt", "conversation", "completion", "meta")


@dataclass(frozen=True)
class CritiqueExample:
    """A conversation, n >= 1 responses in the order shown, and the critique to learn.

    `principles`, `reference` and `hint` are shown in the prompt. A hint is for teaching what hints are; critiques that were
    sampled with one are learnt without it. `meta` is the user's own and never read.
    """

    conversation: Conversation
    responses: tuple[str, ...]
    critique: str
    principles: tuple[str, ...] = ()
    reference: str | None = None
    hint: Hint | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InstructionExample:
    """A conversation and the completion to learn; no judging in it. `meta` is the user's own and never read."""

    conversation: Conversation
    completion: str
    meta: Mapping[str, Any] = field(default_factory=dict)


Example = CritiqueExample | InstructionExample


def example_from_json(obj: Any, where: str) -> Example:
    """Reads one example: `critique` makes a CritiqueExample, `completion` an InstructionExample.

    An object with `messages`, as chat data in the wild has, is an InstructionExample whose completion is the last
    message; its other fields are not read.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = fields.read_object(obj, where, "example")
    if "critique" in obj:
        fields.check_keys(obj, _CRITIQUE_KEYS, ("responses",), where, "put fields of your own under 'meta'")
        responses = fields.read_texts(obj["responses"], where, "responses")
        if not responses:
            fields.fail(where, "responses", "is empty", "give at least one response")
        return CritiqueExample(
            conversation=_pairs(read_conversation(obj, where)),
            responses=responses,
            critique=fields.read_text(obj["critique"], where, "critique"),
            principles=fields.read_optional(fields.read_texts, obj.get("principles"), where, "principles") or (),
            reference=fields.read_optional(fields.read_text, obj.get("reference"), where, "reference"),
            hint=fields.read_optional(_read_hint, obj.get("hint"), where, "hint"),
            meta=fields.read_optional(fields.read_extra, obj.get("meta"), where, "meta") or {},
        )
    if "messages" in obj:
        *conversation, last = read_messages(obj["messages"], where, "messages")
        if last.role != "assistant" or not conversation:
            fields.fail(where, "messages", "does not end with the assistant's answer", "end it with one")
        return InstructionExample(_pairs(tuple(conversation)), last.content)
    fields.check_keys(obj, _INSTRUCTION_KEYS, ("completion",), where, "put fields of your own under 'meta'")
    return InstructionExample(
        conversation=_pairs(read_conversation(obj, where)),
        completion=fields.read_text(obj["completion"], where, "completion"),
        meta=fields.read_optional(fields.read_extra, obj.get("meta"), where, "meta") or {},
    )


def example_to_json(example: Example) -> dict[str, Any]:
    """Writes an example as a JSON object; fields that hold nothing are left out."""
    obj: dict[str, Any] = {"conversation": [{"role": role, "content": text} for role, text in example.conversation]}
    if isinstance(example, CritiqueExample):
        obj |= {"responses": list(example.responses), "critique": example.critique}
        obj |= {"principles": list(example.principles)} if example.principles else {}
        obj |= {"reference": example.reference} if example.reference is not None else {}
        if example.hint is not None:
            obj["hint"] = {"label": example.hint.label, "strength": example.hint.strength}
    else:
        obj["completion"] = example.completion
    return obj | ({"meta": dict(example.meta)} if example.meta else {})


def encode_example(example: Example, template: Template, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Encodes an example for next-token training.

    The prompt of a critique is the template's; that of a completion is the chat form of `encode_chat`.

    Returns:
        ids [T + 1] int32 (prompt, what is to be learnt, end of turn) and weights [T + 1] float32: 0 on the prompt, 1 on
        the rest.
    """
    if isinstance(example, CritiqueExample):
        prompt = encode_prompt(
            template,
            tokenizer,
            example.conversation,
            example.responses,
            reference=example.reference,
            principles=example.principles,
            hint=example.hint,
        )
        assert not isinstance(prompt, PromptTooLong)  # no limit was given
        prompt_ids, learnt = prompt.ids.tolist(), example.critique
    else:
        prompt_ids, learnt = encode_chat(tokenizer, example.conversation), example.completion
    ids = [*prompt_ids, *tokenizer.encode(learnt), tokenizer.control_id(END_OF_TURN)]
    weights = np.ones(len(ids), np.float32)
    weights[: len(prompt_ids)] = 0.0
    return np.asarray(ids, np.int32), weights


def encode_chat(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Returns the ids of a chat up to where the model speaks next, in the form Gemma's tuned models know.

    Gemma has two speakers: `assistant` is "model", every other role is "user", and neighbouring turns of one speaker are
    one turn with a blank line between. Contents are encoded apart from the scaffolding, and cannot become control ids.
    """
    start, end = tokenizer.control_id("<start_of_turn>"), tokenizer.control_id(END_OF_TURN)
    ids = [tokenizer.bos_id]
    turns = itertools.groupby(conversation, lambda turn: "model" if turn[0] == "assistant" else "user")
    for speaker, contents in turns:
        text = "\n\n".join(content for _, content in contents)
        ids += [start, *tokenizer.encode(f"{speaker}\n"), *tokenizer.encode(text), end, *tokenizer.encode("\n")]
    return [*ids, start, *tokenizer.encode("model\n")]


def _read_hint(obj: Any, where: str, name: str) -> Hint:
    hint = fields.read_object(obj, where, name)
    fields.check_keys(hint, ("label", "strength"), ("label",), where, "remove it")
    label = hint["label"]
    if not isinstance(label, int | float) or isinstance(label, bool):
        fields.fail(where, name, f"{fields.show(label)} is no number", "give the place of the best response, from 0")
    strength = hint.get("strength")
    return Hint(label, None if strength is None else fields.read_integer(strength, where, f"{name}.strength", 1, 3))


def _pairs(turns: tuple[Turn, ...]) -> Conversation:
    return tuple((turn.role, turn.content) for turn in turns)
