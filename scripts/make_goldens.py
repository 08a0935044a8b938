"""Writes tests/goldens from transformers: logits of small odd Gemma-2 shapes. Needs torch and transformers.

usage: python scripts/make_goldens.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.reference import transformers_logits  # noqa: E402
from tests.shapes import SHAPES, random_params, random_tokens  # noqa: E402


def main() -> None:
    goldens = {}
    for name, config in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            goldens[name] = transformers_logits(
                config, random_params(config), random_tokens(config), Path(folder) / "model"
            )
    target = ROOT / "tests" / "goldens" / "gemma2_logits.npz"
    np.savez_compressed(target, allow_pickle=False, **goldens)
    print(f"wrote {target}: {', '.join(goldens)}")


if __name__ == "__main__":
    main()
