"""Prompts: a template filled with a conversation and its responses, as ids.

Scaffolding and every untrusted field (role, content, principle, reference, response) are encoded apart and joined as
ids, so nothing a field says can become a control token, or merge with the words around it. A field's ids are therefore
the same wherever it stands, and the ids before the first response are the same for every order of the responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grm_jax.errors import UserError
from grm_jax.text.template_file import Block, Literal, Template, load_template
from grm_jax.text.tokenizer import Tokenizer

__all__ = ["Hint", "Prompt", "PromptTooLong", "Template", "encode_prompt", "load_template"]

_STRENGTHS = {1: "slightly", 2: "clearly", 3: "much"}


@dataclass(frozen=True)
class Prompt:
    """A prompt of P tokens.

    Attributes:
        ids: int32 [P]; the next token is the model's first.
        fields: (start, stop, kind) of each untrusted field, in order and possibly empty; kind is "role", "content",
            "principle", "reference" or "response". No id in ids[start:stop] is a control id.
        shared_prefix: how many leading ids are the instruction block, which every prompt of a template opens with.
            (A template with its own instruction for single responses has two such blocks.)
        before_responses: how many leading ids come before the first response: they are the same for all orders of the responses.
    """

    ids: np.ndarray
    fields: tuple[tuple[int, int, str], ...]
    shared_prefix: int
    before_responses: int


@dataclass(frozen=True)
class Hint:
    """What a judge is told of the truth, to get a critique that ends well (hinted sampling of arXiv 2504.02495).

    Attributes:
        label: as an item's, in the order shown: the place of the best response, counted from 0; for n = 1 the right score.
        strength: 1 to 3, how much the best is preferred, where that is known.
    """

    label: int | float
    strength: int | None = None


@dataclass(frozen=True)
class PromptTooLong:
    """What comes instead of a prompt that would not fit: its length and the limit, in tokens."""

    tokens: int
    limit: int


def encode_prompt(
    template: Template,
    tokenizer: Tokenizer,
    conversation: Sequence[tuple[str, str]],
    responses: Sequence[str],
    *,
    reference: str | None = None,
    principles: Sequence[str] = (),
    hint: Hint | None = None,
    max_tokens: int | None = None,
) -> Prompt | PromptTooLong:
    """Writes the prompt for responses in the order given, numbered from 1.

    Args:
        template: the wording.
        tokenizer: its control pieces must include those the template names.
        conversation: (role, content) of each turn.
        responses: n >= 1 candidates, in the order to be shown.
        reference: an answer known to be right.
        principles: criteria the judge is given.
        hint: the truth, told after the responses; all ids before and after it are those of the prompt without it.
        max_tokens: the longest prompt allowed, in tokens; a longer one is never cut.

    Returns:
        The prompt, or its length if that is over `max_tokens`.

    Raises:
        UserError: there are no responses, a field is not a string, or the template cannot show what was given.
    """
    _refuse_string(responses, "responses")
    _refuse_string(principles, "principles")
    n = len(responses)
    if n == 0:
        raise UserError("prompt: there are no responses to judge; give at least one")
    writer = _Writer(template, tokenizer, n)
    writer.write("instruction")
    shared_prefix = len(writer.ids)
    if principles:
        writer.write("principles_open")
        for number, principle in enumerate(principles, 1):
            writer.write("principle", principle=("principle", principle), number=number)
        writer.write("principles_close")
    writer.write("conversation_open")
    for role, content in conversation:
        writer.write("turn", role=("role", role), content=("content", content))
    writer.write("conversation_close")
    if reference is not None:
        writer.write("reference", reference=("reference", reference))
    writer.write("responses_open", count=n)
    before_responses = len(writer.ids)
    for number, response in enumerate(responses, 1):
        writer.write("response", content=("response", response), number=number)
    writer.write("responses_close", count=n)
    if hint is not None:
        _write_hint(writer, hint, n)
    writer.write("closing", count=n, slots=", ".join("x" * n))
    if max_tokens is not None and len(writer.ids) > max_tokens:
        return PromptTooLong(tokens=len(writer.ids), limit=max_tokens)
    return Prompt(np.asarray(writer.ids, np.int32), tuple(writer.fields), shared_prefix, before_responses)


@dataclass
class _Writer:
    template: Template
    tokenizer: Tokenizer
    responses: int
    ids: list[int] = field(default_factory=list)
    fields: list[tuple[int, int, str]] = field(default_factory=list)

    def write(self, name: str, **values: int | str | tuple[str, str]) -> None:
        """Appends a block: a value that is a (kind, text) pair is an untrusted field, any other is scaffolding."""
        block = self.template.block(name, self.responses)
        for kind, text in (value for value in values.values() if isinstance(value, tuple)):
            if not isinstance(text, str):
                raise UserError(f"prompt: a {kind} is of type {type(text).__name__}; give a string")
        self._write(block, values)

    def _write(self, block: Block, values: Mapping[str, int | str | tuple[str, str]]) -> None:
        # Scaffolding is encoded in whole runs: "Response " + "1" + ":" in pieces would cost tokens.
        run = ""
        for part in block:
            if isinstance(part, Literal):
                run += part.text
                continue
            value = values.get(part.name)
            if isinstance(value, tuple) and value[0] == "role" and value[1] in self.template.roles:
                value = self.template.roles[value[1]]
            if isinstance(value, (int, str)):
                run += str(value)
                continue
            self.ids += self.tokenizer.encode(run)
            run = ""
            if isinstance(value, tuple):
                kind, text = value
                start = len(self.ids)
                self.ids += self.tokenizer.encode(text)
                self.fields.append((start, len(self.ids), kind))
            else:
                self.ids.append(self._control(part.name))
        self.ids += self.tokenizer.encode(run)

    def _control(self, name: str) -> int:
        return self.tokenizer.bos_id if name == "bos" else self.tokenizer.control_id(f"<{name}>")


def _write_hint(writer: _Writer, hint: Hint, n: int) -> None:
    if n == 1:
        writer.write("hint_score", score=f"{hint.label:g}")
        return
    if not (isinstance(hint.label, int) and 0 <= hint.label < n):
        raise UserError(f"prompt: the hint names place {hint.label} of {n} responses; give one from 0 to {n - 1}")
    writer.write("hint", number=hint.label + 1)
    if hint.strength is not None:
        writer.write("hint_strength", strength=_STRENGTHS[hint.strength])


def _refuse_string(values: Sequence[str], name: str) -> None:
    if isinstance(values, str):
        raise UserError(f"prompt: {name} is one string; give a list of strings")
