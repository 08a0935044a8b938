"""A meta model of random weights, and critiques for it."""

from pathlib import Path

import numpy as np

from grm_jax.checkpoints.folder import load_params
from grm_jax.data.records import Item, Sample, Turn
from grm_jax.judge.meta import save_meta
from grm_jax.keys import generator
from grm_jax.model.critique_reward import HEAD
from grm_jax.text.template_file import template_text


def write_meta(folder: Path, judge_folder: Path, seed: int = 0) -> Path:
    """Writes a meta model: the trunk and tokenizer of a judge's folder, a random head."""
    config, trunk = load_params(judge_folder)
    w = generator("test", "meta head", seed).standard_normal(config.model_dim).astype(np.float32)
    save_meta(folder, config, trunk | {HEAD: {"w": w, "b": np.float32(0.25)}}, judge_folder, template_text("tiny"))
    return folder


def item(item_id: str, n: int = 2, label: int | None = 0) -> Item:
    return Item(item_id, (Turn("user", f"Is {item_id} odd?"),), tuple(f"answer {i}" for i in range(n)), label)


def sample(index: int, text: str, order: tuple[int, ...] = (0, 1), scores: tuple[int, ...] | None = (7, 3)) -> Sample:
    return Sample(
        index=index, order=order, text=text, scores=scores, outcome="ok" if scores else "no_block", tokens=4,
        logprob=-1.0, seed=0,
    )  # fmt: skip
