"""The meta reward model's stage: from a model and labelled critiques to a folder that `MetaModel.load` reads."""

from collections.abc import Callable, Sequence
from pathlib import Path

from grm_jax.checkpoints.folder import load_params
from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.judge.meta import has_head, load_head, save_meta
from grm_jax.model.critique_reward import HEAD, zero_head
from grm_jax.parallel.layout import layouts
from grm_jax.spct.meta_data import MetaBatches, describe, group_critiques, read_critiques
from grm_jax.text.template_file import load_template, template_text
from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
from grm_jax.train.meta_rm import MetaRm, train_meta_rm

MODEL = "model"


def run_meta_stage(
    model: str | Path,
    items: Sequence[Item],
    sources: Sequence[str | Path],
    settings: MetaRm,
    output: Path,
    *,
    template: str | Path | None = None,
    dtype: str | None = None,
    progress: Callable[[int, str], None] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Trains a meta model on critiques and saves it; called again, it goes on where it was stopped.

    Args:
        model: what to start from: "tiny", a judge's or base model's folder (the head starts at 0), or a meta model's, which is
            trained on: trunk and head.
        items: labelled, with the texts that the critiques are about.
        sources: trajectory files and run folders (`meta_data.read_critiques`).
        settings: of the training.
        output: the stage's folder; the model goes to `output/model/`.
        template: name or file of a prompt template; default: `default_template`.
        dtype: of the saved trunk; None for float32.
        progress: as for `fit`.
        report: told what there is to learn from.

    Returns:
        The folder of the meta model.

    Raises:
        UserError: what cannot be read, critiques that are all right or all wrong, or what `fit` refuses.
    """
    source = model_folder(model)
    chosen = template or default_template(source)
    wording, tokenizer = load_template(chosen), load_tokenizer(source)
    by_id = {item.id: item for item in items}
    critiques = read_critiques(sources, by_id, unreadable=settings.unreadable)
    report(describe(critiques))
    if len({critique.accepted for critique in critiques}) < 2:
        kind = "right" if critiques[0].accepted else "wrong"
        raise UserError(
            f"{sources[0]}: all critiques are {kind}, so there is nothing to tell apart; give others as well"
        )
    config, trunk = load_params(source, "float32", layouts().train)
    check_tokenizer(tokenizer, config.vocab_size)
    groups, too_long = group_critiques(
        critiques, by_id, wording, tokenizer, size=settings.group, max_tokens=config.max_length
    )
    if too_long:
        report(f"left out {too_long} critiques that do not fit into {config.max_length} tokens with their prompts")
    if not groups:
        raise UserError(f"{model}: no critique fits into its context of {config.max_length} tokens; use another model")
    head = load_head(source) if has_head(source) else zero_head(config)
    batches = MetaBatches(groups, prompts=settings.prompts, seed=settings.seed)
    params = train_meta_rm(config, trunk | {HEAD: head}, batches, settings, output, progress=progress)
    return save_meta(output / MODEL, config, params, source, template_text(chosen), dtype=dtype)


def default_template(folder: Path) -> str | Path:
    """The wording a meta model is given: its starting model's own, or "grm_meta", which is "grm" without its instructions."""
    own = folder / "template.toml"
    return own if own.is_file() and load_template(own).name != "grm" else "grm_meta"
