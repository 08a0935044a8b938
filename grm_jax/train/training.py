"""The settings that every trained stage shares."""

import dataclasses
from collections.abc import Callable
from typing import Any

from grm_jax.errors import UserError

SCHEDULES = ("cosine", "constant", "linear")
OPTIMIZERS = ("adamw", "adafactor")
DTYPES = ("float32", "bfloat16")
_COUNTS = ("warmup", "weight_decay", "lora_rank", "save_every", "export_every", "step_limit")


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of a trained stage; each stage inherits them and adds its own.

    Attributes:
        steps: batches.
        learning_rate: the highest rate, reached after `warmup` steps.
        warmup: steps in which the rate rises from 0.
        schedule: what follows the warm-up: "cosine" or "linear" to `final_fraction`, or "constant".
        final_fraction: of the highest rate, which the rate has come down to when all steps are done.
        optimizer: "adamw" or "adafactor".
        beta1: AdamW's first-moment decay.
        beta2: AdamW's second-moment decay.
        weight_decay: of all weights but norms, times the learning rate.
        clip: gradients are scaled down to this global norm.
        accumulate: a batch is computed in this many equal parts.
        ema_decay: decay of a moving average of the weights, which is then the result; 0 for none.
        lora_rank: rank of the factors that are trained instead of the weights; 0 trains the weights.
        lora_alpha: the factors' product counts alpha / rank times.
        dtype: "float32" or "bfloat16", of the computation; trained weights are float32.
        remat: activations are computed again in the backward pass instead of kept.
        seed: names every random stream of the stage.
        save_every: steps between checkpoints; the last step has one always. 0 for no other.
        keep_best: name of a metric: the checkpoint before which its mean, since the one before, was highest is kept besides the
            last two, and its model is saved at the end. With a minus in front the lowest, as "-loss". "" for none.
        export_every: steps between models saved on the way; 0 saves the last only.
        step_limit: seconds after which a step that has not ended ends the process, with the stacks of all threads; 0 for never.
            The first step compiles and has all the time it takes.
        log_every: steps between rows of metrics; the last step has one always.
        peak_flops: of the device a second, for the utilisation; None looks the device up.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup: int = 100
    schedule: str = "cosine"
    final_fraction: float = 0.02
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    dtype: str = "float32"
    remat: bool = False
    seed: int = 0
    save_every: int = 500
    keep_best: str = ""
    export_every: int = 0
    step_limit: float = 3600.0
    log_every: int = 20
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        self._require("must be at least 1", lambda x: x >= 1, "steps", "accumulate", "log_every")
        self._require("must be positive", lambda x: x > 0, "learning_rate", "clip", "lora_alpha")
        self._require("must not be negative", lambda x: x >= 0, *_COUNTS)
        self._require("must be from 0 to 1", lambda x: 0 <= x <= 1, "final_fraction")
        self._require("must be at least 0 and below 1", lambda x: 0 <= x < 1, "beta1", "beta2", "ema_decay")
        for name, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS), ("dtype", DTYPES)):
            self._require(f"must be one of {', '.join(known)}", known.__contains__, name)
        if self.peak_flops is not None:
            self._require("must be positive", lambda x: x > 0, "peak_flops")

    def _require(self, rule: str, holds: Callable[[Any], bool], *names: str) -> None:
        """Refuses settings for which `holds` is not true, NaN included."""
        for name in names:
            value = getattr(self, name)
            if not holds(value):
                raise UserError(f"{type(self).__name__}.{name} {rule}, not {value}")
