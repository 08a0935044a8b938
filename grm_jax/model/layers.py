"""The pure layers of Gemma-2.

Letters: B batch, T positions, N query heads, K key/value heads, H head width, D model width, F feed-forward width, V vocabulary.
Norms, rotary angles and soft caps are computed in float32 and cast back, as the reference implementation does.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from grm_jax.model.projections import FormedWeight

Weight = jax.Array | FormedWeight
Params = Mapping[str, Weight]

MASKED = (
    -2.3819763e38
)  # a logit of what is not seen; finite, so that a row that sees nothing (padding) stays free of NaN


def embed(tokens: jax.Array, embedding: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Looks tokens [..., T] up in embedding [V, D] and scales by sqrt(D); returns [..., T, D] of `dtype`.

    The factor is rounded to `dtype` first (68.0 for the 27b width in bfloat16), as the released weights expect.
    """
    factor = jnp.asarray(embedding.shape[1] ** 0.5, dtype)
    return embedding[tokens].astype(dtype) * factor


def rms_norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    """Root-mean-square norm over the last axis, scaled by 1 + weight. x [..., D], weight [D]; returns x's dtype."""
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (normed * (1.0 + weight.astype(jnp.float32))).astype(x.dtype)


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding over split halves. x [B, T, heads, H], positions [B, T] int32; returns x's dtype."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
    """Bounds x smoothly to (-cap, cap), in float32; None leaves the values."""
    x = x.astype(jnp.float32)
    return x if cap is None else cap * jnp.tanh(x / cap)


def visible(
    positions: jax.Array, segments: jax.Array, key_positions: jax.Array, key_segments: jax.Array, window: int | None
) -> jax.Array:
    """What queries [..., T] see of keys [..., S]: those of their own id, which is not 0, that stand no later than they, and with a
    window less than so far back. All int32; returns bool [..., T, S]."""
    distance = positions[..., None] - key_positions[..., None, :]
    seen = (segments[..., None] == key_segments[..., None, :]) & (segments != 0)[..., None] & (distance >= 0)
    return seen if window is None else seen & (distance < window)


def project(x: jax.Array, weight: Weight, summed: int = 1) -> jax.Array:
    """A dense layer without bias: x [B, T, I] times weight [I, ...] -> [B, T, ...]; I may be the weight's first `summed` axes.

    Written as one product of two matrices, which XLA's CPU compiler differentiates twice as fast as the einsum over B and T.
    """
    rows = x.reshape(-1, x.shape[-1])
    out = weight.product(rows) if isinstance(weight, FormedWeight) else rows @ weight.reshape(x.shape[-1], -1)
    return out.reshape(*x.shape[:-1], *weight.shape[summed:])


def gated_mlp(params: Params, x: jax.Array) -> jax.Array:
    """GeGLU feed-forward with the tanh form of GELU. x [B, T, D]; gate, up [D, F]; down [F, D]."""
    gate = jax.nn.gelu(project(x, params["gate"]), approximate=True)
    return project(gate * project(x, params["up"]), params["down"])
