"""Losses. Each returns a sum and the denominator it belongs to, so that accumulating over parts of a batch is exact."""

from typing import Any

import jax
import jax.numpy as jnp

from grm_jax.model.gemma2 import Gemma2, forward
from grm_jax.model.heads import token_logprobs

Batch = dict[str, jax.Array]


def sft_loss(model: Gemma2, params: dict[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of the weighted target tokens.

    Args:
        model: the module.
        params: its parameters.
        batch: tokens, targets, positions, segments int32 [B, T]; weights float32 [B, T], 0 on targets not to be learnt.

    Returns:
        The weighted sum in nats, and the sum of weights; both float32 scalars.
    """
    hidden, _ = forward(model, params, batch["tokens"], batch["positions"], batch["segments"])
    logprobs = token_logprobs(hidden, params["embedding"], batch["targets"], model.config)
    return -jnp.sum(logprobs * batch["weights"]), jnp.sum(batch["weights"])
