"""From a model folder to what a judge is made of."""

import dataclasses
import importlib.resources
from pathlib import Path
from typing import Any

import jax

from grm_jax.checkpoints.folder import fingerprint, leaves, load_params
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import unrolling_pays
from grm_jax.model.output_major import native_form
from grm_jax.model.quantization import quantize
from grm_jax.parallel.layout import layouts
from grm_jax.text.template import Template, load_template
from grm_jax.text.tokenizer import Tokenizer, check_tokenizer, load_tokenizer


@dataclasses.dataclass(frozen=True)
class JudgeModel:
    """What a judge is made of.

    Attributes:
        name: folder and fingerprint, as judgements name it.
        config: the model's shape.
        params: parameters of the type to compute in, in the decoding layout of the run; in the form in which this
            machine samples and scores with them fastest (`model.gemma2.unrolling_pays`, `model.output_major`).
        tokenizer: it fits the model.
        template: the prompt's wording.
    """

    name: str
    config: Gemma2Config
    params: dict[str, Any]
    tokenizer: Tokenizer
    template: Template


SHIPPED: tuple[str, ...] = ("tiny", "tiny_meta")
"""Models that come with the package: a judge of the arena, and the meta model that guides it."""


def model_folder(model: str | Path) -> Path:
    """Resolves the name of a shipped model, or a folder.

    Raises:
        UserError: no such folder.
    """
    if str(model) in SHIPPED:
        return Path(str(importlib.resources.files("grm_jax"))) / "judges" / str(model)
    path = Path(model)
    if not path.is_dir():
        names = " or ".join(map(repr, SHIPPED))
        raise UserError(f"model {model}: no such folder; give {names}, or a Hugging Face or Orbax model folder")
    return path


def load_model(
    model: str | Path = "tiny",
    *,
    template: str | Path | None = None,
    dtype: str | None = None,
    weights: str | None = None,
) -> JudgeModel:
    """Loads what a judge is made of.

    Args:
        model: "tiny", or a model folder with its tokenizer.
        template: a template's name or file; default: the folder's own template.toml, else "grm".
        dtype: "float32" or "bfloat16"; default: float32 on CPU, bfloat16 on accelerators.
        weights: "int8" keeps projections in 8 bits (`model.quantization`); default: as `dtype`.

    Raises:
        UserError: unknown `weights`, a folder that cannot be read, or a tokenizer that does not fit the model.
    """
    if weights not in (None, "int8"):
        raise UserError(
            f"weights {weights!r}: not known; give int8, or nothing to keep them in the type of the computation"
        )
    folder = model_folder(model)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    # Everything that can be wrong is looked at before gigabytes of weights are read.
    config, _ = leaves(folder)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config.vocab_size)
    own = folder / "template.toml"
    chosen = load_template(template or (own if own.is_file() else "grm"))
    name = f"{folder.resolve().name}@{fingerprint(folder)}"
    layout = layouts().decode
    form = quantize if weights == "int8" else native_form(layout.backend, divided=layout.mesh is not None)
    config, params = load_params(folder, dtype, layout, unrolled=unrolling_pays(), form=form)
    return JudgeModel(name, config, params, tokenizer, chosen)
