"""Laws of the schedule: every sample is drawn once, where its prompt is held, and rows seldom wait."""

from collections import deque

import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.sampling.schedule import Schedule


def drawn(lengths, *, rows, places, cells, parts=1, patience=1):
    """Plays samples of the given lengths [request][sample]; returns the share of row steps that drew a token, and what was done.

    At every call it is checked that a row's place on the grid is its own and its prompt's.
    """
    schedule = Schedule(parts=parts, rows=rows, places=places, cells=cells)
    queue = deque((i, len(each)) for i, each in enumerate(lengths))
    left, held, done, steps = np.zeros(rows, int), {}, [], 0
    while True:
        for place, request in schedule.admit(queue):
            assert place not in {work.place for _, work in schedule.busy()}
            held[place] = request
        for row, work in schedule.assign():
            left[row] = lengths[work.request][work.sample]
            assert held[work.place] == work.request
        busy = schedule.busy()
        if not busy:
            break
        grid, where = schedule.grid()
        for row, work in busy:
            part, within = divmod(row, rows // parts)
            assert grid[part].reshape(-1)[where[part, within]] == within
            assert work.place == part * (places // parts) + where[part, within] // cells
        assert len({(work.place, work.cell) for _, work in busy}) == len(busy)
        running = [row for row, _ in busy]
        ends = np.sort(left[running])
        lasted = ends[min(patience if queue or schedule.has_waiting() else len(busy), len(busy)) - 1]
        left[running] -= lasted
        steps += int(lasted)
        ended = [(row, work) for row, work in busy if left[row] <= 0]
        done += [(work.request, work.sample) for _, work in ended]
        schedule.release([row for row, _ in ended])
    assert not queue
    return sum(map(sum, lengths)) / (steps * rows), done


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_is_drawn_once(parts, seed):
    rng = generator("schedule", seed)
    lengths = [rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(40)]
    _, done = drawn(lengths, rows=8, places=4 * int(rng.integers(1, 4)), cells=int(rng.integers(1, 9)), parts=parts)
    assert sorted(done) == [(i, j) for i, each in enumerate(lengths) for j in range(len(each))]


@pytest.mark.parametrize(("rows", "k"), [(64, 16), (128, 32), (128, 4), (192, 32)])
def test_nine_rows_in_ten_are_busy_when_lengths_vary_tenfold(rows, k):
    """Of samples of 100 to 1,000 tokens, with the patience of the sampler; all together they would keep half of the rows busy."""
    lengths = generator("schedule lengths").integers(100, 1001, (16 * rows // k, k)).tolist()
    use, _ = drawn(lengths, rows=rows, places=2 * rows // k, cells=k, patience=rows // 16)
    assert use >= 0.9
    batches = [lengths[i : i + rows // k] for i in range(0, len(lengths), rows // k)]
    together = sum(max(map(max, batch)) for batch in batches) * rows
    assert sum(map(sum, lengths)) / together < 0.6


def test_the_prompt_that_is_held_longest_goes_first():
    schedule = Schedule(parts=1, rows=2, places=3, cells=2)
    queue = deque([(10, 3), (11, 2)])
    assert schedule.admit(queue) == [(0, 10)]
    assert [(work.request, work.sample) for _, work in schedule.assign()] == [(10, 0), (10, 1)]
    schedule.release([0])
    assert schedule.admit(queue) == []  # a sample of the first prompt waits for that row
    assert [(row, work.request, work.sample) for row, work in schedule.assign()] == [(0, 10, 2)]
    schedule.release([0, 1])
    assert schedule.admit(queue) == [(0, 11)]  # nothing is left of the first, so its place is free
