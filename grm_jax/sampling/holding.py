"""Prompts on the device: heads and what comes after them, computed and put where they are held."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from grm_jax.model.gemma2 import CacheSegment, Gemma2
from grm_jax.parallel.layout import Layout
from grm_jax.sampling.prefill import (
    Params,
    Prompts,
    compute_head,
    empty_prompts,
    grow,
    head_length,
    prefill,
    prefill_after,
    put,
)
from grm_jax.sampling.segments import empty_segment, keys_by_column, names_of_axes

_PREFILL_TOKENS = 8192  # computed at once, at most, unless one prompt alone is longer
_TOGETHER = 8  # prompts are computed so many at once, or one by one, after prefixes two by two: few shapes


@dataclasses.dataclass
class Usage:
    """What sampling has cost so far.

    Attributes:
        steps: decode steps.
        row_steps: those of all rows, busy or waiting.
        tokens: drawn, and so of use.
        prompts: computed.
        prefixes: of prompts, computed for several of them.
        calls: of the decode loop.
    """

    steps: int = 0
    row_steps: int = 0
    tokens: int = 0
    prompts: int = 0
    prefixes: int = 0
    calls: int = 0

    def add_steps(self, steps: int, rows: int) -> None:
        """A call of the loop."""
        self.steps, self.row_steps, self.calls = self.steps + steps, self.row_steps + steps * rows, self.calls + 1


def bucket(length: int) -> int:
    """The padded length of a prompt: the next of 32, 48, 64, 96, 128, 192, ..."""
    size = 32
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


@dataclasses.dataclass(frozen=True)
class OwnPart:
    """A request's own part of its prompt, after the head.

    Attributes:
        ids: int32.
        shared: how many leading ids are computed once for all requests that begin with them; 0 if none are.
        least: the padded length, at least.
        keys: of its samples.
    """

    ids: np.ndarray
    shared: int
    least: int
    keys: np.ndarray

    @property
    def prefix(self) -> bytes:
        """What is shared."""
        return self.ids[: self.shared].tobytes()

    @property
    def padded(self) -> int:
        """Room that it takes."""
        return sum(self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Padded lengths of what is shared and of the rest."""
        rest = bucket(len(self.ids) - self.shared)
        return (bucket(self.shared), rest) if self.shared else (0, max(rest, self.least))


