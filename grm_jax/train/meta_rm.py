"""The meta reward model: from a critique to the probability that it is right (section 4 of arXiv 2504.02495).

Letters: P prompts, G critiques a prompt, S prompt positions, T critique positions.
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
from grm_jax.train.placement import placement
from grm_jax.train.step import Batch, LossTerms, Params
from grm_jax.train.training import Training


@dataclasses.dataclass(frozen=True)
class MetaRm(Training):
    """Settings of the meta reward model's training, beside those of `Training`.

    Attributes:
        prompts: prompts a batch (P), a prompt being an item with its responses in one order; a multiple of `accumulate`.
        group: critiques a prompt, at most (G); what a prompt has beyond that is another row.
        unreadable: learn from critiques without readable scores too. They never vote, and are wrong by definition.
    """

    learning_rate: float = 1e-5
    prompts: int = 64
    group: int = 8
    unreadable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("must be at least 1", lambda x: x >= 1, "prompts", "group")
        rule = f"must be a multiple of accumulate = {self.accumulate}"
        self._require(rule, lambda x: not x % self.accumulate, "prompts")


def meta_loss(model: Gemma2, params: Params, batch: Batch) -> LossTerms:
    """Binary cross-entropy of the labels given the logits, in nats; the labels are those of Eq 10 of arXiv 2504.02495.

    Args:
        model: the module.
        params: its parameters and `scalar_head`.
        batch: what `critique_logits` reads; labels float32 [P, G], 1 for a critique that is right, 0 for one that is not;
            mask float32 [P, G], 0 where there is no critique.

    Returns:
        The sum over critiques and their number; metrics accuracy (of the sign of the logit) and right (share of 1 labels).
    """
    logits = critique_logits(model, params, batch)
    labels, mask = jnp.asarray(batch["labels"]), jnp.asarray(batch["mask"])
    losses = jax.nn.softplus(logits) - labels * logits
    count = jnp.sum(mask)
    hits = jnp.sum(mask * ((logits > 0) == (labels > 0.5)))
    return LossTerms(
        jnp.sum(mask * losses), count, {"accuracy": (hits, count), "right": (jnp.sum(mask * labels), count)}
    )


def train_meta_rm(
    config: Gemma2Config,
    params: Params,
    source: BatchSource,
    meta_rm: MetaRm,
    folder: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
    export: Callable[[int, Params], None] | None = None,
) -> Params:
    """`fit` with the loss above; `params` holds `scalar_head` beside the trunk, and so do those returned."""
    loss = functools.partial(meta_loss, training_model(config, meta_rm))
    return fit(params, loss, meta_rm, source, folder, progress=progress, export=export, placement=placement(config))
