"""Examples packed several to a row, as an endless or finite stream of batches that can be left and taken up again.

Letters: B rows, T positions.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from grm_jax.data.examples import Example, encode_example
from grm_jax.errors import UserError
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]


class _Encoded:
    """Random access to the encoded examples from `start` on, for grain to read ahead in."""

    def __init__(self, encode: Callable[[int], tuple[np.ndarray, np.ndarray]], start: int, count: int):
        self._encode, self._start, self._count = encode, start, count

    def __len__(self) -> int:
        return self._count - self._start

    def __getitem__(self, offset: int) -> dict[str, Any]:
        index = self._start + offset
        ids, weights = self._encode(index)
        return {"index": index, "ids": ids, "weights": weights}


class PackedBatches:
    """An iterator over batches of B rows of T tokens, each packed with whole examples in the examples' order.

    Packing is first fit: an example goes to the first row with room for it; one that fits nowhere opens the next batch. So
    a batch depends on nothing but its first example's index, which is all the state there is.

    Each batch: tokens, targets, positions, segments int32 [B, T] and weights float32 [B, T]. The examples of a row are its
    segments 1, 2, ...; segment 0 is padding; positions restart with each example.
    """

    def __init__(
        self,
        encode: Callable[[int], tuple[np.ndarray, np.ndarray]],
        *,
        rows: int,
        length: int,
        count: int,
        skip_long: bool,
        threads: int,
    ):
        self._encode, self._rows, self._length, self._count = encode, rows, length, count
        self._skip_long, self._threads = skip_long, threads
        self._pending: dict[str, Any] | None = None  # read, and found to open the next batch
        self.set_state({"next": 0, "skipped": 0})

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        shape = (self._rows, self._length)
        batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "positions", "segments")}
        batch["weights"] = np.zeros(shape, np.float32)
        used, examples = [0] * self._rows, [0] * self._rows
        while (element := self._take()) is not None:
            size = len(element["ids"]) - 1
            row = next((row for row in range(self._rows) if used[row] + size <= self._length), None)
            if row is None:
                self._pending, self._next = element, element["index"]
                return batch
            place = slice(used[row], used[row] + size)
            used[row] += size
            examples[row] += 1
            batch["tokens"][row, place] = element["ids"][:-1]
            batch["targets"][row, place] = element["ids"][1:]
            batch["weights"][row, place] = element["weights"][1:]
            batch["positions"][row, place] = np.arange(size)
            batch["segments"][row, place] = examples[row]
        self._next = self._count
        if not any(used):
            raise StopIteration
        return batch

    def next(self, params: Any = None) -> tuple[Batch, dict[str, float]]:
        """Returns the next batch, and `skipped`: the examples left out so far because no row could hold them.

        `params` are ignored: this is how a training loop asks for a batch, and other sources need them.

        Raises:
            UserError: the examples have come to an end.
        """
        del params
        try:
            batch = next(self)
        except StopIteration:
            raise UserError(f"training data: all {self._count} examples are used up; give more examples") from None
        return batch, {"skipped": float(self._skipped)}

    def get_state(self) -> dict[str, int]:
        """Returns where the next batch begins, as JSON."""
        return {"next": self._next, "skipped": self._skipped}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that `get_state` told; the batches that follow are those that followed there."""
        self._next, self._skipped = int(state["next"]), int(state["skipped"])
        self._pending = None
        self._read: Iterator[dict[str, Any]] = iter(())
        if self._next < self._count:
            source = grain.MapDataset.source(_Encoded(self._encode, self._next, self._count))
            options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=512)
            self._read = iter(source.to_iter_dataset(options))

    def _take(self) -> dict[str, Any] | None:
        """The next example that a row can hold, or None at the end."""
        if self._pending is not None:
            element, self._pending = self._pending, None
            return element
        for element in self._read:
            size = len(element["ids"]) - 1
            if size <= self._length:
                return element
            if not self._skip_long:
                problem = f"training example {element['index']} has {size} tokens, a row holds {self._length}"
                raise UserError(f"{problem}: give longer rows")
            self._skipped += 1
        return None


def packed_batches(
    examples: Callable[[int], Example],
    template: Template,
    tokenizer: Tokenizer,
    *,
    rows: int,
    length: int,
    count: int = 2**40,
    skip_long: bool = False,
    threads: int = 1,
) -> PackedBatches:
    """Encodes examples and packs them.

    Args:
        examples: example i, for i from 0.
        template: how the prompts of critiques are written.
        tokenizer: encodes them.
        rows: B.
        length: T.
        count: how many examples there are; the last batch may have room left.
        skip_long: an example that no row can hold is left out and counted, where it is otherwise refused with its number.
        threads: that read ahead; the batches do not depend on it.
    """
    return PackedBatches(
        lambda index: encode_example(examples(index), template, tokenizer),
        rows=rows, length=length, count=count, skip_long=skip_long, threads=threads,
    )  # fmt: skip
