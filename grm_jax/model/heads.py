"""Heads: functions of the model's hidden states.

Letters: B batch, T positions, D model width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from grm_jax.model.config import Gemma2Config
from grm_jax.model.layers import soft_cap
from grm_jax.model.output_major import product

# Of float32: up to so many a CPU multiplies faster with the embedding on the left (`output_major`).
_FEW_ROWS = 64


def _most_logits() -> int:
    """Logits that a device holds at once: 128 MiB; on a GPU, which has the room, 1 GiB, since with every chunk of logits the whole
    embedding's gradient is read and written."""
    return 2**28 if jax.default_backend() == "gpu" else 2**25


def next_token_logits(hidden: jax.Array, embedding: jax.Array, config: Gemma2Config) -> jax.Array:
    """Logits of the next token: hidden [..., D], embedding [V, D] -> float32 [..., V], after the final soft cap."""
    return soft_cap(_scores(hidden, embedding), config.final_soft_cap)


@jax.custom_vjp
def _scores(hidden: jax.Array, embedding: jax.Array) -> jax.Array:
    """[..., D], [V, D] -> float32 [..., V]. Its gradient is rounded to `hidden`'s type, as those of all other layers are: products
    of float32 with bfloat16 would be the slowest of a training step."""

    def many(hidden: jax.Array, embedding: jax.Array) -> jax.Array:
        return jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)

    def few(hidden: jax.Array, embedding: jax.Array) -> jax.Array:
        return product(hidden.reshape(-1, hidden.shape[-1]), embedding).reshape(*hidden.shape[:-1], -1)

    is_few = hidden.dtype == jnp.float32 and 1 < math.prod(hidden.shape[:-1]) <= _FEW_ROWS
    cpu = {"cpu": few} if is_few else {}
    return cast(jax.Array, jax.lax.platform_dependent(hidden, embedding.astype(hidden.dtype), default=many, **cpu))


def _scores_forward(hidden: jax.Array, embedding: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _scores(hidden, embedding), (hidden, embedding)


def _scores_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, embedding = saved
    gradient = gradient.astype(hidden.dtype)
    of_hidden = jnp.einsum("...v,vd->...d", gradient, embedding.astype(hidden.dtype))
    of_embedding = jnp.einsum("...v,...d->vd", gradient, hidden, preferred_element_type=jnp.float32)
    return of_hidden, of_embedding.astype(embedding.dtype)


_scores.defvjp(_scores_forward, _scores_backward)


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
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, config: Gemma2Config, *, rows: int = 8192
) -> jax.Array:
    """Log-probabilities of given tokens, without ever holding [..., T, V].

    Positions are taken a chunk at a time; each chunk's logits are recomputed in the backward pass. On a mesh every device
    has its part of the vocabulary for all rows of a chunk: states are exchanged then, and neither the embedding, nor its
    gradient, nor logits.

    Args:
        hidden: [..., T, D]; position t predicts targets[..., t].
        embedding: [V, D].
        targets: [..., T] int32.
        config: for the final soft cap.
        rows: of logits [V] that a device holds at once, at most; fewer where they would take too much of its memory.

    Returns:
        float32 [..., T].
    """

    return cast(jax.Array, _by_chunks(_chosen, hidden, embedding, targets, config, rows))


def token_statistics(
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    config: Gemma2Config,
    *,
    temperature: float = 1.0,
    rows: int = 8192,
) -> TokenStatistics:
    """Log-probabilities and entropies under the policy that samples at a temperature; else as `token_logprobs`."""

    def statistics(plain: jax.Array, targets: jax.Array) -> TokenStatistics:
        logits = plain if temperature == 1.0 else plain / temperature
        logprobs = _chosen(logits, targets)
        return TokenStatistics(
            logprobs=logprobs,
            plain=logprobs if temperature == 1.0 else _chosen(plain, targets),
            entropy=_entropy(jax.lax.stop_gradient(logits)),
        )

    return cast(TokenStatistics, _by_chunks(statistics, hidden, embedding, targets, config, rows))


def _chosen(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Log-probabilities [...] of targets [...] under logits [..., V]."""
    # A gather would do, but its gradient is a scatter, for which a mesh exchanges logits where it need not.
    chosen = jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], logits, 0.0)
    return jnp.sum(chosen, axis=-1) - jax.nn.logsumexp(logits, axis=-1)


def _entropy(logits: jax.Array) -> jax.Array:
    """Entropies [...] in nats of logits [..., V]."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jax.nn.softmax(logits, axis=-1) * logits, axis=-1)


def _by_chunks(
    function: Callable[[jax.Array, jax.Array], Any],
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    config: Gemma2Config,
    rows: int,
) -> Any:
    """Applies (logits [..., t, V], targets [..., t]) -> tree of [..., t] to so many positions at a time as `rows` allows."""
    *leading, T, D = hidden.shape
    for names in (("vocab", "embed"), ("classes_halfway", None), ("classes", None)):
        embedding = nn.with_logical_constraint(embedding, names)

    @jax.checkpoint
    def applied(hidden: jax.Array, targets: jax.Array) -> Any:
        hidden = nn.with_logical_constraint(hidden, (None,) * hidden.ndim)
        return function(next_token_logits(hidden, embedding, config), targets)

    devices = max(1, jax.sharding.get_abstract_mesh().size)
    chunk = max(1, min(rows, _most_logits() // embedding.shape[0]) * devices // math.prod(leading))
    if chunk >= T:
        return applied(hidden, targets)
    pad = -T % chunk
    before = [(0, 0)] * len(leading)
    hidden = jnp.pad(hidden, (*before, (0, pad), (0, 0))).reshape(*leading, -1, chunk, D)
    targets = jnp.pad(targets, (*before, (0, pad))).reshape(*leading, -1, chunk)
    chunks = jax.lax.map(lambda xs: applied(*xs), (jnp.moveaxis(hidden, -3, 0), jnp.moveaxis(targets, -2, 0)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*leading, T + pad)[..., :T], chunks)


def scalar_head(hidden: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
    """One logit a position in float32: hidden [..., D], params {"w": [D], "b": []} -> [...]."""
    w, b = params["w"].astype(jnp.float32), params["b"].astype(jnp.float32)
    return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), w) + b
