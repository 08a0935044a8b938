"""Mixtures: several sources of training examples, in proportion to their weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain

from grm_jax import keys
from grm_jax.data.examples import Example, example_from_json
from grm_jax.data.sources import Source, open_source
from grm_jax.errors import UserError

ARENA = "arena"
"""Names the endless stream of the arena's critiques among the sources."""

Streams = Mapping[str, Callable[[int], Example] | Source]
"""Sources by a name of their own: an endless stream, whose example i is a function of i, or rows that were opened."""

_ENDLESS = 2**40


@dataclass(frozen=True)
class SftData:
    """What supervised fine-tuning learns from.

    Attributes:
        sources: (spec, weight) of each source: what `open_source` takes, or the name of a stream such as "arena"; weights are
            relative.
        seed: of the order.
    """

    sources: tuple = ((ARENA, 1.0),)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("SftData.sources is empty; give at least one (spec, weight)")
        for source in self.sources:
            if not (isinstance(source, list | tuple) and len(source) == 2 and isinstance(source[0], str)):
                raise UserError(f'SftData.sources holds {source!r}; write each as ("spec", weight)')
            weight = source[1]
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
                raise UserError(f"SftData.sources: the weight of {source[0]} is {weight!r}; give a positive number")


class _Examples:
    """A source's rows as examples."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return example_from_json(self._source[index], self._source.where(index))


class _Stream:
    """An endless stream, example i a function of i."""

    def __init__(self, examples: Callable[[int], Example]):
        self._examples = examples

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Example:
        return self._examples(index)


def mix(sources: Sequence[tuple[str, Any, float]], seed: int) -> Callable[[int], Any]:
    """Returns an endless stream: a function from an index to an example, pure, so that an index is all its state.

    Sources take turns, evenly: in any W neighbours a source of n with share w has W * w examples, give or take n and 1 in
    100. Each source is shuffled anew in every epoch, by (seed, name, its number among sources of that name), and begins
    again when it is used up; a stream runs in its own order.

    Args:
        sources: (name, what has `len` and `[i]`, weight) of each.
        seed: of the shuffles.
    """
    parts, names = [], [name for name, _, _ in sources]
    for number, (name, rows, _) in enumerate(sources):
        part = grain.MapDataset.source(rows)
        if not isinstance(rows, _Stream):
            digest = keys.digest("mixture", seed, name, names[:number].count(name))
            part = part.shuffle(seed=int.from_bytes(digest[:4], "little")).repeat()
        parts.append(part)
    mixed = grain.MapDataset.mix(parts, weights=[weight for _, _, weight in sources])
    return mixed.__getitem__


def sft_examples(data: SftData, streams: Streams) -> Callable[[int], Example]:
    """Opens the sources of a supervised run; example i of the mixture is a function of (data.seed, i).

    Args:
        data: the sources and their weights.
        streams: sources with a name; every other spec is opened.

    Raises:
        UserError: a source cannot be opened; later, from a row that is no example.
    """
    opened: list[tuple[str, Any, float]] = []
    for spec, weight in data.sources:
        named = streams.get(spec)
        rows = _Stream(named) if callable(named) else _Examples(open_source(spec) if named is None else named)
        opened.append((spec, rows, weight))
    return mix(opened, data.seed)
