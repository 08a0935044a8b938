"""Preference sets of any layout, from any source, as items."""

from collections import Counter
from collections.abc import Iterator

from grm_jax.data import fields
from grm_jax.data.layouts import LAYOUTS, NoUniqueBest, item_from_layout
from grm_jax.data.records import Item
from grm_jax.data.sources import Source
from grm_jax.errors import UserError


def items_from_source(source: Source, layout: str, dropped: Counter[str]) -> Iterator[Item]:
    """Yields the items of a source, in its order; responses stand as the data set has them.

    A record without a unique best response is left out: nothing is guessed.

    Args:
        source: the rows.
        layout: a name in `LAYOUTS`.
        dropped: gains the number of records left out, by reason (`NoUniqueBest`).

    Raises:
        UserError: "WHERE: field: what is wrong; what to do" for a malformed row, an id that comes twice, or rows left over
            where several make one item.
    """
    table = LAYOUTS[fields.read_choice(layout, LAYOUTS, source.where(0), "layout")]
    rows = table.rows if table else 1
    if len(source) % rows:
        problem = f"{len(source)} rows do not make whole items of {rows} rows"
        raise UserError(f"{source.where(len(source) - 1)}: {problem}; give the data set as it was published")
    first: dict[str, str] = {}
    for start in range(0, len(source), rows):
        where = source.where(start)
        record = source[start] if rows == 1 else [source[i] for i in range(start, start + rows)]
        try:
            item = item_from_layout(layout, record, where, start)
        except NoUniqueBest as reason:
            dropped[reason.reason] += 1
            continue
        if item.id in first:
            fields.fail(where, "id", f"{fields.show(item.id)} already stands at {first[item.id]}", "give each its own")
        first[item.id] = where
        yield item