class Holding:
    """Computes prompts of one model on one layout."""

    def __init__(
        self,
        model: Gemma2,
        layout: Layout,
        dtype: jnp.dtype,
        usage: Usage,
        compilations: set[tuple[str | int, ...]],
        int8: bool,
    ):
        """Prepares, for keys and values in 8 bits or not; `usage` and `compilations` are the sampler's, and are added to."""
        self._model, self._layout, self._dtype = model, layout, dtype
        self._kept: dict[str, Any] = {"by_column": keys_by_column(layout.backend), "int8": int8}
        self._usage, self._compilations = usage, compilations
        self._heads: dict[bytes, CacheSegment] = {}
        compute = functools.partial(compute_head, model, **self._kept)
        self._compute_head = jax.jit(compute, out_shardings=self._head_places())
        self._prefill = jax.jit(functools.partial(prefill, model))
        self._prefill_after = jax.jit(functools.partial(prefill_after, model))
        self._put = jax.jit(put, donate_argnames="held")
        self._grow = jax.jit(grow, static_argnames="size")

    def forget(self) -> None:
        """The parameters are about to change: heads will be computed anew."""
        self._heads = {}

    def empty(self, count: int, size: int) -> Prompts:
        """Room for prompts of up to `size` tokens."""
        return cast(Prompts, self.made(empty_prompts, count, size))

    def made(self, empty: Callable[..., Any], count: int, size: int) -> Any:
        """Empty prompts or rows, made where they live, as the layout's backend wants them."""
        make = functools.partial(empty, self._model, count, size, self._dtype, **self._kept)
        if self._layout.mesh is None:
            return make()
        like = jax.eval_shape(make)
        return jax.jit(make, out_shardings=self._layout.tree(names_of_axes(like), like))()

    def wider(self, prompts: Prompts, size: int) -> Prompts:
        """The same prompts with more room."""
        return cast(Prompts, self._grow(prompts, size=size))

    def head(self, params: Params, ids: np.ndarray | None) -> CacheSegment | None:
        """A head, computed once until `forget`."""
        if ids is None:
            return None
        key = ids.tobytes()
        if key not in self._heads:
            with self._layout.active():
                tokens = self._layout.place({"tokens": np.tile(ids, (self._layout.parts, 1))})["tokens"]
                self._heads[key] = self._compute_head(params, tokens)
            self._compilations.add(("head", len(ids)))
        return self._heads[key]

    def hold(
        self, params: Params, prompts: Prompts, head: CacheSegment | None, admitted: Sequence[tuple[int, OwnPart]]
    ) -> Prompts:
        """Computes prompts after their head, and puts them in the places that are given with them."""
        parts = self._layout.parts
        each = prompts.lengths.shape[0] // parts
        by_shape: dict[tuple[int, int], list[list[tuple[int, OwnPart]]]] = {}
        for place, prompt in admitted:
            part, within = divmod(place, each)
            by_shape.setdefault(prompt.shape, [[] for _ in range(parts)])[part].append((within, prompt))
        for shape, of_part in sorted(by_shape.items()):
            while left := max(map(len, of_part)):
                many = left > _TOGETHER // 2 and _TOGETHER * parts * sum(shape) <= _PREFILL_TOKENS
                size = _TOGETHER if many else 2 if shape[0] and left > 1 else 1
                prompts = self._compute(params, prompts, head, [those[:size] for those in of_part], size, shape)
                of_part = [those[size:] for those in of_part]
        return prompts

    def _compute(
        self,
        params: Params,
        prompts: Prompts,
        head: CacheSegment | None,
        of_part: Sequence[Sequence[tuple[int, OwnPart]]],
        size: int,
        shape: tuple[int, int],
    ) -> Prompts:
        """Computes up to `size` prompts of one shape for each part, given with their places in it."""
        places = np.full((len(of_part), size), -1, np.int32)
        for part, those in enumerate(of_part):
            places[part, : len(those)] = [place for place, _ in those]
        rests = [[prompt.ids[prompt.shared :] for _, prompt in those] for those in of_part]
        self._usage.prompts += sum(map(len, of_part))
        tokens, lengths, placed = self._layout.place((*_padded(rests, size, shape[1]), places))
        if not shape[0]:
            self._compilations.add(("prefill", places.size, shape[1], head_length(head)))
            return self._put(prompts, self._prefill(params, tokens, lengths, head), placed)
        begun = [{prompt.prefix: prompt.ids[: prompt.shared] for _, prompt in those} for those in of_part]
        firsts = [list(those.values()) for those in begun]
        which = np.zeros_like(places)
        for part, those in enumerate(of_part):
            which[part, : len(those)] = [list(begun[part]).index(prompt.prefix) for _, prompt in those]
        few = 1 << (max(map(len, firsts)) - 1).bit_length()
        first_tokens, first_lengths, which = self._layout.place((*_padded(firsts, few, shape[0]), which))
        self._compilations.add(("prefill", first_lengths.size, shape[0], head_length(head)))
        self._compilations.add(("prefill after", places.size, *shape, first_lengths.size, head_length(head)))
        self._usage.prefixes += sum(map(len, firsts))
        first = self._prefill(params, first_tokens, first_lengths, head)
        return self._put(prompts, self._prefill_after(params, tokens, lengths, first, which, head), placed)

    def _head_places(self) -> Any:
        """Where a head lives: whole on every part of the batch."""
        if self._layout.mesh is None:
            return None
        like = jax.eval_shape(functools.partial(empty_segment, self._model, 1, 1, self._dtype, **self._kept))
        return self._layout.tree(names_of_axes(like, None), like)


def _padded(of_part: Sequence[Sequence[np.ndarray]], size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of up to `size` prompts of each part, zeros behind: int32 [A * size, length]; and their lengths, 1 of those that lack."""
    tokens, lengths = np.zeros((len(of_part), size, length), np.int32), np.ones((len(of_part), size), np.int32)
    for part, those in enumerate(of_part):
        for j, ids in enumerate(those):
            tokens[part, j, : len(ids)], lengths[part, j] = ids, len(ids)
    return tokens.reshape(-1, length), lengths.reshape(-1)
