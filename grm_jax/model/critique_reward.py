"""A scalar reward for each critique: one logit, read at the last token of the critique.

The parameters are those of `Gemma2` and, beside them, `scalar_head`: {"w": [D], "b": []}.

Letters: P prompts, G critiques a prompt, S prompt positions (padded), T critique positions (padded), D model width.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from grm_jax.model.config import Gemma2Config
from grm_jax.model.continuation import last_hidden
from grm_jax.model.gemma2 import Gemma2, logical_axes
from grm_jax.model.heads import scalar_head

HEAD = "scalar_head"


def zero_head(config: Gemma2Config) -> dict[str, np.ndarray]:
    """Returns a float32 head that gives every critique the logit 0, the probability one half."""
    return {"w": np.zeros(config.model_dim, np.float32), "b": np.zeros((), np.float32)}


def parameter_axes(config: Gemma2Config, params: Mapping[str, Any]) -> dict[str, Any]:
    """`logical_axes` of these parameters, which may have a scalar head beside the trunk; the head is not divided."""
    head = {"w": PartitionSpec(None), "b": PartitionSpec()}
    axes = logical_axes(config, unrolled="layers" not in params) | {HEAD: head}
    return {name: axes[name] for name in params}


def critique_logits(model: Gemma2, params: dict[str, Any], batch: Mapping[str, Any]) -> jax.Array:
    """Logits of critiques. Pure and differentiable; each prompt is computed once for its G critiques.

    Args:
        model: the module, stacked or unrolled as `params` are.
        params: its parameters and `scalar_head`.
        batch: prompt_tokens int32 [P, S], prompt_lengths int32 [P]; tokens int32 [P, G, T], each critique closed by its end of
            turn; lengths int32 [P, G]. Padding is on the right and may hold any token.

    Returns:
        float32 [P, G]; nothing to be used where there is no critique.
    """
    hidden = last_hidden(
        model, params, jnp.asarray(batch["prompt_tokens"]), jnp.asarray(batch["prompt_lengths"]),
        jnp.asarray(batch["tokens"]), jnp.asarray(batch["lengths"]),
    )  # fmt: skip
    return scalar_head(hidden, params[HEAD])
