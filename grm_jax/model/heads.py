"""Heads: functions of the model's hidden states.

Letters: B batch, T positions, D model width, V vocabulary.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from grm_jax.model.config import Gemma2Config
from grm_jax.model.layers import soft_cap


def next_token_logits(hidden: jax.Array, embedding: jax.Array, config: Gemma2Config) -> jax.Array:
    """Logits of the next token: hidden [..., D], embedding [V, D] -> float32 [..., V], after the final soft cap."""
    embedding = embedding.astype(hidden.dtype)
    logits = jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)
    return soft_cap(logits, config.final_soft_cap)


def token_logprobs(
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, config: Gemma2Config, *, chunk: int = 256
) -> jax.Array:
    """Log-probabilities of given tokens, without ever holding [B, T, V].

    Positions are taken `chunk` at a time; each chunk's logits are recomputed in the backward pass.

    Args:
        hidden: [B, T, D]; position t predicts targets[:, t].
        embedding: [V, D].
        targets: [B, T] int32.
        config: for the final soft cap.
        chunk: positions whose logits are held at once.

    Returns:
        float32 [B, T].
    """

    @jax.checkpoint
    def logprobs(hidden: jax.Array, targets: jax.Array) -> jax.Array:
        logits = next_token_logits(hidden, embedding, config)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    B, T, D = hidden.shape
    if chunk >= T:
        return logprobs(hidden, targets)
    pad = -T % chunk
    hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(B, -1, chunk, D).swapaxes(0, 1)
    targets = jnp.pad(targets, ((0, 0), (0, pad))).reshape(B, -1, chunk).swapaxes(0, 1)
    chunks = jax.lax.map(lambda xs: logprobs(*xs), (hidden, targets))
    return chunks.swapaxes(0, 1).reshape(B, T + pad)[:, :T]


def scalar_head(hidden: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
    """One logit a position in float32: hidden [..., D], params {"w": [D], "b": []} -> [...]."""
    w, b = params["w"].astype(jnp.float32), params["b"].astype(jnp.float32)
    return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), w) + b
