"""The stage of rule-based reinforcement learning: from a judge and labelled items to a folder that `Judge.load` reads."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grm_jax.checkpoints.folder import leaves, load_params, save_trained
from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.judge import Judge
from grm_jax.judge.loading import JudgeModel, model_folder
from grm_jax.parallel.layout import layouts
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.difficulty import easy_items
from grm_jax.spct.rollouts import Rollouts
from grm_jax.text.template import Prompt
from grm_jax.text.template_file import load_template, template_text
from grm_jax.text.tokenizer import check_tokenizer, load_tokenizer
from grm_jax.train.grpo import Grpo, make_scorer, train_grpo
from grm_jax.train.optimizer import decayed
from grm_jax.train.step import Batch

MODEL = "model"
_LOWEST, _HIGHEST = 1, 10  # scores that a judge can give


def run_grpo_stage(
    model: str | Path,
    items: Sequence[Item],
    settings: Grpo,
    output: Path,
    *,
    reference: str | Path | None = None,
    easy: Sequence[str | Path] = (),
    template: str | Path | None = None,
    dtype: str | None = None,
    progress: Callable[[int, str], None] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Trains a judge on its own critiques and saves it; called again, it goes on where it was stopped.

    Args:
        model: what to start from: "tiny" or a judge's folder.
        items: each with a label.
        settings: of the training.
        output: the stage's folder; the model goes to `output/model/`, those saved on the way to `output/model-STEP/`.
        reference: the policy that the KL penalty holds on to, of the same vocabulary; None for the starting model.
        easy: sources of critiques (`difficulty.easy_items`): items all of whose critiques are right are left out.
        template: name or file of the prompt template; default: the model's own, else "grm".
        dtype: of the saved weights; None for float32.
        progress: as for `fit`.
        report: told what is learnt from, of models saved on the way, and how many shapes were compiled.

    Returns:
        The folder of the model.

    Raises:
        UserError: before anything is computed: an item without a label that scores can meet, no item left, a reference of
            another vocabulary, and what cannot be read; later what `fit` refuses.
    """
    check_labels(items)
    source = model_folder(model)
    other = source if reference is None else model_folder(reference)
    config, _ = leaves(source)
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, config.vocab_size)
    check_reference(source, other)
    wording = template or (source / "template.toml" if (source / "template.toml").is_file() else "grm")
    loaded = load_template(wording)
    too_easy = easy_items(easy, items)
    left = [item for item in items if item.id not in too_easy]

    config, params = load_params(source, "float32", layouts().train)
    judge = Judge(
        JudgeModel(source.name, config, _computed(params, settings), tokenizer, loaded),
        policy=SamplingPolicy(temperature=settings.temperature), max_new=settings.max_new or None, rows=settings.rows,
    )  # fmt: skip
    settings = dataclasses.replace(settings, max_new=judge.max_new)
    fitting = [item for item in left if isinstance(judge.prompt(item, tuple(range(len(item.responses)))), Prompt)]
    report(
        f"{len(fitting)} items to learn from; left out: {len(items) - len(left)} too easy, "
        f"{len(left) - len(fitting)} with prompts over {judge.prompt_limit} tokens"
    )
    if not fitting:
        raise UserError(
            "no item is left to learn from; give harder items, shorter ones, or a model of a longer context"
        )
    rollouts = Rollouts(
        judge, fitting, settings, reference=_reference(other, settings) if _uses_reference(reference, settings) else None,
        scorer=make_scorer(config, settings) if settings.updates > 1 else None,
    )  # fmt: skip

    def save(name: str, params: Any) -> Path:
        return save_trained(output / name, config, params, source, template_text(wording), dtype=dtype)

    def export(step: int, params: Any) -> None:
        report(f"saved {save(f'{MODEL}-{step}', params)}")

    trained = train_grpo(config, params, rollouts, settings, output, progress=progress, export=export)
    report(f"shapes compiled: {len(judge.sampler.compilations)} to sample, {len(rollouts.shapes)} to train")
    return save(MODEL, trained)


def check_labels(items: Sequence[Item]) -> None:
    """Refuses items from which nothing can be learnt by Eq 11 of arXiv 2504.02495.

    Raises:
        UserError: there is no item, one has no label, or a single response has a label that is no score from 1 to 10.
    """
    if not items:
        raise UserError("there is no item to learn from; give labelled items")
    unlabelled = [item.id for item in items if item.label is None]
    if unlabelled:
        raise UserError(
            f"item {unlabelled[0]!r} has no label, as {len(unlabelled)} of {len(items)}; GRPO needs one each"
        )
    for item in items:
        if len(item.responses) == 1 and item.label not in range(_LOWEST, _HIGHEST + 1):
            raise UserError(
                f"item {item.id!r}: label {item.label} of a single response is no score from {_LOWEST} to {_HIGHEST}, "
                "so no critique can be right; map labels to that scale"
            )


def check_reference(model: str | Path, reference: str | Path) -> None:
    """Refuses a reference of another vocabulary than the model's: of another size, or whose ids mean something else.

    Raises:
        UserError: so it is, or one of the folders cannot be read.
    """
    source, other = model_folder(model), model_folder(reference)
    if other == source:
        return
    mine, theirs = leaves(source)[0].vocab_size, leaves(other)[0].vocab_size
    same = mine == theirs
    if same:
        one, two = load_tokenizer(source), load_tokenizer(other)
        same = all(one.decode([i]) == two.decode([i]) for i in range(mine))
    if not same:
        sizes = f"{theirs} entries against {mine}" if mine != theirs else f"the same {mine} ids for other pieces"
        raise UserError(f"reference {other}: has another vocabulary than {source}: {sizes}; use a model of the same")


def _uses_reference(reference: str | Path | None, settings: Grpo) -> bool:
    """Without a KL penalty the reference is computed only for who names one."""
    return reference is not None or settings.kl_coefficient > 0


def _reference(folder: Path, settings: Grpo) -> Callable[[Batch], np.ndarray]:
    config, params = load_params(folder, "float32", layouts().train)
    frozen = _computed(params, settings)
    scorer = make_scorer(config, settings)
    return lambda batch: np.asarray(scorer(frozen, batch).logprobs)


def _computed(params: Any, settings: Grpo) -> Any:
    """Parameters in the type the trainer computes with: all but norms, which it reads in float32."""
    cast = jnp.dtype(settings.dtype)
    return jax.tree.map(lambda x, matrix: x.astype(cast) if matrix else x, params, decayed(params))
