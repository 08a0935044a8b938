"""A whole run of SPCT: the stages, then the report over what is there."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.records import item_to_json
from grm_jax.judge.filling import Bar
from grm_jax.spct.curve_stage import REPORT, count_too_long, write_report
from grm_jax.spct.pipeline import CONFIG, check, locked, run_stages
from grm_jax.spct.plan import Plan
from grm_jax.spct.recipe import STAGES, Recipe
from grm_jax.spct.stage_record import read_record
from grm_jax.spct.stages import Workshop


@dataclasses.dataclass(frozen=True)
class Result:
    """The report, its folder, and how many evaluation items were too long for some judge."""

    report: dict[str, Any]
    folder: Path
    too_long: int


def run_spct(
    recipe: Recipe, folder: Path, chosen: Sequence[str], configuration: str, *, bar: Bar, report: Callable[[str], None]
) -> Result | None:
    """Runs the stages chosen and, when the curve is among them, writes the report.

    Everything that can be refused is refused before the first stage begins. The configuration is kept in `config.gin`,
    the items in `items/`.

    Args:
        recipe: settings of the stages chosen.
        folder: of the run, new or one to go on in.
        chosen: names of stages.
        configuration: the settings as text, to be kept.
        bar: shows progress.
        report: told what happens, a line at a time.

    Returns:
        The report; None without the stage curve.

    Raises:
        UserError: as `Plan`, `pipeline.check` and `locked`, and what a stage raises.
    """
    plan = Plan(recipe, folder, chosen)
    stages = Workshop(plan, report).stages()
    check(folder, stages)
    with locked(folder):
        (folder / CONFIG).write_text(configuration, encoding="utf-8")
        for name, items in {**plan.items, "evaluation": plan.evaluation}.items():
            if items:
                (folder / "items").mkdir(exist_ok=True)
                write_jsonl(folder / "items" / f"{name}.jsonl", map(item_to_json, items))
        run_stages(folder, stages, bar=bar, report=report)
        if "curve" not in chosen:
            return None
        report("report: votes at every k")
        records = {name: read_record(folder / name) for name in STAGES}
        spct, home = recipe.spct, folder / "curve"
        written = write_report(
            plan.judges, plan.evaluation, plan.curve, spct.ks, home, folder / REPORT,
            k_meta=spct.k_meta, subsets=spct.subsets,
            minutes={name: record.seconds / 60 for name, record in records.items() if record},
        )  # fmt: skip
        too_long = count_too_long(plan.judges, plan.evaluation, home)
        return Result(written, folder / REPORT, too_long)
