"""Field layouts of preference data in the wild, as a table; a new layout is one more entry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grm_jax.data import fields
from grm_jax.data.records import Item, item_from_json


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps what an `Item` holds; every field named nowhere here goes to `meta`.

    `responses` names one field a response, in item order; `labels` maps the data set's words for the winner to the
    index of the best response.
    """

    id: str
    prompt: str
    responses: tuple[str, ...]
    label: str
    labels: Mapping[str, int]
    domain: str


LAYOUTS: dict[str, Layout | None] = {
    "items": None,
    # https://huggingface.co/datasets/ScalerLab/JudgeBench
    "judgebench": Layout(
        id="pair_id",
        prompt="question",
        responses=("response_A", "response_B"),
        label="label",
        labels={"A>B": 0, "B>A": 1},
        domain="source",
    ),
}
"""Known layouts by name; `items` is the project's own (docs/design.md, Contracts)."""


def item_from_layout(layout: str, obj: Any, where: str) -> Item:
    """Reads one JSON object of the named layout as an item.

    Raises:
        UserError: the layout is unknown, or "WHERE: field: what is wrong; what to do", naming the data set's own field.
    """
    table = LAYOUTS[fields.read_choice(layout, LAYOUTS, where, "layout")]
    if table is None:
        return item_from_json(obj, where)
    obj = fields.read_object(obj, where, "item")
    mapped = (table.id, table.prompt, *table.responses, table.label, table.domain)
    fields.check_keys(obj, obj.keys(), mapped, where, "")
    texts = {name: fields.read_text(obj[name], where, name) for name in mapped}
    winner = fields.read_choice(texts[table.label], table.labels, where, table.label)
    item = {
        "id": fields.read_name(texts[table.id], where, table.id),
        "prompt": texts[table.prompt],
        "responses": [texts[name] for name in table.responses],
        "label": table.labels[winner],
        "domain": texts[table.domain],
        "meta": {name: value for name, value in obj.items() if name not in mapped},
    }
    return item_from_json(item, where)
