"""Field layouts of preference data in the wild, as a table; a new layout is one more entry.

A path names values inside a record: "source", "completions[*].response" (one value an element) or, where several rows make
one item, "rows[*].helpfulness".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grm_jax.data import fields
from grm_jax.data.records import Item, item_from_json, read_messages
from grm_jax.errors import UserError


class NoUniqueBest(UserError):
    """A record that is well formed but names no single best response (Eq 10 of arXiv 2504.02495 needs one).

    `reason` is "tie", "unscored" (a score is missing), "too few" (fewer than two responses) or "identical" (the best
    response stands there twice).
    """

    def __init__(self, reason: str, where: str, name: str, problem: str):
        super().__init__(f"{where}: {name}: {problem}; leave it out, as `grm data convert` does")
        self.reason = reason


@dataclass(frozen=True)
class Named:
    """The label is a word (or number) that stands for the index of the best response."""

    path: str
    indices: Mapping[str | int, int]


@dataclass(frozen=True)
class Scored:
    """The best response is the one of the highest score; one score a response, in item order."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Signed:
    """A number from -3 to 3: negative when the first of two responses is better, by so much; 0 is a tie."""

    path: str


@dataclass(frozen=True)
class First:
    """The first response is the best, because the data set calls it chosen."""


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps what an `Item` holds; every field named nowhere here goes to `meta`.

    `responses` are paths to the responses, in item order, or to whole conversations that end with one; then there is no
    `prompt`. `turns` splits a prompt that holds several turns, the user's first, and tells their roles. Without an `id`,
    items are numbered. `rows` is how many rows in a row make one item.
    """

    responses: tuple[str, ...]
    label: Named | Scored | Signed | First
    prompt: str | None = None
    turns: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    domain: str | None = None
    rows: int = 1


_HELPSTEER_TURNS = {"\n<extra_id_1>Assistant\n": "assistant", "\n<extra_id_1>User\n": "user"}

LAYOUTS: dict[str, Layout | None] = {
    "items": None,
    # https://huggingface.co/datasets/ScalerLab/JudgeBench
    "judgebench": Layout(
        id="pair_id",
        prompt="question",
        responses=("response_A", "response_B"),
        label=Named("label", {"A>B": 0, "B>A": 1}),
        domain="source",
    ),
    # https://huggingface.co/datasets/openbmb/UltraFeedback. Its overall_score has a known fault (some 1s were stored as
    # 10s), so the mean of the four aspects decides.
    "ultrafeedback": Layout(
        prompt="instruction",
        responses=("completions[*].response",),
        label=Scored(("completions[*].fine-grained_score",)),
        domain="source",
    ),
    # https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized. A prompt_id may come twice: it is no id.
    "ultrafeedback_binarized": Layout(
        responses=("chosen", "rejected"),
        label=Scored(("score_chosen", "score_rejected")),
    ),
    # https://huggingface.co/datasets/nvidia/HelpSteer2: two rows running share their prompt
    "helpsteer2": Layout(
        prompt="rows[*].prompt",
        turns=_HELPSTEER_TURNS,
        responses=("rows[*].response",),
        label=Scored(("rows[*].helpfulness",)),
        rows=2,
    ),
    # the same, folder preference (arXiv 2410.01257)
    "helpsteer2_preference": Layout(
        prompt="prompt",
        turns=_HELPSTEER_TURNS,
        responses=("response_1", "response_2"),
        label=Signed("preference_strength"),
    ),
    # https://huggingface.co/datasets/Skywork/Skywork-Reward-Preference-80K-v0.2
    "skywork": Layout(responses=("chosen", "rejected"), label=First(), domain="source"),
    # https://huggingface.co/datasets/NCSOFT/offsetbias
    "offsetbias": Layout(
        prompt="instruction",
        responses=("output_1", "output_2"),
        label=Named("label", {1: 0, 2: 1}),
    ),
}
"""Known layouts by name; `items` is the project's own (docs/design.md, Contracts)."""


def item_from_layout(layout: str, obj: Any, where: str, index: int = 0) -> Item:
    """Reads one record of the named layout as an item.

    Args:
        layout: a name in `LAYOUTS`.
        obj: a JSON object; for a layout of several rows an item, the array of them.
        where: the record's place, for messages.
        index: its number, for the id of an item that brings none.

    Raises:
        NoUniqueBest: the record is well formed, but no single response is the best.
        UserError: the layout is unknown, or "WHERE: field: what is wrong; what to do", naming the data set's own field.
    """
    table = LAYOUTS[fields.read_choice(layout, LAYOUTS, where, "layout")]
    if table is None:
        return item_from_json(obj, where)
    obj = {"rows": obj} if table.rows > 1 else fields.read_object(obj, where, "item")
    paths = [*table.responses, *([table.prompt] if table.prompt else []), *_label_paths(table.label)]
    named = {path.partition("[")[0] for path in paths} | {name for name in (table.id, table.domain) if name}
    conversation, responses = _conversation(table, obj, where)
    if len(responses) < 2:
        raise NoUniqueBest("too few", where, table.responses[0], f"there are {len(responses)} responses to compare")
    label, more, meta = _label(table.label, obj, len(responses), where)
    if responses.count(responses[label]) > 1:
        raise NoUniqueBest("identical", where, table.responses[0], "the best response stands there twice")
    record = {
        "id": fields.read_name(_one(obj, table.id, where), where, table.id) if table.id else f"{layout}-{index}",
        "conversation": conversation,
        "responses": responses,
        "label": label,
        **more,
        "domain": fields.read_text(_one(obj, table.domain, where), where, table.domain) if table.domain else None,
        "meta": {name: value for name, value in obj.items() if name not in named} | meta,
    }
    return item_from_json(record, where)


