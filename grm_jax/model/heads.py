"""Heads: functions of the model's hidden states.

Letters: B batch, T positions, D model width, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct

from grm_jax.model.config import Gemma2Config
from grm_jax.model.layers import soft_cap


def next_token_logits(hidden: jax.Array, embedding: jax.Array, config: Gemma2Config) -> jax.Array:
    """Logits of the next token: hidden [..., D], embedding [V, D] -> float32 [..., V], after the final soft cap."""
    embedding = embedding.astype(hidden.dtype)
    logits = jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)
    return soft_cap(logits, config.final_soft_cap)


@struct.dataclass
class TokenStatistics:
    """What a distribution over the vocabulary says of given tokens; float32 [..., T] each.

    Attributes:
        logprobs: log-probability of each token, with the logits divided by a temperature.
        plain: the same at temperature 1: of the model itself.
        entropy: of the distribution at the temperature, in nats; a constant to the gradient.
    """

    logprobs: jax.Array
    plain: jax.Array
    entropy: jax.Array


def token_logprobs(
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, config: Gemma2Config, *, chunk: int = 256
) -> jax.Array:
    """Log-probabilities of given tokens, without ever holding [..., T, V].

    Positions are taken `chunk` at a time; each chunk's logits are recomputed in the backward pass.

    Args:
        hidden: [..., T, D]; position t predicts targets[..., t].
        embedding: [V, D].
        targets: [..., T] int32.
        config: for the final soft cap.
        chunk: positions whose logits are held at once.

    Returns:
        float32 [..., T].
    """

    def logprobs(hidden: jax.Array, targets: jax.Array) -> jax.Array:
        return _chosen(next_token_logits(hidden, embedding, config), targets)

    return cast(jax.Array, _by_chunks(logprobs, hidden, targets, chunk))


def token_statistics(
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    config: Gemma2Config,
    *,
    temperature: float = 1.0,
    chunk: int = 256,
) -> TokenStatistics:
    """Log-probabilities and entropies under the policy that samples at a temperature; else as `token_logprobs`."""

    def statistics(hidden: jax.Array, targets: jax.Array) -> TokenStatistics:
        plain = next_token_logits(hidden, embedding, config)
        logits = plain if temperature == 1.0 else plain / temperature
        logprobs = _chosen(logits, targets)
        return TokenStatistics(
            logprobs=logprobs,
            plain=logprobs if temperature == 1.0 else _chosen(plain, targets),
            entropy=_entropy(jax.lax.stop_gradient(logits)),
        )

    return cast(TokenStatistics, _by_chunks(statistics, hidden, targets, chunk))


def _chosen(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Log-probabilities [...] of targets [...] under logits [..., V]."""
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def _entropy(logits: jax.Array) -> jax.Array:
    """Entropies [...] in nats of logits [..., V]."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jax.nn.softmax(logits, axis=-1) * logits, axis=-1)


def _by_chunks(
    function: Callable[[jax.Array, jax.Array], Any], hidden: jax.Array, targets: jax.Array, chunk: int
) -> Any:
    """Applies (hidden [..., t, D], targets [..., t]) -> tree of [..., t] to `chunk` positions at a time."""
    function = jax.checkpoint(function)
    *leading, T, D = hidden.shape
    if chunk >= T:
        return function(hidden, targets)
    pad = -T % chunk
    before = [(0, 0)] * len(leading)
    hidden = jnp.pad(hidden, (*before, (0, pad), (0, 0))).reshape(*leading, -1, chunk, D)
    targets = jnp.pad(targets, (*before, (0, pad))).reshape(*leading, -1, chunk)
    chunks = jax.lax.map(lambda xs: function(*xs), (jnp.moveaxis(hidden, -3, 0), jnp.moveaxis(targets, -2, 0)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*leading, T + pad)[..., :T], chunks)


def scalar_head(hidden: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
    """One logit a position in float32: hidden [..., D], params {"w": [D], "b": []} -> [...]."""
    w, b = params["w"].astype(jnp.float32), params["b"].astype(jnp.float32)
    return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), w) + b
