"""The order in which examples of unlike lengths are learnt from: shuffled anew in every epoch, batches of like lengths."""

from collections.abc import Sequence

import numpy as np

from grm_jax.keys import generator

_SORTED = 16  # batches; enough for all lengths to be there, few enough for batches of all lengths to take turns


class SortedEpochs:
    """Which examples each batch has.

    Every epoch shows each example once, in an order keyed by (name, seed, epoch); a batch may hold the end of one and the
    start of the next. Examples that follow one another in that order are sorted by length, `_SORTED` batches of them at a
    time, so that a batch is not padded to the one long example in it.
    """

    def __init__(self, name: str, seed: int, lengths: Sequence[int], size: int):
        """`lengths` of the examples, of which there must be one; `size` is a batch's."""
        self._name, self._seed, self._size = name, seed, size
        self._lengths = np.asarray(lengths)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def batch(self, number: int) -> list[int]:
        """Returns the places of the examples of batch `number`."""
        return [self._place(place) for place in range(number * self._size, (number + 1) * self._size)]

    def epoch(self, number: int) -> float:
        """Returns how many epochs lie before batch `number`."""
        return number * self._size / len(self._lengths)

    def _place(self, number: int) -> int:
        epoch, place = divmod(number, len(self._lengths))
        if epoch != self._epoch:
            self._epoch = epoch
            shuffled = generator(self._name, self._seed, epoch).permutation(len(self._lengths))
            window = _SORTED * self._size
            self._order = np.concatenate(
                [self._by_length(shuffled[start : start + window]) for start in range(0, len(shuffled), window)]
            )
        return int(self._order[place])

    def _by_length(self, places: np.ndarray) -> np.ndarray:
        return places[np.argsort(self._lengths[places], kind="stable")]
