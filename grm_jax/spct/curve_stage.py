"""The last stage: every judge on the evaluation items, sampled for the largest k, with meta scores beside the samples.

RUN/curve/<judge>-greedy/   a run folder of one greedy critique an item
RUN/curve/<judge>-<T>/      a run folder of k critiques an item at temperature T
RUN/report/                 report.json, report.md, curve.png and one plot for each group of items
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.files import replacing, write_json
from grm_jax.data.records import PROMPT_TOO_LONG, Item
from grm_jax.errors import UserError
from grm_jax.evaluate.curve_plots import save_curve_plot
from grm_jax.evaluate.curve_report import ALL, Run, curve_report
from grm_jax.evaluate.curve_tables import to_markdown
from grm_jax.judge.filling import Bar, fill, fill_meta_scores
from grm_jax.judge.judge import Judge
from grm_jax.judge.meta import MetaModel, meta_name
from grm_jax.judge.run_folder import RunFolder, read_run
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.acceptance import accepted

REPORT, REPORT_JSON, REPORT_TEXT, PLOT = "report", "report.json", "report.md", "curve.png"


@dataclasses.dataclass(frozen=True)
class Curve:
    """What is sampled.

    Attributes:
        k: critiques an item at each temperature.
        temperatures: positive; one greedy critique an item is drawn as well.
        max_new: tokens a critique; 0 is the judge's default.
        rows: critiques decoded together.
        seed: of orders and samples.
    """

    k: int
    temperatures: tuple[float, ...]
    max_new: int
    rows: int
    seed: int


def run_curve_stage(
    judges: Mapping[str, Path],
    meta: Path | None,
    items: Sequence[Item],
    curve: Curve,
    home: Path,
    *,
    bar: Bar,
    report: Callable[[str], None],
    template: str | Path | None = None,
    dtype: str | None = None,
) -> None:
    """Draws what the run folders lack and scores what has no meta score; run again, it goes on.

    Args:
        judges: model folders by name.
        meta: the meta model's folder, None for none.
        items: labelled.
        curve: settings.
        home: the stage's folder.
        bar: shows progress.
        report: told of torn lines.
        template: as for `Judge.load`.
        dtype: as for `Judge.load`, of the meta model too.

    Raises:
        UserError: a model cannot be loaded, or a run folder was made with other settings.
    """
    for name, folder in judges.items():
        for temperature in (0.0, *curve.temperatures):
            judge = Judge.load(
                folder, template=template, dtype=dtype, policy=SamplingPolicy(temperature=temperature),
                max_new=curve.max_new or None, rows=curve.rows,
            )  # fmt: skip
            path = _path(home, name, temperature)
            with RunFolder.open(path, judge.identity(curve.seed), report=report) as store:
                fill(judge, store, items, curve.k if temperature else 1, curve.seed, bar=_named(bar, path.name))
            del judge
    if meta is None:
        return
    name, loaded = meta_name(meta), dict[str, MetaModel]()

    def load() -> MetaModel:
        return loaded.get("meta") or loaded.setdefault("meta", MetaModel.load(meta, dtype=dtype))

    for judge_name in judges:
        for temperature in curve.temperatures:
            path = _path(home, judge_name, temperature)
            with RunFolder.reopen(path, report=report) as store:
                fill_meta_scores(load, store, items, name, bar=_named(bar, path.name))


def write_report(
    judges: Sequence[str],
    items: Sequence[Item],
    curve: Curve,
    ks: Sequence[int],
    home: Path,
    output: Path,
    *,
    k_meta: float,
    subsets: int,
    minutes: Mapping[str, float],
) -> dict[str, Any]:
    """Reads the stage's run folders, no model, and writes the report; returns it.

    Args:
        judges: names, in the order of training.
        items: those to report on; their `meta.held_out`, where there is one, makes the groups "in_family" and "held_out".
        curve: what was sampled.
        ks: rising.
        home: the stage's folder.
        output: the report's folder.
        k_meta: of guided voting, as for `voting.decide`.
        subsets: of samples, for each k.
        minutes: by stage.

    Raises:
        UserError: an item is not judged yet.
    """
    held_out = {item.id: item.meta["held_out"] for item in items if isinstance(item.meta.get("held_out"), bool)}
    groups = {
        name: frozenset(item_id for item_id, is_held_out in held_out.items() if is_held_out == wanted)
        for name, wanted in (("in_family", False), ("held_out", True))
    }
    found = curve_report(
        _runs(judges, items, curve, home), ks, {name: ids for name, ids in groups.items() if ids}, accepted,
        k_meta=k_meta, subsets=subsets, seed=curve.seed,
    )  # fmt: skip
    found["minutes"] = dict(minutes)
    output.mkdir(parents=True, exist_ok=True)
    plots = {PLOT if group == ALL else f"curve_{group}.png": group for group in found["items"]}
    for file, group in plots.items():
        with replacing(output / file) as temporary:
            save_curve_plot(temporary, found, group)
    with replacing(output / REPORT_TEXT) as temporary:
        temporary.write_text(to_markdown(found, list(plots)), encoding="utf-8")
    write_json(output, REPORT_JSON, found)
    return found


def count_too_long(judges: Sequence[str], items: Sequence[Item], home: Path) -> int:
    """Counts the items of which some judge's prompt did not fit into its context."""
    ids = {
        entry.judgement.id
        for name in judges
        for entry in read_run(_path(home, name, 0.0))
        if PROMPT_TOO_LONG in entry.judgement.outcomes
    }
    return len(ids & {item.id for item in items})


def _runs(judges: Sequence[str], items: Sequence[Item], curve: Curve, home: Path) -> Iterator[Run]:
    for name in judges:
        for temperature in (0.0, *curve.temperatures):
            path = _path(home, name, temperature)
            judged = {entry.judgement.id: entry for entry in read_run(path)}
            missing = [item.id for item in items if item.id not in judged]
            if missing:
                raise UserError(f"{path}: item {missing[0]!r} is not judged yet; run the stage curve")
            yield Run(name, temperature, [judged[item.id] for item in items])


def _path(home: Path, judge: str, temperature: float) -> Path:
    return home / (f"{judge}-{temperature:g}" if temperature else f"{judge}-greedy")


def _named(bar: Bar, run: str) -> Bar:
    return lambda what, total: bar(f"{run}: {what}", total)
