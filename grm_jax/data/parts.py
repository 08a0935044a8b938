"""Parts of an item: its responses one by one, or two at a time.

What judges one response, or which of two is better, judges an item of n by its parts: `ID#i` for response i, `ID#i-j` for the
pair i < j. A pair's label is known where it holds the item's best response.
"""

import dataclasses
import itertools

from grm_jax.data.records import Item


def pairs_of(n: int) -> tuple[tuple[int, int], ...]:
    """Returns all pairs i < j of n responses, in the order in which every table of pairs has them."""
    return tuple(itertools.combinations(range(n), 2))


def singles(item: Item) -> list[Item]:
    """Returns an item of one response for each response; none has a label."""
    return [_part(item, (i,)) for i in range(len(item.responses))]


def pairs(item: Item) -> list[Item]:
    """Returns an item of two responses for each pair; none where there is only one response."""
    return [_part(item, pair) for pair in pairs_of(len(item.responses))]


def _part(item: Item, places: tuple[int, ...]) -> Item:
    best = item.label if len(places) > 1 else None
    return dataclasses.replace(
        item,
        id=f"{item.id}#{'-'.join(map(str, places))}",
        responses=tuple(item.responses[i] for i in places),
        label=places.index(int(best)) if best in places else None,
        strength=item.strength if best in places else None,
    )
