"""From a model folder to a judge."""

import importlib.resources
from pathlib import Path
from typing import Any

import jax

from grm_jax.checkpoints.folder import fingerprint, leaves, load_params
from grm_jax.errors import UserError
from grm_jax.judge.judge import Judge
from grm_jax.text.template import load_template
from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer


def model_folder(model: str | Path) -> Path:
    """Resolves "tiny", the judge inside the package, or a folder.

    Raises:
        UserError: no such folder.
    """
    if str(model) == "tiny":
        return Path(str(importlib.resources.files("grm_jax"))) / "judges" / "tiny"
    path = Path(model)
    if not path.is_dir():
        raise UserError(f"model {model}: no such folder; give 'tiny' or a Hugging Face or Orbax model folder")
    return path


def load_judge(
    model: str | Path = "tiny", *, template: str | Path | None = None, dtype: str | None = None, **settings: Any
) -> Judge:
    """Loads a judge.

    Args:
        model: "tiny", or a model folder with its tokenizer.
        template: a template's name or file; default: the folder's own template.toml, else "grm".
        dtype: "float32" or "bfloat16"; default: float32 on CPU, bfloat16 on accelerators.
        **settings: policy, max_new, rows; see `Judge`.

    Raises:
        UserError: a folder that cannot be read, a tokenizer that does not fit the model, or a setting out of range.
    """
    folder = model_folder(model)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    # Everything that can be wrong is looked at before gigabytes of weights are read.
    config, _ = leaves(folder)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config.vocab_size)
    own = folder / "template.toml"
    chosen = load_template(template or (own if own.is_file() else "grm"))
    name = f"{folder.resolve().name}@{fingerprint(folder)}"
    config, params = load_params(folder, dtype=dtype)
    return Judge(name, config, params, tokenizer, chosen, dtype=dtype, **settings)
