"""The labelled items of a pipeline: of the arena or of any source, in one order, from which each stage takes a stretch."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from grm_jax.data.arena import world
from grm_jax.data.jsonl import dump_line
from grm_jax.data.mixture import ARENA
from grm_jax.data.preferences import items_from_source
from grm_jax.data.records import Item, item_from_json, item_to_json
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError
from grm_jax.keys import digest
from grm_jax.spct.recipe import Spct


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Items `first`, `first + 1`, ...: `count` of them, or all that are left for 0. `name` is the setting's, for messages."""

    name: str
    first: int
    count: int

    @property
    def end(self) -> int:
        """One past the last; 0 when there is no end."""
        return self.first + self.count if self.count else 0

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Takes the stretch of all items."""
        return list(items[self.first : self.end or None])


def training_items(spct: Spct, stretches: Sequence[Stretch]) -> list[Item]:
    """Reads the items that stages learn from, as many as the stretches need.

    Raises:
        UserError: they cannot be read, are too few, or one has no label.
    """
    return labelled_items(spct.items, "train", spct.item_seed, stretches)


def evaluation_items(spct: Spct) -> list[Item]:
    """Reads the items of the curve; raises as `training_items`."""
    stretch = Stretch("Spct.evaluation_items", 0, spct.evaluation_items)
    return stretch.of(labelled_items(spct.evaluation, spct.split, spct.item_seed, [stretch]))


def items_digest(items: Sequence[Item]) -> str:
    """Names items by all that they hold: a stage that learnt from others is another stage."""
    return digest(*(dump_line(item_to_json(item)).decode("utf-8") for item in items)).hex()[:16]


def labelled_items(spec: str, split: str, seed: int, stretches: Sequence[Stretch]) -> list[Item]:
    """Reads labelled items, as many as the stretches need; `split` and `seed` are of the arena's.

    Raises:
        UserError: as `training_items`.
    """
    if not stretches:
        return []
    if spec == ARENA:
        for stretch in stretches:
            if not stretch.count:
                raise UserError(f"{stretch.name} must be at least 1, not 0: the arena has no end")
        count = max(stretch.end for stretch in stretches)
        items = [item_from_json(item, f"{ARENA}:{i}") for i, item in enumerate(world.items(split, count, seed))]
    else:
        items = list(items_from_source(open_source(spec), "items", Counter()))
    for stretch in stretches:
        if len(items) < max(stretch.end, stretch.first + 1):
            wanted = f"{stretch.name} asks {stretch.count or 'some'} from number {stretch.first}"
            raise UserError(f"{spec}: holds {len(items)} items, {wanted}; ask fewer or give more")
        for item in stretch.of(items):
            if item.label is None:
                raise UserError(
                    f"{spec}: item {item.id!r} has no label, so no critique of it is right or wrong; add it"
                )
    return items
