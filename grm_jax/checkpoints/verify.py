"""Proof that a conversion kept the model: equal bits, and logits equal to those of the reference implementation."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from grm_jax.checkpoints.files import first_line
from grm_jax.checkpoints.folder import load_params
from grm_jax.checkpoints.huggingface import load_hugging_face
from grm_jax.checkpoints.tree import same_bits
from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import Gemma2
from grm_jax.model.heads import next_token_logits

LOGIT_TOLERANCE = 1e-3  # logits reach 30 (the soft cap); float32 sums in another order stay well below this
_COMPARED = 64  # last positions whose logits are compared
_BEYOND = 32  # tokens beyond the sliding window, so that its edge is crossed
_AFFORDABLE = 2e13  # parameters x tokens: about a minute or two on a workstation's CPU


@dataclasses.dataclass(frozen=True)
class LogitComparison:
    """Float32 logits of both implementations on the same random tokens.

    Attributes:
        largest: the largest absolute difference.
        tokens: length of the sequence.
        beyond_window: whether it is longer than the sliding window.
    """

    largest: float
    tokens: int
    beyond_window: bool


def verify_params(source: Path | str, target: Path | str, dtype: Any = None) -> int:
    """Loads both folders and compares all weights bit for bit, those of `source` after the cast to `dtype`.

    Both models are in memory at once.

    Returns:
        The number of parameters compared.

    Raises:
        UserError: a tensor or the config differs, or a folder cannot be loaded.
    """
    config, params = load_params(source, dtype)
    written_config, written = load_params(target)
    if config != written_config:
        raise UserError(f"{target}: its config differs from that of {source}; remove it and convert again")
    leaves, written_leaves = flatten_dict(params, sep="/"), flatten_dict(written, sep="/")
    for path, leaf in leaves.items():
        if not same_bits(leaf, written_leaves[path]):
            raise UserError(f"{target}: {path} differs from that of {source}; remove the folder and convert again")
    return sum(leaf.size for leaf in leaves.values())


def compare_with_transformers(folder: Path | str, seed: int = 0) -> LogitComparison:
    """Runs our model and transformers' eager Gemma-2 on a Hugging Face folder, in float32.

    The random sequence is longer than the sliding window, unless the model is too large to do that in minutes. Logits
    of its last positions are compared. Ours run on the default device, theirs on the CPU.

    Raises:
        ImportError: torch is not installed.
        UserError: the folder cannot be loaded by either, or logits differ by more than `LOGIT_TOLERANCE`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config, params = load_hugging_face(folder, np.float32)
    ids = _random_tokens(config, sum(leaf.size for leaf in jax.tree.leaves(params)), seed)
    ours = _our_logits(config, params, ids)
    del params  # or two float32 models would be held
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many types; what it cannot load is not a model others can use
        raise UserError(f"{folder}: transformers cannot load it ({first_line(error)}); check config.json") from error
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(ids.astype(np.int64)), logits_to_keep=_COMPARED).logits.numpy()
    largest = float(np.abs(ours - theirs).max())
    if not largest <= LOGIT_TOLERANCE:
        raise UserError(
            f"{folder}: logits differ from those of transformers by {largest:.3g} (allowed: {LOGIT_TOLERANCE:g}); "
            "do not use this conversion, and report it with the model's name"
        )
    return LogitComparison(largest=largest, tokens=ids.shape[1], beyond_window=ids.shape[1] > config.window)


def _random_tokens(config: Gemma2Config, parameters: int, seed: int) -> np.ndarray:
    """Token ids [1, T] int32."""
    length = max(config.window + _BEYOND, _COMPARED)
    if parameters * length > _AFFORDABLE or length > config.max_length:
        length = min(_COMPARED, config.max_length)
    ids = generator("verify", seed).integers(config.vocab_size, size=(1, length))
    return ids.astype(np.int32)


def _our_logits(config: Gemma2Config, params: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision("highest"):  # TPUs and some GPUs would multiply float32 in fewer bits
        hidden, _ = jax.jit(Gemma2(config).apply)({"params": params}, jnp.asarray(ids))
        return np.asarray(next_token_logits(hidden[:, -_COMPARED:], params["embedding"], config))
