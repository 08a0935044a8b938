"""A whole comparison of paradigms: the stages, then the report over them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.folder import leaves
from grm_jax.data.arena import aids, world
from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.mixture import ARENA
from grm_jax.data.records import Item, item_from_json, item_to_json
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError
from grm_jax.judge.filling import Bar
from grm_jax.judge.loading import model_folder
from grm_jax.paradigms.evaluation import bare
from grm_jax.paradigms.recipe import EVALUATION, Paradigms, Recipe
from grm_jax.paradigms.report import write_report
from grm_jax.paradigms.stages import Workshop
from grm_jax.spct.items import Stretch, labelled_items
from grm_jax.spct.pipeline import CONFIG, check, is_finished, locked, run_stages
from grm_jax.spct.stage_record import read_record
from grm_jax.text.template_file import load_template

REPORT = "report"


def run_paradigms(
    recipe: Recipe, folder: Path, chosen: Sequence[str], configuration: str, *, bar: Bar, report: Callable[[str], None]
) -> dict[str, Any] | None:
    """Runs the stages chosen and, when every size is evaluated, writes the report.

    Everything that can be refused is refused before the first stage begins. The configuration is kept in `config.gin`,
    the items in `items/`.

    Args:
        recipe: settings of the stages.
        folder: of the run, new or one to go on in.
        chosen: names of stages, of `recipe.paradigms.stages`.
        configuration: the settings as text, to be kept.
        bar: shows progress.
        report: told what happens, a line at a time.

    Returns:
        The report; None where an evaluation is still to be made, or none was chosen.

    Raises:
        UserError: items or models cannot be read, as `pipeline.check` and `locked`, and what a stage raises.
    """
    settings = recipe.paradigms
    _check(recipe)
    items = preference_items(settings)
    is_evaluated = any(name.endswith(f"/{EVALUATION}") for name in chosen)
    evaluation = evaluation_items(settings) if is_evaluated else []
    workshop = Workshop(recipe, folder, items, evaluation, report)
    stages = [workshop.stage(name) for name in chosen]
    check(folder, stages)
    with locked(folder):
        (folder / CONFIG).write_text(configuration, encoding="utf-8")
        (folder / "items").mkdir(exist_ok=True)
        for name, some in (("preferences", items), (EVALUATION, evaluation)):
            if some:
                write_jsonl(folder / "items" / f"{name}.jsonl", map(item_to_json, some))
        run_stages(folder, stages, bar=bar, report=report)
        if not is_evaluated or not all(is_finished(folder, f"{size}/{EVALUATION}") for size in settings.sizes):
            return None
        report("report: votes at every k")
        records = {name: read_record(folder / name) for name in settings.stages}
        minutes = {name: record.seconds / 60 for name, record in records.items() if record}
        shapes = {size: _shape(workshop.model(f"{size}/grm")) for size in settings.sizes}
        return write_report(settings, evaluation, folder, folder / REPORT, minutes=minutes, shapes=shapes)


def _shape(model: Path) -> dict[str, int]:
    config, found = leaves(model)
    parameters = sum(math.prod(shape) for shape, _ in found.values())
    return {"model_dim": config.model_dim, "num_layers": config.num_layers, "parameters": parameters}


def preference_items(settings: Paradigms) -> list[Item]:
    """Reads the items that scalar models learn from, without aids: what is compared has none.

    Raises:
        UserError: they cannot be read, are too few, or one has no label.
    """
    stretch = Stretch("Paradigms.preference_items", 0, settings.preference_items)
    return [bare(item) for item in stretch.of(labelled_items(settings.items, "train", settings.item_seed, [stretch]))]


def evaluation_items(settings: Paradigms) -> list[Item]:
    """Reads the items that are judged, those of two responses or more; raises as `preference_items`."""
    stretch = Stretch("Paradigms.evaluation_items", 0, settings.evaluation_items)
    items = stretch.of(labelled_items(settings.evaluation, settings.split, settings.item_seed, [stretch]))
    if settings.evaluation == ARENA:
        examples = (world.generate(settings.split, i, settings.item_seed) for i in range(len(items)))
        aided = (aids.aided(example, principles=True, with_reference=True) for example in examples)
        items = [item_from_json(item, ARENA) for item in aided]
    found = [item for item in items if len(item.responses) > 1]
    if not found:
        raise UserError(
            f"{settings.evaluation}: no item has two responses, so nothing can be compared; give other items"
        )
    return found


def _check(recipe: Recipe) -> None:
    """Looks at what is read later: models, templates, sources."""
    settings = recipe.paradigms
    if load_template(settings.judge_template).answer != "best":
        wording = settings.judge_template
        raise UserError(
            f'Paradigms.judge_template: {wording} has no answer = "best"; give one that names the best response'
        )
    if settings.base:
        leaves(model_folder(settings.base))
    for stage in recipe.supervised.values():
        for spec, _ in stage.data.sources:
            if spec not in stage.streams:
                open_source(spec)
