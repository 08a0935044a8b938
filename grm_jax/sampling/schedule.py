"""Which sample each row draws next, and where its prompt is held. Plain bookkeeping, no arrays of the device.

Rows, and the places where prompts are held, come in A equal parts, which a mesh may have apart: a row goes on with prompts of its
own part. A held prompt has k cells: a sample that is drawn takes one of them and a row; when its prompt has nothing left to draw,
the place is free for another prompt. So rows are busy as long as samples wait, however their lengths differ.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
    """What a row draws: a sample of a request, at a cell of the place where the request's prompt is held."""

    request: int
    sample: int
    place: int
    cell: int


class Schedule:
    """Rows, held prompts and samples that wait.

    Attributes:
        rows: what each row draws; None for one that waits.
        cells: samples of one prompt that are drawn at once, at most.
    """

    def __init__(self, *, parts: int, rows: int, places: int, cells: int):
        """Everything is free.

        Args:
            parts: A.
            rows: of all parts, a multiple of A.
            places: where prompts are held, of all parts, a multiple of A.
            cells: samples of one prompt that are drawn at once, at most.
        """
        self.rows: list[Work | None] = [None] * rows
        self._parts, self.cells = parts, cells
        self._rows_each, self._places_each = rows // parts, places // parts
        self._held: list[int | None] = [None] * places
        self._waiting: list[deque[int]] = [deque() for _ in range(places)]
        self._free: list[list[int]] = [list(range(cells))[::-1] for _ in range(places)]
        self._age = [0] * places
        self._admitted = 0

    def admit(self, requests: deque[tuple[int, int]]) -> list[tuple[int, int]]:
        """Takes as many requests as rows would otherwise want for work, and there is a place for.

        Args:
            requests: (request, its samples), in the order they are begun; those that are taken leave it.

        Returns:
            (place, request) for each: its prompt has to be there before `assign`.
        """
        idle = [self._idle(part) - self._startable(part) for part in range(self._parts)]
        free = [[p for p in self._places(part) if self._held[p] is None][::-1] for part in range(self._parts)]
        taken = []
        while requests:
            part = max(range(self._parts), key=lambda part: (bool(free[part]), idle[part]))
            if not free[part] or idle[part] <= 0:
                break
            place, (request, samples) = free[part].pop(), requests.popleft()
            self._held[place], self._waiting[place] = request, deque(range(samples))
            self._admitted += 1
            self._age[place] = self._admitted
            idle[part] -= min(samples, self.cells)
            taken.append((place, request))
        return taken

    def assign(self) -> list[tuple[int, Work]]:
        """Gives waiting rows samples, those of the prompt first that is held longest; returns the rows with what they draw."""
        fresh = []
        for part in range(self._parts):
            places = deque(sorted(self._places(part), key=self._age.__getitem__))
            for row in range(part * self._rows_each, (part + 1) * self._rows_each):
                if self.rows[row] is not None:
                    continue
                while places and not (self._waiting[places[0]] and self._free[places[0]]):
                    places.popleft()
                if not places:
                    break
                place = places[0]
                request = self._held[place]
                assert request is not None
                work = Work(request, self._waiting[place].popleft(), place, self._free[place].pop())
                self.rows[row] = work
                fresh.append((row, work))
        return fresh

    def release(self, rows: Iterable[int]) -> None:
        """The samples of these rows have ended."""
        for row in rows:
            work, self.rows[row] = self.rows[row], None
            assert work is not None
            self._free[work.place].append(work.cell)
            if not self._waiting[work.place] and len(self._free[work.place]) == self.cells:
                self._held[work.place] = None

    def busy(self) -> list[tuple[int, Work]]:
        """Rows that draw, and what."""
        return [(row, work) for row, work in enumerate(self.rows) if work is not None]

    def has_waiting(self) -> bool:
        """Samples of held prompts wait for a row."""
        return any(self._waiting)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """`rows` and `places` of `model.attention.Sharing`."""
        rows = np.zeros((self._parts, self._places_each, self.cells), np.int32)
        places = np.zeros((self._parts, self._rows_each), np.int32)
        for row, work in self.busy():
            part, within = divmod(row, self._rows_each)
            place = work.place - part * self._places_each
            rows[part, place, work.cell] = within
            places[part, within] = place * self.cells + work.cell
        return rows, places

    def _places(self, part: int) -> range:
        return range(part * self._places_each, (part + 1) * self._places_each)

    def _idle(self, part: int) -> int:
        return sum(work is None for work in self.rows[part * self._rows_each : (part + 1) * self._rows_each])

    def _startable(self, part: int) -> int:
        return sum(min(len(self._waiting[place]), len(self._free[place])) for place in self._places(part))
