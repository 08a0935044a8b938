"""GRPO on a judge: settings, the loss of a batch of rollouts, and its training (section 3.2.2 of arXiv 2504.02495).

Letters: P prompts, G rollouts a prompt, S prompt positions, T rollout positions (both padded on the right), D model width.

A batch of rollouts holds

    prompt_tokens         int32   [P, S]     prompt_lengths  int32 [P], at least 1
    tokens                int32   [P, G, T]  what was sampled, the stop token included
    mask                  float32 [P, G, T]  1 for tokens that are learnt from
    advantages            float32 [P, G]
    sampler_logprobs      float32 [P, G, T]  of the sampler, at temperature 1
    reference_logprobs    float32 [P, G, T]  of the reference; absent when there is none
    old_logprobs          float32 [P, G, T]  of the policy that sampled, as the trainer computes them; absent when the batch
    old_plain             float32 [P, G, T]    is learnt from once; the second at temperature 1
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from grm_jax.model.config import Gemma2Config
from grm_jax.model.continuation import continue_hidden
from grm_jax.model.gemma2 import Gemma2
from grm_jax.model.heads import TokenStatistics, token_statistics
from grm_jax.parallel.layout import fetch, layouts
from grm_jax.train.advantages import NORMALISATIONS
from grm_jax.train.loop import BatchSource, fit, training_model
from grm_jax.train.placement import placement
from grm_jax.train.policy_loss import LEVELS, REDUCTIONS, Objective, policy_loss
from grm_jax.train.speed import Work, training_flops
from grm_jax.train.step import Batch, LossTerms, Params
from grm_jax.train.training import Training

TRUNCATED = ("wrong", "masked")
_ROWS = 2048  # of logits [V] that a device holds at once


@dataclasses.dataclass(frozen=True)
class Grpo(Training):
    """Settings of GRPO, beside those of `Training`.

    Attributes:
        prompts: prompts a batch, P; a multiple of `accumulate`.
        group: rollouts a prompt, G.
        kl_coefficient: beta. The paper's 0.08 is that of its 27B model; its 16B model has 0.002.
        clip_low: the ratio of policies is clipped below 1 - clip_low,
        clip_high: and above 1 + clip_high.
        reduction: "grpo", "dapo" or "dr_grpo" (`policy_loss.Objective`).
        level: of the ratio, "token" or "sequence".
        normalisation: of advantages, "std" or "none" (`advantages.group_advantages`).
        updates: optimizer steps on each batch of rollouts.
        temperature: of the rollouts, and of the policy that is trained.
        max_new: tokens a rollout, at most; 0 is the judge's own default.
        truncated: what a rollout is that was cut off at `max_new`: "wrong", learnt from with the reward -1, or "masked",
            neither learnt from nor counted in its group.
        rows: rollouts decoded together.
        format_reward: added to the reward of a critique whose scores can be read.
        consistency_reward: added, times the share of the rollouts of the same item in the reverse order that pick the same
            response. Each item is then two prompts of a batch.
        query_only_reward: added when the principles stated speak of the query alone (`spct.rewards.states_query_only`).
    """

    learning_rate: float = 4e-7
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.0
    save_every: int = 50
    log_every: int = 1
    prompts: int = 128
    group: int = 4
    kl_coefficient: float = 0.08
    clip_low: float = 0.2
    clip_high: float = 0.2
    reduction: str = "grpo"
    level: str = "token"
    normalisation: str = "std"
    updates: int = 1
    temperature: float = 1.0
    max_new: int = 0
    truncated: str = "wrong"
    rows: int = 64
    format_reward: float = 0.0
    consistency_reward: float = 0.0
    query_only_reward: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("must be at least 1", lambda x: x >= 1, "prompts", "updates", "rows")
        self._require("must be at least 2: a rollout is compared with others", lambda x: x >= 2, "group")
        rewards = ("format_reward", "consistency_reward", "query_only_reward")
        finite = ("kl_coefficient", *rewards)
        self._require("must be a finite number, not negative", lambda x: 0 <= x < math.inf, *finite, "max_new")
        self._require("must be above 0 and below 1", lambda x: 0 < x < 1, "clip_low")
        self._require("must be positive and finite", lambda x: 0 < x < math.inf, "clip_high", "temperature")
        for name, known in (
            ("reduction", REDUCTIONS), ("level", LEVELS), ("normalisation", NORMALISATIONS), ("truncated", TRUNCATED),
        ):  # fmt: skip
            self._require(f"must be one of {', '.join(known)}", known.__contains__, name)
        rule = f"must be a multiple of accumulate = {self.accumulate}"
        self._require(rule, lambda x: not x % self.accumulate, "prompts")
        if self.consistency_reward:
            self._require("must be even: consistency_reward shows each item twice", lambda x: not x % 2, "prompts")

    @property
    def objective(self) -> Objective:
        """What is minimised; for "dr_grpo" `max_new` must be known."""
        return Objective(
            self.kl_coefficient, self.clip_low, self.clip_high, self.reduction, self.level, length=self.max_new
        )


def rollout_statistics(model: Gemma2, params: Params, batch: Batch, temperature: float) -> TokenStatistics:
    """What a model says of the rollouts of a batch, [P, G, T] each; every prompt is computed once for its group."""
    tokens = jnp.asarray(batch["tokens"])
    hidden = continue_hidden(
        model, params, jnp.asarray(batch["prompt_tokens"]), jnp.asarray(batch["prompt_lengths"]), tokens
    )
    return token_statistics(hidden, params["embedding"], tokens, model.config, temperature=temperature, rows=_ROWS)


def grpo_loss(model: Gemma2, objective: Objective, temperature: float, params: Params, batch: Batch) -> LossTerms:
    """The loss of Eq 15 of arXiv 2504.02495, or what the objective makes of it.

    When the batch is learnt from once, the policy that sampled is the policy itself and the ratio exactly 1: its
    gradient is what counts.

    Args:
        model: the module.
        objective: settings of the loss.
        temperature: of the policy.
        params: the module's parameters.
        batch: rollouts, as above.

    Returns:
        As `policy_loss`; its metrics, and as means over tokens: entropy of the policy at its temperature in nats, and
        mismatch, |log-probability of the trainer - of the sampler| at temperature 1 with the parameters that sampled.
    """
    statistics = rollout_statistics(model, params, batch, temperature)
    constant: TokenStatistics = jax.lax.stop_gradient(statistics)
    mask = jnp.asarray(batch["mask"])
    terms = policy_loss(
        objective, statistics.logprobs, batch.get("old_logprobs", constant.logprobs), jnp.asarray(batch["advantages"]),
        mask, batch.get("reference_logprobs"),
    )  # fmt: skip
    count = jnp.sum(mask)
    difference = jnp.abs(batch.get("old_plain", constant.plain) - batch["sampler_logprobs"])
    means = {"entropy": constant.entropy, "mismatch": difference}
    sums = {name: (jnp.sum(jnp.where(mask > 0, x, 0.0)), count) for name, x in means.items()}
    return dataclasses.replace(terms, metrics=terms.metrics | sums)


Scorer = Callable[[Params, Batch], TokenStatistics]


def make_scorer(config: Gemma2Config, grpo: Grpo) -> Scorer:
    """Returns score(params, batch) -> numpy statistics [P, G, T], computed as the loss computes them, in the same parts."""
    model = training_model(config, grpo)
    part = jax.jit(functools.partial(rollout_statistics, model, temperature=grpo.temperature))
    names = ("prompt_tokens", "prompt_lengths", "tokens")
    layout = layouts().train

    def score(params: Params, batch: Batch) -> TokenStatistics:
        split = [np.split(np.asarray(batch[name]), grpo.accumulate) for name in names]
        batches = [dict(zip(names, xs, strict=True)) for xs in zip(*split, strict=True)]
        with layout.active():
            parts = [fetch(part(params, layout.place(each))) for each in batches]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    return score


def rollout_work(config: Gemma2Config, batch: Batch) -> Work:
    """Work of one update: each prompt with anything to learn once, and its rollouts. Sampling and the reference are not counted.

    A rollout of t tokens takes t - 1 of them through the layers, since the last predicts nothing, and t through the head.
    """
    lengths = np.asarray(batch["mask"]).sum(-1).astype(np.int64)  # [P, G]
    starts = np.asarray(batch["prompt_lengths"]).astype(np.int64)[:, None]
    ends = starts + np.maximum(lengths, 1) - 1
    used = lengths.any(-1, keepdims=True)

    def keys(window: int) -> int:
        return int(
            (_keys_seen(starts, window) * used).sum() + (_keys_seen(ends, window) - _keys_seen(starts, window)).sum()
        )

    tokens, through_head = int((starts * used).sum() + (ends - starts).sum()), int(lengths.sum())
    flops = training_flops(config, tokens, keys(config.window), keys(int(ends.max())))
    return Work(tokens, flops + 6.0 * config.vocab_size * config.model_dim * (through_head - tokens))


def _keys_seen(n: np.ndarray, window: int) -> np.ndarray:
    """Keys that the first n tokens see, each itself among them, in a layer of that window."""
    inside = np.minimum(n, window)
    return inside * (inside + 1) // 2 + (n - inside) * window


def train_grpo(
    config: Gemma2Config,
    params: Params,
    source: BatchSource,
    grpo: Grpo,
    folder: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
    export: Callable[[int, Params], None] | None = None,
) -> Params:
    """`fit` with the loss above; `source` gives batches of rollouts of `grpo.prompts` prompts."""
    loss = functools.partial(grpo_loss, training_model(config, grpo), grpo.objective, grpo.temperature)
    return fit(
        params, loss, grpo, source, folder, progress=progress, export=export, placement=placement(config),
        work=lambda batch: rollout_work(config, batch),
    )  # fmt: skip
