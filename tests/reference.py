"""The reference implementation: transformers' Gemma-2 with eager attention, on torch."""

from pathlib import Path
from typing import Any

import numpy as np

from grm_jax.checkpoints.huggingface import save_hugging_face
from grm_jax.model.config import Gemma2Config


def transformers_model(config: Gemma2Config, params: dict[str, Any], folder: Path, dtype: str = "float32") -> Any:
    """The model with our parameters; eager attention, since only that has the soft cap."""
    import torch
    from transformers import Gemma2ForCausalLM

    if not (folder / "config.json").exists():
        save_hugging_face(folder, config, params)
    model = Gemma2ForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=getattr(torch, dtype))
    return model.eval()


def transformers_logits(
    config: Gemma2Config, params: dict[str, Any], tokens: np.ndarray, folder: Path, dtype: str = "float32"
) -> np.ndarray:
    """Float32 logits [B, T, V]."""
    import torch

    with torch.no_grad():
        out = transformers_model(config, params, folder, dtype)(torch.tensor(np.asarray(tokens), dtype=torch.long))
    return out.logits.float().numpy()
