"""Losses: functions of the model's parameters and a batch that return a sum and the denominator it belongs to."""

import jax
import jax.numpy as jnp

from grm_jax.model.gemma2 import Gemma2, forward
from grm_jax.model.heads import token_logprobs
from grm_jax.train.step import Batch, LossTerms, Params


def sft_loss(model: Gemma2, params: Params, batch: Batch) -> LossTerms:
    """Negative log-likelihood of the weighted target tokens, in nats.

    Args:
        model: the module.
        params: its parameters.
        batch: tokens, targets, positions, segments int32 [B, T]; weights float32 [B, T], 0 on targets not to be learnt.

    Returns:
        The weighted sum over the sum of weights.
    """
    hidden, _ = forward(model, params, batch["tokens"], batch["positions"], batch["segments"])
    logprobs = token_logprobs(hidden, params["embedding"], batch["targets"], model.config)
    return LossTerms(-jnp.sum(logprobs * batch["weights"]), jnp.sum(batch["weights"]))


def bradley_terry(margins: jax.Array) -> jax.Array:
    """-log sigmoid(margin), in nats: of preferring what is better, by how much it is rewarded above what is worse."""
    return jax.nn.softplus(-margins)
