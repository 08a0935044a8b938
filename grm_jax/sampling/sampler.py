"""Prompts of any number and length, and samples of any length, through a few static shapes.

Rows are decoded together; as soon as enough of them have ended, each gets another sample. A prompt's padded length depends on its
own length alone and on whether orders of its item are there, so the arithmetic behind a sample hardly depends on its company.
"""

import dataclasses
import functools
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from grm_jax.model.attention import Sharing
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import CacheSegment, logical_axes, native, unroll
from grm_jax.model.output_major import native_form
from grm_jax.model.projections import formed
from grm_jax.parallel.layout import fetch, layouts
from grm_jax.sampling.decode import Drawn, Rows, decode, empty_rows
from grm_jax.sampling.holding import Holding, OwnPart, Usage, bucket
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.prefill import Prompts, head_length
from grm_jax.sampling.schedule import Schedule

_HELD_TOKENS = 65536  # of prompts held at once, at most, unless one for each part is more
_HEAD, _PREFIX = 32, 128  # tokens that are worth being computed apart, for all prompts, and for some
_PATIENCE = 16  # the host is asked for other samples when one row in so many has ended


@dataclasses.dataclass(frozen=True)
class Request:
    """One distinct prompt and the samples wanted of it.

    Attributes:
        ids: the prompt, int32 [T].
        keys: raw key data of each sample, uint32 [k, 2] (`grm_jax.keys.stream_key`).
        head: how many leading ids other prompts begin with too, fewer than all: they are computed once for all of them.
        prefix: how many leading ids, the head's among them, some others begin with too, fewer than all, as other orders of an item
            do: if they are many they are computed once for those that are computed together.
    """

    ids: np.ndarray
    keys: np.ndarray
    head: int = 0
    prefix: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample: its tokens int32 [t] (the stop token included), their log-probabilities float32 [t] under the model itself
    (temperature 1, no filter), and whether a stop token ended it."""

    ids: np.ndarray
    logprobs: np.ndarray
    stopped: bool


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What is compiled for: R rows, P held prompts of k cells."""

    rows: int
    places: int
    cells: int


