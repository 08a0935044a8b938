"""The supervised stage: from a model, or from nothing, and a mixture of examples to a folder that `Judge.load` reads."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from grm_jax.checkpoints.folder import load_params, save_trained
from grm_jax.data.arena.corpus import corpus, pieces
from grm_jax.data.mixture import SftData, Streams, sft_examples
from grm_jax.data.packing import packed_batches
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import init_params
from grm_jax.parallel import hosts
from grm_jax.parallel.layout import layouts
from grm_jax.text.sentencepiece_training import train_sentencepiece
from grm_jax.text.template_file import load_template, template_text
from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
from grm_jax.train.sft import Sft, train_sft

MODEL = "model"
TOKENIZER = "tokenizer"


@dataclasses.dataclass(frozen=True)
class ArenaTokenizer:
    """A tokenizer trained on the arena's own text.

    Attributes:
        examples: how many training examples its text is taken from.
        seed: of those examples.
    """

    examples: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise UserError(f"ArenaTokenizer.examples must be at least 1, not {self.examples}")


@dataclasses.dataclass(frozen=True)
class NewModel:
    """A model that is made instead of loaded: its shape, and what its tokenizer is trained on."""

    config: Gemma2Config
    tokenizer: ArenaTokenizer


def run_sft_stage(
    model: str | Path | NewModel,
    data: SftData,
    streams: Streams,
    settings: Sft,
    output: Path,
    *,
    template: str | Path | None = None,
    dtype: str | None = None,
    progress: Callable[[int, str], None] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Trains a model on examples and saves it; called again, it goes on where it was stopped.

    Args:
        model: what to start from: "tiny", a model folder, or a model to be made, with the weights that `settings.seed` draws.
        data: the mixture that is learnt from.
        streams: the sources of it that are no files.
        settings: of the training.
        output: the stage's folder; the model goes to `output/model/`, those saved on the way to `output/model-STEP/`.
        template: name or file of the prompt template; default: the model's own, else "grm"; "tiny" for a new model.
        dtype: of the saved weights; None for float32.
        progress: as for `fit`.
        report: told of models saved on the way.

    Returns:
        The folder of the model.

    Raises:
        UserError: what cannot be read, a tokenizer that does not fit, or what `fit` refuses.
    """
    examples = sft_examples(data, streams)
    new = isinstance(model, NewModel)
    source = output / TOKENIZER if isinstance(model, NewModel) else model_folder(model)
    wording = template or default_template(source, new=new)
    loaded = load_template(wording)
    if isinstance(model, NewModel):
        config = model.config
        if hosts.is_leader():
            text = corpus("train", model.tokenizer.examples, model.tokenizer.seed)
            train_sentencepiece(text, source, config.vocab_size, user_defined=pieces())
        hosts.wait("a tokenizer")
        params = init_params(config, jax.random.key(settings.seed))
    else:
        config, params = load_params(source, "float32", layouts().train)
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, config.vocab_size)
    batches = packed_batches(
        examples, loaded, tokenizer, rows=settings.rows, length=settings.length, skip_long=settings.skip_long
    )

    def save(name: str, params: Any) -> Path:
        return save_trained(output / name, config, params, source, template_text(wording), dtype=dtype)

    def export(step: int, params: Any) -> None:
        report(f"saved {save(f'{MODEL}-{step}', params)}")

    params = train_sft(config, params, batches, settings, output, progress=progress, export=export)
    return save(MODEL, params)


def default_template(folder: Path, *, new: bool = False) -> str | Path:
    """The wording a model is trained with: its own, else "grm"; "tiny" for one that is made anew."""
    own = folder / "template.toml"
    return "tiny" if new else own if own.is_file() else "grm"
