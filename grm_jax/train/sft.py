"""Supervised fine-tuning: next-token training on critiques."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from grm_jax.model.config import Gemma2Config
from grm_jax.train.loop import BatchSource, fit, training_model
from grm_jax.train.losses import sft_loss
from grm_jax.train.placement import placement
from grm_jax.train.speed import packed_work
from grm_jax.train.step import Params
from grm_jax.train.training import Training


@dataclasses.dataclass(frozen=True)
class Sft(Training):
    """Settings of a supervised run, beside those of `Training`.

    Attributes:
        rows: rows a batch (B); a multiple of `accumulate`.
        length: tokens a row (T); examples are packed into rows.
        skip_long: leave out examples that no row can hold, and count them, instead of stopping at the first.
    """

    rows: int = 32
    length: int = 256
    skip_long: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("must be at least 1", lambda x: x >= 1, "rows", "length")
        self._require(
            f"must be a multiple of accumulate = {self.accumulate}", lambda x: not x % self.accumulate, "rows"
        )


def train_sft(
    config: Gemma2Config,
    params: Params,
    source: BatchSource,
    sft: Sft,
    folder: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
    export: Callable[[int, Params], None] | None = None,
) -> Params:
    """`fit` with the supervised loss; `source` gives packed batches (`data.packing`) of `sft.rows` rows of `sft.length` tokens."""
    loss = functools.partial(sft_loss, training_model(config, sft))
    return fit(
        params, loss, sft, source, folder, progress=progress, export=export, placement=placement(config),
        work=lambda batch: packed_work(config, batch["positions"], batch["segments"]),
    )  # fmt: skip