class Sampler:
    """Samples completions from one model under one policy.

    Attributes:
        rows: how many samples are decoded together, at most.
        usage: what sampling has cost so far.
        compilations: shapes of what was compiled: ("head", its length), ("prefill", prompts, padded length, length of the head),
            ("prefill after", prompts, padded lengths of a prefix and of the rest, prefixes, length of the head) and ("decode",
            rows, held prompts, cells, padded length, length of the head).
    """

    def __init__(
        self,
        config: Gemma2Config,
        params: dict[str, Any],
        *,
        policy: SamplingPolicy,
        max_new: int,
        stop_ids: frozenset[int],
        rows: int = 64,
        int8_cache: bool = False,
    ):
        """Prepares a sampler on the run's decoding layout (`parallel.layout`).

        Args:
            config: the model's shape.
            params: stacked parameters, or those of an unrolled model, numpy or jax, of the type to compute in; projections in any
                form.
            policy: how tokens are drawn.
            max_new: tokens a sample, at most.
            stop_ids: tokens that end a sample.
            rows: how many samples are decoded together, at most.
            int8_cache: keys and values of prompts, heads and samples are kept in 8 bits, not in the type of the computation.
        """
        self._layout = layout = layouts().decode
        self._model = model = native(config)
        form = native_form(layout.backend, divided=layout.mesh is not None)

        def formed_like_the_model(params: dict[str, Any]) -> dict[str, Any]:
            params = unroll(params) if model.unrolled else params
            return params if form is None else formed(form, params)

        like = jax.eval_shape(formed_like_the_model, params)
        self._dtypes = jax.tree.map(lambda x: x.dtype, like)
        self._places = layout.tree(logical_axes(config, unrolled=model.unrolled), like) if layout.mesh else None
        self._formed = jax.jit(
            lambda params: jax.tree.map(lambda x, dtype: x.astype(dtype), formed_like_the_model(params), self._dtypes)
        )
        self._max_new, self.rows = max_new, rows
        self._dtype = self._dtypes["embedding"]
        self.usage = Usage()
        self.compilations: set[tuple[str | int, ...]] = set()
        self._holding = Holding(model, layout, self._dtype, self.usage, self.compilations, int8_cache)
        self.load(params)
        self._decode = jax.jit(
            functools.partial(decode, model, policy=policy, stop_ids=tuple(sorted(stop_ids))), donate_argnames="rows"
        )
        self._rows: Rows | None = None

    @property
    def is_local(self) -> bool:
        """No other process takes part."""
        return self._layout.is_local

    def load(self, params: dict[str, Any]) -> None:
        """Goes on with other parameters of the same shapes, cast to the types of the first; nothing is compiled anew.

        They may live on another mesh of the same devices: they are moved. Leaves that need no change are used as they are: do
        not sample once their owner has given them away.
        """
        as_they_are = jax.tree.map(lambda x: x.dtype, params) == self._dtypes
        self._holding.forget()
        self._params = jax.device_put(params if as_they_are else self._formed(params), self._places)

    def sample(self, requests: Sequence[Request], *, alike: bool = False) -> Iterator[tuple[int, list[Completion]]]:
        """Samples every request; yields (index of the request, its completions) as they are finished.

        Args:
            requests: prompts and keys.
            alike: all prompts are padded to the length of the longest, so that one shape serves them all.
        """
        for head, members in self._groups(requests):
            prompts = _own_parts({i: requests[i] for i in members}, 0 if head is None else len(head), alike)
            # Short ones first, so that those that are held seldom need more room; those of one prefix together.
            members.sort(key=lambda i: (prompts[i].padded, len(prompts[i].keys), prompts[i].prefix))
            yield from self._run(self._holding.head(self._params, head), prompts, members)

    def _groups(self, requests: Sequence[Request]) -> list[tuple[np.ndarray | None, list[int]]]:
        """Requests of one head and of about as many samples; all of these are drawn without a pause between them."""
        found: dict[tuple[bytes, int], list[int]] = {}
        for i, request in enumerate(requests):
            head = request.ids[: request.head] if request.head >= _HEAD else request.ids[:0]
            found.setdefault((head.tobytes(), (len(request.keys) - 1).bit_length() // 2), []).append(i)
        return [(np.frombuffer(head, np.int32) if head else None, members) for (head, _), members in found.items()]

    def _shape(self, counts: Sequence[int], length: int) -> _Shape:
        """For requests of so many samples, with prompts padded to at most `length`."""
        parts = self._layout.parts
        upto = lambda n: 1 << (n - 1).bit_length()  # noqa: E731 - few shapes
        rows = parts * max(1, min(self.rows, upto(sum(counts))) // parts)
        cells = min(max(counts), rows // parts)
        # Twice the prompts that would fill the rows: of most that are held, some samples have ended.
        wanted = -(-2 * rows * len(counts) // sum(counts))
        wanted = min(wanted, len(counts), max(1, _HELD_TOKENS // length))
        return _Shape(rows, parts * -(-wanted // parts), cells)

    def _run(
        self, head: CacheSegment | None, wanted: Mapping[int, OwnPart], members: Sequence[int]
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Draws all samples of some requests with one head, none of them longer than the last."""
        longest = wanted[members[-1]].padded
        shape = self._shape([len(wanted[i].keys) for i in members], longest)
        schedule = Schedule(parts=self._layout.parts, rows=shape.rows, places=shape.places, cells=shape.cells)
        queue = deque((i, len(wanted[i].keys)) for i in members)
        found: dict[int, dict[int, Completion]] = {}
        keys = np.zeros((shape.rows, 2), np.uint32)
        begun = np.zeros(shape.rows, np.int64)  # the step at which a row's sample began
        size = _capacity(wanted[members[0]].padded, longest)
        with self._layout.active():
            prompts, rows = self._holding.empty(shape.places, size), self._take_rows(shape.rows)
        steps = int(fetch(rows.steps))
        while queue or found:
            admitted = schedule.admit(queue)
            found |= {i: {} for _, i in admitted}
            fresh = np.zeros(shape.rows, bool)
            for row, work in schedule.assign():
                fresh[row], begun[row], keys[row] = True, steps, wanted[work.request].keys[work.sample]
            busy = schedule.busy()
            patience = -(-shape.rows // _PATIENCE) if queue or schedule.has_waiting() else len(busy)
            with self._layout.active():  # not while others have the samples that are yielded
                needed = _capacity(max([wanted[i].padded for _, i in admitted], default=size), longest)
                if needed > size:
                    prompts, size = self._holding.wider(prompts, needed), needed
                prompts = self._holding.hold(self._params, prompts, head, [(place, wanted[i]) for place, i in admitted])
                rows, drawn = self._advance(prompts, head, rows, keys, fresh, schedule, patience)
            self.usage.add_steps(int(drawn.steps) - steps, shape.rows)
            steps = int(drawn.steps)
            ended = [(row, work) for row, work in busy if not drawn.running[row]]
            for row, work in ended:
                found[work.request][work.sample] = self._completion(drawn, row, int(begun[row]))
            schedule.release([row for row, _ in ended])
            for i in sorted({work.request for _, work in ended}):
                if len(found[i]) == len(wanted[i].keys):
                    samples = found.pop(i)
                    yield i, [samples[j] for j in range(len(samples))]
        self._rows = rows

    def _advance(
        self,
        prompts: Prompts,
        head: CacheSegment | None,
        rows: Rows,
        keys: np.ndarray,
        fresh: np.ndarray,
        schedule: Schedule,
        patience: int,
    ) -> tuple[Rows, Drawn]:
        grid, places = schedule.grid()
        inputs: Any = (keys, fresh, grid, places)
        placed_keys, placed_fresh, grid, places = self._layout.place(inputs)
        sharing = Sharing(rows=grid, places=places)
        rows, drawn = self._decode(
            self._params, prompts, rows, placed_keys, placed_fresh, sharing, np.int32(patience), head
        )
        P, length = prompts.segment.tokens.positions.shape
        self.compilations.add(("decode", len(keys), P, schedule.cells, length, head_length(head)))
        return rows, fetch(drawn)

    def _completion(self, drawn: Drawn, row: int, start: int) -> Completion:
        """The sample of a row, out of its ring."""
        length, N = int(drawn.lengths[row]), self._max_new
        places = (start + np.arange(length)) % N
        self.usage.tokens += length
        tokens, logprobs = np.asarray(drawn.tokens), np.asarray(drawn.logprobs)  # as they were fetched
        return Completion(tokens[row, places], logprobs[row, places], bool(drawn.stopped[row]))

    def _take_rows(self, rows: int) -> Rows:
        """The last ones when there are as many (they are donated to the next loop), else new ones."""
        last, self._rows = self._rows, None
        if last is None or last.last.shape[0] != rows:
            return cast(Rows, self._holding.made(empty_rows, rows, self._max_new))
        return last


def _capacity(length: int, longest: int) -> int:
    """The room for each prompt that is held: the longest's, or a quarter of it, or a quarter of that, ...; few shapes."""
    size = longest
    while size % 4 == 0 and size // 4 >= length:
        size //= 4
    return size


def _own_parts(requests: Mapping[int, Request], head: int, alike: bool) -> dict[int, OwnPart]:
    """What comes after the head; `alike` all as long as the longest, and none with a prefix of its own."""
    prefixes = {i: request.ids[head : request.prefix] for i, request in requests.items()}
    count = Counter(prefix.tobytes() for prefix in prefixes.values())
    pays = {i: not alike and len(prefix) >= _PREFIX and count[prefix.tobytes()] > 1 for i, prefix in prefixes.items()}
    least = max(bucket(len(request.ids) - head) for request in requests.values()) if alike else 0
    return {
        i: OwnPart(request.ids[head:], len(prefixes[i]) if pays[i] else 0, least, request.keys)
        for i, request in requests.items()
    }
