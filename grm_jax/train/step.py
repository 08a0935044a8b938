"""The one training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

Params = dict[str, Any]
Batch = dict[str, Any]  # arrays of jax or numpy
Loss = Callable[[Params, Batch], tuple[jax.Array, jax.Array]]


@struct.dataclass
class TrainState:
    """Everything that a step changes: the step count, float32 parameters, and the optimizer's state."""

    step: jax.Array
    params: Params
    optimizer: optax.OptState


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(step=jnp.int32(0), params=params, optimizer=optimizer.init(params))


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns a jitted step; it donates the state it is given.

    Args:
        loss: (params, batch) -> (sum, denominator).
        optimizer: an optax transformation.

    Returns:
        step(state, batch) -> (state, metrics); metrics are float32 scalars: loss, gradient_norm, weight (denominator).
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        def mean(params: Params) -> tuple[jax.Array, jax.Array]:
            total, denominator = loss(params, batch)
            return total / jnp.maximum(denominator, 1.0), denominator

        (value, denominator), gradients = jax.value_and_grad(mean, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), "weight": denominator}
        params = optax.apply_updates(state.params, updates)
        return TrainState(step=state.step + 1, params=params, optimizer=optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)
