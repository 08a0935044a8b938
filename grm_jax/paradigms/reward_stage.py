"""The stage of a scalar reward model: from a model and labelled items to a folder that `MetaModel.load` reads."""

from collections.abc import Callable, Sequence
from pathlib import Path

from grm_jax.checkpoints.folder import load_params
from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.judge.meta import has_head, load_head, save_meta
from grm_jax.judge.run_identity import read_identity
from grm_jax.judge.run_store import load_store
from grm_jax.model.critique_reward import HEAD, zero_head
from grm_jax.paradigms.reward_data import RewardBatches, criticised, preferences
from grm_jax.parallel.layout import layouts
from grm_jax.spct.meta_stage import MODEL, default_template
from grm_jax.text.template_file import load_template, template_text
from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
from grm_jax.train.reward_models import RewardModel, train_reward_model


def run_reward_stage(
    kind: str,
    model: str | Path,
    items: Sequence[Item],
    settings: RewardModel,
    output: Path,
    *,
    critiques: str | Path | None = None,
    template: str | Path | None = None,
    dtype: str | None = None,
    progress: Callable[[int, str], None] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Trains a scalar reward model on preferences and saves it; called again, it goes on where it was stopped.

    Args:
        kind: "btrm", "pairrm" or "cloud".
        model: what to start from: a judge's or base model's folder (the head starts at 0), or that of a model with a head.
        items: labelled; those of one response are passed over.
        settings: of the training.
        output: the stage's folder; the model goes to `output/model/`.
        critiques: a run folder of critiques of the items' single responses; for "cloud" alone, which needs it.
        template: name or file of a prompt template; default: `meta_stage.default_template`.
        dtype: of the saved trunk; None for float32.
        progress: as for `fit`.
        report: told what there is to learn from.

    Returns:
        The folder of the model.

    Raises:
        UserError: what cannot be read, nothing to learn from, or what `fit` refuses.
    """
    source = model_folder(model)
    chosen = template or default_template(source)
    wording, tokenizer = load_template(chosen), load_tokenizer(source)
    if kind == "cloud":
        if critiques is None:
            raise UserError("cloud: learns from critiques of single responses; give a run folder of them")
        if read_identity(Path(critiques)).get("hint"):
            raise UserError(
                f"{critiques}: its critiques were drawn with hints, which no model has later; give a run without"
            )
        found = criticised(items, load_store(Path(critiques)), str(critiques), wording, tokenizer)
    else:
        found = preferences(kind, items, wording, tokenizer)
    config, trunk = load_params(source, "float32", layouts().train)
    check_tokenizer(tokenizer, config.vocab_size)
    fitting = [example for example in found if example.tokens <= config.max_length]
    report(f"{len(fitting)} preferences of {len(items)} items")
    if len(fitting) < len(found):
        report(f"left out {len(found) - len(fitting)} preferences that do not fit into {config.max_length} tokens")
    if not fitting:
        raise UserError(f"{output}: no item of two responses or more gives a preference; give other items")
    head = load_head(source) if has_head(source) else zero_head(config)
    batches = RewardBatches(fitting, size=settings.preferences, seed=settings.seed)
    params = train_reward_model(config, trunk | {HEAD: head}, batches, settings, output, progress=progress)
    return save_meta(output / MODEL, config, params, source, template_text(chosen), dtype=dtype)
