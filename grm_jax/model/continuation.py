"""Hidden states of many completions of few prompts, each prompt computed once.

Training takes the sampler's own route: the prompt is a cache segment shared by its group, a completion attends to it and to itself.
A plain forward pass over [prompt; completion] would compute the prompt once for every completion.

Letters: P prompts, G group size, T completion positions, S prompt positions (padded), D model width.
"""

from typing import Any

import jax
import jax.numpy as jnp

from grm_jax.model.gemma2 import Gemma2, forward


def continue_hidden(
    model: Gemma2, params: dict[str, Any], prompt_tokens: jax.Array, prompt_lengths: jax.Array, tokens: jax.Array
) -> jax.Array:
    """Hidden states that predict the completions' tokens. Pure and differentiable, through the prompt too.

    Args:
        model: the module, stacked or unrolled as `params` are.
        params: its parameters.
        prompt_tokens: int32 [P, S], padded on the right.
        prompt_lengths: int32 [P], at least 1.
        tokens: int32 [P, G, T], padded on the right with any token; what stands before a token decides its state, nothing after.

    Returns:
        [P, G, T, D]: entry t predicts tokens[:, :, t]. Entry 0 is the state of the prompt's last token.
    """
    return _states(model, params, prompt_tokens, prompt_lengths, tokens)[:, :, :-1]


def last_hidden(
    model: Gemma2,
    params: dict[str, Any],
    prompt_tokens: jax.Array,
    prompt_lengths: jax.Array,
    tokens: jax.Array,
    lengths: jax.Array,
) -> jax.Array:
    """Hidden states [P, G, D] at the last token of each completion, of lengths int32 [P, G]; the rest as `continue_hidden`.

    An empty completion (length 0) ends with its prompt's last token.
    """
    states = _states(model, params, prompt_tokens, prompt_lengths, tokens)
    return jnp.take_along_axis(states, lengths[:, :, None, None], axis=2)[:, :, 0]


def _states(
    model: Gemma2, params: dict[str, Any], prompt_tokens: jax.Array, prompt_lengths: jax.Array, tokens: jax.Array
) -> jax.Array:
    """States [P, G, T + 1, D] after 0, 1, ... T tokens of each completion."""
    P, G, T = tokens.shape
    inside = jnp.arange(prompt_tokens.shape[1], dtype=jnp.int32) < prompt_lengths[:, None]
    hidden, prompt = forward(model, params, prompt_tokens, segments=inside.astype(jnp.int32))
    start = jnp.take_along_axis(hidden, (prompt_lengths - 1)[:, None, None], axis=1)
    positions = jnp.repeat(prompt_lengths, G)[:, None] + jnp.arange(T, dtype=jnp.int32)
    # The cache serves rows i * G ... of prompt i: P stays the leading axis, so a sharded P needs no exchange.
    hidden, _ = forward(model, params, tokens.reshape(P * G, T), positions, cache=(prompt,))
    shared = jnp.broadcast_to(start[:, None], (P, G, 1, start.shape[-1]))
    return jnp.concatenate([shared, hidden.reshape(P, G, T, -1)], axis=2)