def _conversation(table: Layout, obj: Mapping[str, Any], where: str) -> tuple[list[dict[str, str]], list[str]]:
    """The conversation's messages and the responses."""
    values = _all(obj, table.responses, where)
    if table.prompt is None:
        talks = [read_messages(value, where, name) for name, value in values]
        for talk, (name, _) in zip(talks, values, strict=True):
            if talk[:-1] != talks[0][:-1] or talk[-1].role != "assistant" or len(talk) < 2:
                problem = "is not the same conversation with an answer at its end"
                fields.fail(where, name, problem, "correct it or leave the record out")
        messages = [{"role": turn.role, "content": turn.content} for turn in talks[0][:-1]]
        return messages, [talk[-1].content for talk in talks]
    prompts = [fields.read_text(value, where, name) for name, value in _all(obj, (table.prompt,), where)]
    if len(set(prompts)) != 1:
        problem = f"the {len(prompts)} rows of an item have different prompts"
        fields.fail(where, table.prompt, problem, "give the rows in the data set's own order")
    return _turns(prompts[0], table.turns), [fields.read_text(value, where, name) for name, value in values]


def _turns(prompt: str, marks: Mapping[str, str]) -> list[dict[str, str]]:
    pattern = f"({'|'.join(map(re.escape, marks))})" if marks else r"(?!)"
    first, *rest = re.split(pattern, prompt)
    turns = [{"role": "user", "content": first}]
    return turns + [{"role": marks[mark], "content": text} for mark, text in zip(rest[::2], rest[1::2], strict=True)]


def _label_paths(label: Named | Scored | Signed | First) -> tuple[str, ...]:
    match label:
        case Scored(paths):
            return paths
        case Named(path) | Signed(path):
            return (path,)
        case First():
            return ()


def _label(
    label: Named | Scored | Signed | First, obj: Mapping[str, Any], n: int, where: str
) -> tuple[int, dict[str, int], dict[str, Any]]:
    """The index of the best response, the item's strength if the data set tells it, and what `meta` gains."""
    match label:
        case Named(path, indices):
            value = _one(obj, path, where)
            if type(value) is not type(next(iter(indices))) or value not in indices:
                names = ", ".join(map(str, indices))
                fields.fail(where, path, f"{fields.show(value)} is not known", f"use one of {names}")
            return indices[value], {}, {}
        case Scored(paths):
            values = _all(obj, paths, where)
            if any(value is None for _, value in values):
                raise NoUniqueBest("unscored", where, paths[0], "a response has no score")
            scores = [fields.read_number(value, where, name) for name, value in values]
            if len(scores) != n:
                fields.fail(where, paths[0], f"{len(scores)} scores for {n} responses", "give one score a response")
            if scores.count(max(scores)) > 1:
                raise NoUniqueBest("tie", where, paths[0], f"{fields.show(scores)} has no unique maximum")
            return scores.index(max(scores)), {}, {"scores": scores}
        case Signed(path):
            number = fields.read_integer(_one(obj, path, where), where, path, -3, 3)
            if number == 0:
                raise NoUniqueBest("tie", where, path, "neither response is preferred")
            return int(number > 0), {"strength": abs(number)}, {}
        case First():
            return 0, {}, {}


def _one(obj: Mapping[str, Any], path: str, where: str) -> Any:
    ((_, value),) = _all(obj, (path,), where)
    return value


def _all(obj: Mapping[str, Any], paths: Sequence[str], where: str) -> list[tuple[str, Any]]:
    """(Name, value) of everything the paths name."""
    found = []
    for path in paths:
        name, _, rest = path.partition("[*].")
        fields.check_keys(obj, obj, (name,), where, "")
        if not rest:
            found.append((name, obj[name]))
            continue
        for i, element in enumerate(fields.read_array(obj[name], where, name)):
            element = fields.read_object(element, where, f"{name}[{i}]")
            fields.check_keys(element, element, (rest,), f"{where}: {name}[{i}]", "")
            found.append((f"{name}[{i}].{rest}", element[rest]))
    return found
