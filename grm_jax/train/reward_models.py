"""Scalar reward models that learn from preferences: BTRM, PairRM and CLoud, which differ in what they read alone.

    BTRM     a prompt with one response             margin = r(chosen) - r(rejected)       (Bradley-Terry; Eq 4 of arXiv 2504.02495)
    CLoud    the same, and a critique of it         margin = r(chosen) - r(rejected)       (arXiv 2408.11791)
    PairRM   a prompt with two responses            margin = +S if the first is better, -S if the second is    (Eq 5)

Each is the trunk with a scalar head; loss = sum of -log sigmoid(margin) / number of margins. Letters: P preferences, M sequences a
preference (2 for a chosen and a rejected one, 1 for a pair), S prompt positions, T critique positions.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import critique_logits
from grm_jax.model.gemma2 import Gemma2
from grm_jax.train.loop import BatchSource, fit, training_model
from grm_jax.train.losses import bradley_terry
from grm_jax.train.placement import placement
from grm_jax.train.step import Batch, LossTerms, Params
from grm_jax.train.training import Training


@dataclasses.dataclass(frozen=True)
class RewardModel(Training):
    """Settings of a scalar reward model's training, beside those of `Training`.

    Attributes:
        preferences: a batch (P); a multiple of `accumulate`.
    """

    learning_rate: float = 1e-5
    preferences: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("must be at least 1", lambda x: x >= 1, "preferences")
        rule = f"must be a multiple of accumulate = {self.accumulate}"
        self._require(rule, lambda x: not x % self.accumulate, "preferences")


def sequence_rewards(model: Gemma2, params: Params, batch: Batch) -> jax.Array:
    """Rewards float32 [P, M] of the sequences of a batch (`preference_loss`)."""
    P, M, S = batch["prompt_tokens"].shape
    flat = {
        "prompt_tokens": jnp.reshape(batch["prompt_tokens"], (P * M, S)),
        "prompt_lengths": jnp.reshape(batch["prompt_lengths"], (P * M,)),
        "tokens": jnp.reshape(batch["tokens"], (P * M, 1, -1)),
        "lengths": jnp.reshape(batch["lengths"], (P * M, 1)),
    }
    return critique_logits(model, params, flat).reshape(P, M)


def preference_loss(model: Gemma2, params: Params, batch: Batch) -> LossTerms:
    """-log sigmoid of the margins, in nats.

    Args:
        model: the module.
        params: its parameters and `scalar_head`.
        batch: prompt_tokens int32 [P, M, S], prompt_lengths int32 [P, M]; tokens int32 [P, M, T] of what follows the prompt, at
            least its end of turn, lengths int32 [P, M]; signs float32 [P, M]: a margin is the sum of sign times reward.

    Returns:
        The sum over margins and their number; metrics accuracy (margins above 0) and margin (their mean).
    """
    margins = jnp.sum(jnp.asarray(batch["signs"]) * sequence_rewards(model, params, batch), axis=1)
    count = jnp.float32(margins.shape[0])
    return LossTerms(
        jnp.sum(bradley_terry(margins)), count,
        {"accuracy": (jnp.sum(margins > 0, dtype=jnp.float32), count), "margin": (jnp.sum(margins), count)},
    )  # fmt: skip


def train_reward_model(
    config: Gemma2Config,
    params: Params,
    source: BatchSource,
    settings: RewardModel,
    folder: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
) -> Params:
    """`fit` with the loss above; `params` holds `scalar_head` beside the trunk, and so do those returned."""
    loss = functools.partial(preference_loss, training_model(config, settings))
    return fit(params, loss, settings, source, folder, progress=progress, placement=placement(config))
