"""The one training step: what a loss returns, what a step changes, and how the two meet.

A loss returns a sum and the denominator it belongs to. Parts of a batch then add up to exactly the whole batch: the
gradients of the sums are added, and divided once by the sum of the denominators.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from grm_jax.errors import UserError

Params = dict[str, Any]
Batch = Mapping[str, Any]  # arrays of jax or numpy that share their leading axis


@struct.dataclass
class LossTerms:
    """What a loss returns.

    Attributes:
        total: the sum to be minimised, a float32 scalar.
        denominator: what the sum is divided by (weights, tokens, items), a float32 scalar; a constant to the gradient.
        metrics: name -> (sum, denominator), float32 scalars.
    """

    total: jax.Array
    denominator: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]] = struct.field(default_factory=dict)


@struct.dataclass
class TrainState:
    """Everything that a step changes, and what it needs beside the batch.

    Attributes:
        step: batches seen, int32.
        params: the trained leaves, float32: the model's, or the factors of LoRA.
        optimizer: the optimizer's state, of the trained leaves alone.
        ema: moving average of `params`; {} when it is off.
        frozen: the model's leaves that are not trained; {} when all are.
        skipped: steps, of all, that were not finite and changed nothing; int32.
        skipped_in_row: those at the end, one after another; int32.
    """

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    ema: Params
    frozen: Params
    skipped: jax.Array
    skipped_in_row: jax.Array


Loss = Callable[[Params, Batch], LossTerms]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def init_state(
    params: Params, optimizer: optax.GradientTransformation, *, frozen: Params | None = None, ema: bool = False
) -> TrainState:
    """Returns the state before the first step. All leaves are copies, so that donating it leaves the caller's alive."""
    params, frozen = _copy(params), _copy(frozen or {})
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, optimizer=optimizer.init(params), ema=_copy(params) if ema else {},
        frozen=frozen, skipped=jnp.zeros((), jnp.int32), skipped_in_row=jnp.zeros((), jnp.int32),
    )  # fmt: skip


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema_decay: float | None = None,
    merge: Callable[[Params, Params], Params] | None = None,
    places: TrainState | None = None,
) -> Step:
    """Returns a jitted step; it donates the state it is given.

    A step whose loss or gradient is not finite leaves parameters, optimizer and average as they were.

    Args:
        loss: (the model's parameters, batch) -> LossTerms.
        optimizer: an optax transformation.
        accumulate: the batch's leading axis is taken in this many equal parts, one after another.
        ema_decay: of `state.ema`; None or 0 when there is none.
        merge: (frozen, trained) -> the model's parameters; None when all are trained.
        places: where each leaf of the state lives, a tree of shardings; gradients live where the weights do. None leaves it to
            the compiler.

    Returns:
        step(state, batch) -> (state, metrics); metrics are float32 scalars: loss, gradient_norm (before clipping), weight (the
        denominator), skipped_steps (so far), and each of the loss's own, NaN where its denominator is 0.

    Raises:
        UserError: when traced with a batch that cannot be taken in `accumulate` equal parts.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        def total(params: Params, part: Batch) -> tuple[jax.Array, LossTerms]:
            terms = loss(params if merge is None else merge(state.frozen, params), part)
            return terms.total, terms

        terms, gradients = accumulated(jax.value_and_grad(total, has_aux=True), state.params, batch, accumulate)
        if places is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, places.params)
        scale = jnp.where(terms.denominator == 0, 0.0, 1.0 / terms.denominator)
        gradients = jax.tree.map(lambda g: g * scale, gradients)
        metrics = {name: top / bottom for name, (top, bottom) in terms.metrics.items()}
        metrics |= {
            "loss": terms.total * scale,
            "gradient_norm": optax.tree.norm(gradients),
            "weight": terms.denominator,
        }
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])

        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1.0 - ema_decay) if ema_decay else state.ema
        old = (state.params, state.optimizer, state.ema)
        params, optimizer_state, ema = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), (params, optimizer_state, ema), old
        )
        skipped = state.skipped + ~finite
        metrics["skipped_steps"] = skipped  # sources have a `skipped` of their own
        state = TrainState(
            step=state.step + 1, params=params, optimizer=optimizer_state, ema=ema, frozen=state.frozen,
            skipped=skipped, skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
        )  # fmt: skip
        return state, {name: jnp.float32(value) for name, value in metrics.items()}

    # Metrics are on every device, so that every process can read them.
    return jax.jit(step, donate_argnums=0, out_shardings=None if places is None else (places, places.step))


def accumulated(
    value_and_grad: Callable[[Params, Batch], tuple[tuple[jax.Array, LossTerms], Params]],
    params: Params,
    batch: Batch,
    parts: int,
) -> tuple[LossTerms, Params]:
    """Sums of the terms and of the gradients over equal parts of a batch, computed one part after another.

    Args:
        value_and_grad: (params, part) -> ((total, terms), gradients).
        params: to differentiate by.
        batch: leaves share their leading axis.
        parts: how many.

    Raises:
        UserError: the leading axis is not a multiple of `parts`.
    """
    if parts == 1:
        (_, terms), gradients = value_and_grad(params, batch)
        return terms, gradients
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % parts:
        raise UserError(f"a batch of {rows} cannot be taken in accumulate = {parts} equal parts; make it a multiple")
    # On a mesh each part is divided among all devices, as the batch was.
    split = jax.tree.map(
        lambda x: nn.with_logical_constraint(
            jnp.reshape(x, (parts, rows // parts, *x.shape[1:])), (None, "batch", *(None,) * (x.ndim - 1))
        ),
        batch,
    )

    def add(sums: tuple[LossTerms, Params], part: Batch) -> tuple[tuple[LossTerms, Params], None]:
        (_, terms), gradients = value_and_grad(params, part)
        return jax.tree.map(jnp.add, sums, (terms, gradients)), None

    first = jax.tree.map(lambda x: x[0], split)
    (_, terms), gradients = jax.eval_shape(value_and_grad, params, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (terms, gradients))
    return jax.lax.scan(add, zeros, split)[0]


def _copy(tree: Params) -> Params:
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)
