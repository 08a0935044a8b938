"""Laws of packing: nothing is lost, nothing is mixed, and a state brings back exactly what followed."""

import itertools
import json

import numpy as np
import pytest

from grm_jax.data.packing import PackedBatches
from grm_jax.errors import UserError
from grm_jax.keys import generator

ROWS, LENGTH = 3, 16
NAMES = ("tokens", "targets", "positions", "segments", "weights")


def encoded(index, longest=12):
    """Example `index`: 2..longest ids, none of which any other of the first 500 examples has."""
    size = int(generator("packing test", index).integers(2, longest + 1))
    return np.arange(1000 * index + 1, 1000 * index + 1 + size, dtype=np.int32), np.ones(size, np.float32) * (index + 1)


def packed(encode=encoded, count=2**40, rows=ROWS, skip_long=False, threads=1):
    return PackedBatches(encode, rows=rows, length=LENGTH, count=count, skip_long=skip_long, threads=threads)


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys() == set(NAMES)
        for name in NAMES:
            np.testing.assert_array_equal(one[name], other[name])


def test_every_example_stands_whole_in_one_segment_token_by_token():
    batches = list(packed(count=100))
    seen = []
    for batch in batches:
        assert {(array.shape, array.dtype.name) for array in batch.values()} == {
            ((ROWS, LENGTH), "int32"),
            ((ROWS, LENGTH), "float32"),
        }
        assert batch["weights"].dtype == np.float32
        empty = batch["segments"] == 0
        assert all((batch[name][empty] == 0).all() for name in NAMES)
        for row, segments in enumerate(batch["segments"]):
            filled = segments[segments > 0]
            assert (np.diff(filled) >= 0).all() and (segments[len(filled) :] == 0).all()
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                index = int(batch["tokens"][row][inside][0]) // 1000
                ids, weights = encoded(index)
                assert batch["tokens"][row][inside].tolist() == ids[:-1].tolist()
                assert batch["targets"][row][inside].tolist() == ids[1:].tolist()
                assert batch["weights"][row][inside].tolist() == weights[1:].tolist()
                assert batch["positions"][row][inside].tolist() == list(range(len(ids) - 1))
                seen.append(index)
    assert sorted(seen) == list(range(100))
    assert max(batch["segments"].max() for batch in batches) > 1


def test_a_batch_is_closed_by_the_first_example_with_room_nowhere():
    sizes = [11, 11, 5, 6, 11, 6]  # tokens 10, 10, 4, 5, 10, 5 in two rows of 16
    batches = list(packed(lambda i: (np.full(sizes[i], i + 1, np.int32), np.ones(sizes[i], np.float32)), 6, rows=2))
    rows = [[row[row > 0].tolist() for row in batch["tokens"]] for batch in batches]
    assert rows == [
        [[1] * 10 + [3] * 4, [2] * 10 + [4] * 5],
        [[5] * 10 + [6] * 5, []],
    ]


@pytest.mark.parametrize("skip_long", [False, True])
def test_a_restored_iterator_goes_on_as_the_uninterrupted_one(skip_long):
    def encode(index):
        return encoded(index, 30 if skip_long else 12)

    stream = packed(encode, 200, skip_long=skip_long)
    states, batches, metrics = [], [], []
    while stream.get_state()["next"] < 200:
        states.append(json.loads(json.dumps(stream.get_state())))
        batch, extra = stream.next()
        batches.append(batch)
        metrics.append(extra)
    assert (metrics[-1]["skipped"] > 10) == skip_long
    rng = generator("restore test")
    for place in [0, *rng.integers(1, len(batches), 8).tolist()]:
        used = packed(encode, 200, skip_long=skip_long)
        for _ in range(int(rng.integers(0, 4))):
            next(used)  # what was read before is forgotten
        used.set_state(states[place])
        assert used.get_state() == states[place]
        rest = [used.next() for _ in batches[place:]]
        assert_same([batch for batch, _ in rest], batches[place:])
        assert [extra for _, extra in rest] == metrics[place:]


def test_the_batches_do_not_depend_on_the_threads():
    assert_same(itertools.islice(packed(), 30), itertools.islice(packed(threads=8), 30))


def test_an_example_that_no_row_can_hold_is_refused_or_counted():
    def encode(index):
        size = LENGTH + 1 + (index == 3)  # 16 tokens fit exactly, 17 do not
        return np.ones(size, np.int32), np.ones(size, np.float32)

    refused = packed(encode, 9)
    with pytest.raises(UserError, match="training example 3 has 17 tokens, a row holds 16: give longer rows"):
        list(refused)
    counted = packed(encode, 9, skip_long=True)
    segments = [counted.next() for _ in range(3)]
    assert [extra for _, extra in segments] == [{"skipped": 1.0}] * 3
    assert sum((batch["segments"][:, 0] > 0).sum() for batch, _ in segments) == 8
    with pytest.raises(UserError, match="all 9 examples are used up"):
        counted.next()
