"""How fast a run is: seconds a step, tokens a second, and the part of the device's arithmetic that the model itself needs.

Model FLOPs count what the mathematics asks for, two to a multiplication and addition: not what is computed again in the
backward pass (remat, chunked logits), nor the masked half of an attention matrix.
"""

import dataclasses

import numpy as np

from grm_jax.model.config import Gemma2Config

# Dense bfloat16 FLOPs a second by what jax's device_kind begins with or holds, from the makers' data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L4": 121e12,
}


@dataclasses.dataclass(frozen=True)
class Work:
    """What one training step computes: tokens, and model FLOPs forward and backward."""

    tokens: int
    flops: float


def peak_flops(device_kind: str) -> float | None:
    """FLOPs a second of a device in bfloat16; None if it is not known."""
    words = f"{device_kind} "
    return next((peak for name, peak in PEAK_FLOPS.items() if f"{name} " in words.replace("-", " ")), None)


def training_flops(config: Gemma2Config, tokens: int, local_keys: int, global_keys: int) -> float:
    """Model FLOPs of one step, forward and backward.

    6 FLOPs a weight and token: 2 forward, 4 backward. Attention multiplies each query with each key it sees and each weight with
    a value: 2 * 2 * N * H forward, so 12 * N * H with the backward pass.

    Args:
        config: the shape.
        tokens: through the layers and the head.
        local_keys: keys seen, summed over all queries, in one local layer.
        global_keys: the same in one global layer.
    """
    c = config
    attention = c.model_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    mlp = 3 * c.model_dim * c.mlp_dim
    weights = c.num_layers * (attention + mlp) + c.vocab_size * c.model_dim
    return 6.0 * weights * tokens + 12.0 * c.num_heads * c.head_dim * c.num_pairs * (local_keys + global_keys)


def packed_work(config: Gemma2Config, positions: np.ndarray, segments: np.ndarray) -> Work:
    """Work of a packed batch: positions and segments int [B, T]; segment 0 is padding, which is no work."""
    seen = np.asarray(positions)[np.asarray(segments) != 0].astype(np.int64) + 1
    local_keys = int(np.minimum(seen, config.window).sum())
    return Work(seen.size, training_flops(config, seen.size, local_keys, int(seen.sum())))


class Speedometer:
    """Averages over the steps since the last reading; the first step of all, which compiles, is left out."""

    def __init__(self, peak: float | None):
        self._peak = peak
        self._started = False
        self._clear()

    def _clear(self) -> None:
        self._steps, self._seconds, self._source_seconds, self._tokens, self._flops = 0, 0.0, 0.0, 0, 0.0

    def add(self, seconds: float, source_seconds: float, work: Work | None) -> None:
        """Counts a step that took `seconds`, of which `source_seconds` were spent waiting for its batch."""
        if not self._started:
            self._started = True
            return
        self._steps += 1
        self._seconds += seconds
        self._source_seconds += source_seconds
        if work is not None:
            self._tokens += work.tokens
            self._flops += work.flops

    def read(self) -> dict[str, float]:
        """Returns step_seconds, source_seconds and, where they are known, tokens_per_second and flops_utilisation; starts anew."""
        if not self._steps:
            return {}
        row = {"step_seconds": self._seconds / self._steps, "source_seconds": self._source_seconds / self._steps}
        if self._tokens:
            row["tokens_per_second"] = self._tokens / self._seconds
        if self._flops and self._peak:
            row["flops_utilisation"] = self._flops / self._seconds / self._peak
        self._clear()
        return row
