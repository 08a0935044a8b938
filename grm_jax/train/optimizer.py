"""Optimizers and learning rates, from settings."""

from typing import Any

import jax
import optax

from grm_jax.model.critique_reward import HEAD
from grm_jax.train.training import Training

_BIAS = (jax.tree_util.DictKey(HEAD), jax.tree_util.DictKey("b"))


def make_schedule(training: Training) -> optax.Schedule:
    """Returns rate(updates done): a linear warm-up from 0, then a cosine, a line, or a constant.

    The warm-up ends before the last step, however long it is said to be: the highest rate is always reached.
    """
    highest, lowest = training.learning_rate, training.learning_rate * training.final_fraction
    warmup = min(training.warmup, training.steps - 1)
    rest = training.steps - warmup
    after = {
        "cosine": optax.cosine_decay_schedule(highest, rest, training.final_fraction),
        "linear": optax.linear_schedule(highest, lowest, rest),
        "constant": optax.constant_schedule(highest),
    }[training.schedule]
    return optax.join_schedules([optax.linear_schedule(0.0, highest, max(warmup, 1)), after], [warmup])


def make_optimizer(training: Training) -> optax.GradientTransformation:
    """Returns the optimizer: gradients clipped by their global norm, then AdamW or Adafactor at the schedule's rate.

    AdamW is arXiv 1711.05101. Adafactor is arXiv 1804.04235: it keeps a row and a column of second moments a matrix instead
    of two numbers a weight, and its rate is relative to the size of the weights. Both decay weights by rate * weight_decay.
    """
    schedule = make_schedule(training)
    if training.optimizer == "adamw":
        update = optax.adamw(
            schedule, b1=training.beta1, b2=training.beta2, weight_decay=training.weight_decay, mask=decayed
        )
    else:
        # optax's own weight decay for Adafactor is not multiplied by the rate, so the rate comes last here.
        update = optax.chain(
            optax.adafactor(None),  # it points downhill already
            optax.add_decayed_weights(-training.weight_decay, decayed),
            optax.scale_by_learning_rate(schedule, flip_sign=False),
        )
    return optax.chain(optax.clip_by_global_norm(training.clip), update)


def decayed(params: Any) -> Any:
    """True for each leaf that weight decay applies to: all but norms and the bias of the scalar head."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        return "norm" not in str(path[-1]) and path[-2:] != _BIAS

    return jax.tree_util.tree_map_with_path(decays, params)
