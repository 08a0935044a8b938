"""Batches prompts of any number and length through a few static shapes.

A prompt's padded length depends on its own length alone, so the arithmetic behind a sample hardly depends on its company.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import CacheSegment, logical_axes, native, unroll
from grm_jax.parallel.layout import fetch, layouts
from grm_jax.sampling.decode import decode, empty_segment, prefill, segment_axes
from grm_jax.sampling.policy import SamplingPolicy

_PREFILL_TOKENS = 8192  # computed at once, at most, unless one prompt alone is longer


@dataclasses.dataclass(frozen=True)
class Request:
    """One distinct prompt and the samples wanted of it.

    Attributes:
        ids: the prompt, int32 [T].
        keys: raw key data of each sample, uint32 [k, 2] (`grm_jax.keys.stream_key`).
    """

    ids: np.ndarray
    keys: np.ndarray


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample: its tokens int32 [t] (the stop token included), their log-probabilities float32 [t] under the model itself
    (temperature 1, no filter), and whether a stop token ended it."""

    ids: np.ndarray
    logprobs: np.ndarray
    stopped: bool


def bucket(length: int) -> int:
    """The padded length of a prompt: the next of 32, 48, 64, 96, 128, 192, ..."""
    size = 32
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


class Sampler:
    """Samples completions from one model under one policy.

    Attributes:
        rows: how many samples are decoded together, at most.
        compilations: (prompts, padded length, samples a prompt) of each shape that was compiled.
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
    ):
        """Prepares a sampler on the run's decoding layout (`parallel.layout`).

        Args:
            config: the model's shape.
            params: stacked parameters, or those of an unrolled model, numpy or jax, of the type to compute in.
            policy: how tokens are drawn.
            max_new: tokens a sample, at most.
            stop_ids: tokens that end a sample.
            rows: how many samples are decoded together, at most.
        """
        self._layout = layout = layouts().decode
        self._model = model = native(config)
        form = unroll if model.unrolled else lambda params: params
        like = jax.eval_shape(form, params)
        self._dtypes = jax.tree.map(lambda x: x.dtype, like)
        self._places = layout.tree(logical_axes(config, unrolled=model.unrolled), like) if layout.mesh else None
        self._formed = jax.jit(
            lambda params: jax.tree.map(lambda x, dtype: x.astype(dtype), form(params), self._dtypes)
        )
        self.load(params)
        self._max_new, self.rows = max_new, rows
        self._dtype = self._dtypes["embedding"]
        self._prefill = jax.jit(functools.partial(prefill, model))
        self._decode = jax.jit(
            functools.partial(decode, model, policy=policy, stop_ids=tuple(sorted(stop_ids))), donate_argnames="cache"
        )
        self._cache: CacheSegment | None = None
        self.compilations: set[tuple[int, int, int]] = set()

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
        self._params = jax.device_put(params if as_they_are else self._formed(params), self._places)

    def sample(self, requests: Sequence[Request], length: int = 0) -> Iterator[tuple[int, list[Completion]]]:
        """Samples every request; yields (index of the request, its completions), batch by batch, long prompts last.

        Args:
            requests: prompts and keys.
            length: prompts are padded to this at least, so that one shape serves prompts of several lengths.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((max(length, bucket(len(request.ids))), len(request.keys)), []).append(i)
        for (length, k), members in sorted(groups.items()):
            size = max(self._layout.parts, min(self.rows // k, _PREFILL_TOKENS // length))
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                yield from zip(batch, self._run([requests[i] for i in batch], length, k), strict=True)

    def _run(self, batch: Sequence[Request], length: int, k: int) -> list[list[Completion]]:
        B = 1 << (len(batch) - 1).bit_length()  # few shapes: the number of prompts is padded to a power of two
        B += -B % self._layout.parts
        self.compilations.add((B, length, k))
        tokens = np.zeros((B, length), np.int32)
        lengths = np.ones(B, np.int32)
        keys = np.zeros((B, k, 2), np.uint32)
        active = np.zeros((B, k), bool)
        for row, request in enumerate(batch):
            tokens[row, : len(request.ids)] = request.ids
            lengths[row] = len(request.ids)
            keys[row] = request.keys
            active[row] = True
        inputs: Any = (tokens, lengths, keys.reshape(-1, 2), active.reshape(-1))
        tokens, lengths, row_keys, row_active = self._layout.place(inputs)
        with self._layout.active():
            prompts = self._prefill(self._params, tokens, lengths)
            cache = self._take_cache(B * k)
            out, self._cache = self._decode(self._params, prompts, cache, row_keys, row_active)
        out = fetch(out)
        return [
            [
                Completion(out.tokens[r, : out.lengths[r]], out.logprobs[r, : out.lengths[r]], bool(out.stopped[r]))
                for r in range(row * k, (row + 1) * k)
            ]
            for row in range(len(batch))
        ]

    def _take_cache(self, rows: int) -> CacheSegment:
        """The last batch's cache when it has the right shape (it is donated to the next), else a new one."""
        cache, self._cache = self._cache, None
        if cache is None or cache.tokens.segments.shape[0] != rows:
            make = functools.partial(empty_segment, self._model, rows, self._max_new, self._dtype)
            if self._layout.mesh is None:
                return make()
            like = jax.eval_shape(make)
            return jax.jit(make, out_shardings=self._layout.tree(segment_axes(like), like))()
        return cache
