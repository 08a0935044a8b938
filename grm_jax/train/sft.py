"""Supervised fine-tuning: next-token training on critiques."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import Gemma2
from grm_jax.train.losses import sft_loss
from grm_jax.train.step import TrainState, init_state, make_step


@dataclasses.dataclass(frozen=True)
class Sft:
    """Settings of a supervised run.

    Attributes:
        steps: updates.
        rows: rows a batch (B).
        length: tokens a row (T); examples are packed into rows.
        learning_rate: peak of AdamW's rate, reached after `warmup` steps; a cosine then falls to `final_fraction`.
        warmup: steps.
        final_fraction: of the peak, at the last step.
        weight_decay: of matrices; norms are left out.
        beta2: AdamW's second-moment decay.
        clip: gradients are scaled down to this global norm.
        seed: of the initial parameters.
        save_every: the model is saved after each so many steps; 0 saves at the end only.
    """

    steps: int
    rows: int = 32
    length: int = 256
    learning_rate: float = 2e-3
    warmup: int = 100
    final_fraction: float = 0.02
    weight_decay: float = 0.1
    beta2: float = 0.98
    clip: float = 1.0
    seed: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "length"):
            if getattr(self, name) < 1:
                raise UserError(f"Sft.{name} must be at least 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise UserError(f"Sft.learning_rate must be positive, not {self.learning_rate}")


def make_optimizer(sft: Sft) -> optax.GradientTransformation:
    """AdamW with warm-up, cosine decay and gradient clipping."""
    warmup = min(sft.warmup, max(sft.steps - 1, 0))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, sft.learning_rate, warmup, max(sft.steps, warmup + 1), sft.learning_rate * sft.final_fraction
    )
    return optax.chain(
        optax.clip_by_global_norm(sft.clip),
        optax.adamw(
            schedule, b2=sft.beta2, weight_decay=sft.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in str(path[-1]), params),
        ),
    )  # fmt: skip


def train_sft(
    config: Gemma2Config, params: dict[str, Any], batches: Iterable[dict[str, np.ndarray]], sft: Sft
) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
    """Runs `sft.steps` updates; yields the state and metrics (loss in nats a token, gradient_norm, weight) after each.

    The yielded state is donated to the next step: copy what is to outlive it.
    """
    optimizer = make_optimizer(sft)
    step = make_step(functools.partial(sft_loss, Gemma2(config)), optimizer)
    state = init_state(params, optimizer)
    for _, batch in zip(range(sft.steps), batches, strict=False):
        state, metrics = step(state, batch)
        yield state, metrics
