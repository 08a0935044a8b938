"""Measures how far logits are from the float32 logits of transformers' Gemma-2, on the shapes of tests/shapes.py.

usage: python scripts/parity_table.py        (needs torch)

Weights of these shapes are drawn large, so that both soft caps bite. Figures are absolute differences of logits, mean
and largest over all positions and words.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from grm_jax.model.config import Gemma2Config  # noqa: E402
from grm_jax.model.gemma2 import Gemma2  # noqa: E402
from grm_jax.model.heads import next_token_logits  # noqa: E402
from tests.reference import transformers_logits  # noqa: E402
from tests.shapes import SHAPES, jitted, random_params, random_tokens  # noqa: E402


def our_logits(config: Gemma2Config, params: Any, tokens: np.ndarray, dtype: Any) -> np.ndarray:
    hidden, _ = jitted(Gemma2(config, dtype=dtype))(params, jnp.asarray(tokens))
    return np.asarray(next_token_logits(hidden, params["embedding"], config))


def main() -> None:
    print("| shape | ours, float32 | ours, bfloat16 | transformers, bfloat16 |")
    print("|---|---|---|---|")
    for name, config in SHAPES.items():
        params, tokens = random_params(config), random_tokens(config)
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            exact = transformers_logits(config, params, tokens, model)
            theirs = transformers_logits(config, params, tokens, model, dtype="bfloat16")
        ours = [our_logits(config, params, tokens, dtype) for dtype in (jnp.float32, jnp.bfloat16)]
        differences = [np.abs(logits - exact) for logits in (*ours, theirs)]
        print(f"| {name} | " + " | ".join(f"{d.mean():.2g}, {d.max():.2g}" for d in differences) + " |")


if __name__ == "__main__":
    main()
