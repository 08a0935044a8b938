"""The stages of SPCT: base -> RFT -> GRPO -> meta RM -> curve, as `spct.pipeline` runs them.

Each reads the last judge before it that is run or finished, so that a stage may be left out: GRPO without a cold start
trains the base model, and a curve without GRPO ends at rejective fine-tuning.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.folder import fingerprint
from grm_jax.data.mixture import SftData
from grm_jax.data.records import Item
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError
from grm_jax.judge.filling import Bar, fill
from grm_jax.judge.judge import Judge
from grm_jax.judge.loading import model_folder
from grm_jax.judge.run_folder import RunFolder
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.curve_stage import run_curve_stage
from grm_jax.spct.grpo_stage import run_grpo_stage
from grm_jax.spct.items import items_digest
from grm_jax.spct.meta_stage import run_meta_stage
from grm_jax.spct.pipeline import Stage, named, of_effect
from grm_jax.spct.plan import Plan
from grm_jax.spct.recipe import ACCEPTED, JUDGES
from grm_jax.spct.rft import ACCEPTED_FILE, REPORT_FILE, TRAJECTORIES_FILE, load_judge, sample_and_reject
from grm_jax.spct.sft_stage import run_sft_stage
from grm_jax.text.template_file import template_text

SAMPLES = "samples"
_META_SETTINGS = ("meta_init", "meta_samples", "meta_temperature", "meta_rounds", "max_new", "rows")


class Workshop:
    """Makes the stages of a plan; `report` is told what they have to say while they run."""

    def __init__(self, plan: Plan, report: Callable[[str], None]):
        self._plan, self._recipe, self._spct = plan, plan.recipe, plan.recipe.spct
        self._report = report

    def stages(self) -> list[Stage]:
        """The stages chosen, in their order."""
        makers = {"base": self._base, "rft": self._rft, "grpo": self._grpo, "meta": self._meta, "curve": self._curve}
        return [makers[name]() for name in self._plan.chosen]

    def _base(self) -> Stage:
        base = self._recipe.base
        assert base

        def run(home: Path, bar: Bar) -> None:
            with bar("base: training", base.sft.steps) as advance:
                run_sft_stage(
                    base.model, base.data, self._recipe.streams, base.sft, home, progress=advance, **self._common()
                )

        settings = {
            **self._shared(), "Gemma2Config": base.model.config, "ArenaTokenizer": base.model.tokenizer,
            "base/SftData": base.data, "base/Sft": of_effect(base.sft), **self._streams(base.data),
        }  # fmt: skip
        return Stage("base", settings, (), run)

    def _rft(self) -> Stage:
        rft, items = self._recipe.rft, self._plan.items["rft"]
        assert rft
        data = SftData(sources=((ACCEPTED, 1.0), *self._plan.general), seed=rft.seed)
        sampler = self._spct.sampler

        def run(home: Path, bar: Bar) -> None:
            samples = home / SAMPLES
            if not (samples / REPORT_FILE).exists():  # written last
                common = self._common()
                writer = model_folder(sampler) if sampler else self._plan.model("base")
                judge = load_judge(writer, rft.sampling, template=common["template"], dtype=common["dtype"])
                with RunFolder.open(samples, judge.identity(rft.sampling.seed), report=self._report) as store:
                    found = sample_and_reject(
                        judge, store, items, rft.sampling, bar=named(bar, "rft"), report=self._report
                    ).all
                self._report(
                    f"rft: {found.items} items, {found.too_easy} too easy, {found.hard} too hard, {found.kept} critiques kept"
                )
                del judge
            if not (samples / ACCEPTED_FILE).stat().st_size:
                raise UserError(
                    f"{samples}: no critique was accepted, so there is nothing to learn from; train the base model longer"
                )
            streams = {**self._recipe.streams, ACCEPTED: open_source(str(samples / ACCEPTED_FILE))}
            with bar("rft: training", rft.sft.steps) as advance:
                run_sft_stage(
                    self._plan.model("base"), data, streams, rft.sft, home, progress=advance, **self._common()
                )

        settings = {
            **self._shared(), **self._start("base"), "Rft": rft.sampling, "rft/Sft": of_effect(rft.sft),
            "rft/SftData": data, "items": items_digest(items), **self._streams(data),
            "Spct.sampler": fingerprint(model_folder(sampler)) if sampler else "",
        }  # fmt: skip
        return Stage("rft", settings, self._inputs("base"), run)

    def _grpo(self) -> Stage:
        grpo, items = self._recipe.grpo, self._plan.items["grpo"]
        assert grpo
        start = self._plan.grpo_start
        easy = [self._plan.folder / "rft" / SAMPLES / TRAJECTORIES_FILE] if "rft" in self._plan.there else []

        def run(home: Path, bar: Bar) -> None:
            with bar("grpo: training", grpo.steps) as advance:
                run_grpo_stage(
                    self._plan.model(start), items, grpo, home, easy=easy, progress=advance, **self._common()
                )

        settings = {**self._shared(), **self._start(start), "Grpo": of_effect(grpo), "items": items_digest(items)}
        return Stage("grpo", settings, self._inputs(start), run)

    def _meta(self) -> Stage:
        meta, spct, judge = self._recipe.meta, self._spct, self._plan.guided_judge
        assert meta
        init = spct.meta_init
        of_stage = init in JUDGES
        rft = ["rft"] if "rft" in self._plan.there else []
        known = {item.id: item for item in [*(self._plan.items["rft"] if rft else []), *self._plan.items["meta"]]}

        def run(home: Path, bar: Bar) -> None:
            start: Path | str = self._plan.model(init) if of_stage else init
            sources = [self._plan.folder / "rft" / SAMPLES / TRAJECTORIES_FILE] if rft else []
            for number in range(1, spct.meta_rounds + 1):
                drawn = home / f"{SAMPLES}-{number}"
                self._draw(
                    judge, drawn, self._plan.items["meta"], spct.meta_samples, spct.seed + number, named(bar, "meta")
                )
                output = home if number == spct.meta_rounds else home / f"round-{number}"
                with bar("meta: training", meta.steps) as advance:
                    start = run_meta_stage(
                        start, list(known.values()), [*sources, drawn], meta, output,
                        dtype=spct.dtype or None, progress=advance, report=self._say("meta"),
                    )  # fmt: skip
                sources = []

        settings = {
            **self._shared(), **self._start("base"), "Spct": {name: getattr(spct, name) for name in _META_SETTINGS},
            "judge": judge, "meta model": "" if of_stage else fingerprint(model_folder(init)),
            "MetaRm": of_effect(meta), "items": items_digest(list(known.values())),
        }  # fmt: skip
        return Stage("meta", settings, self._inputs(judge, *rft, *([init] if of_stage else [])), run)

    def _curve(self) -> Stage:
        spct = self._spct
        curve = self._plan.curve
        judges = {name: self._plan.model(name) for name in self._plan.judges}
        meta = self._plan.model("meta") if "meta" in self._plan.there else None

        def run(home: Path, bar: Bar) -> None:
            run_curve_stage(
                judges, meta, self._plan.evaluation, curve, home, bar=bar, report=self._report,
                template=spct.template or None, dtype=spct.dtype or None,
            )  # fmt: skip

        sampled = {"k": curve.k, "temperatures": curve.temperatures, "max_new": curve.max_new, "rows": curve.rows}
        items = items_digest(self._plan.evaluation)
        settings = {**self._shared(), **self._start("base"), "Spct": sampled, "items": items}
        free = frozenset({"Spct.k", "Spct.temperatures", "items"})
        return Stage("curve", settings, self._inputs(*self._plan.judges, *(["meta"] if meta else [])), run, free)

    def _draw(self, name: str, home: Path, items: Sequence[Item], k: int, seed: int, bar: Bar) -> None:
        spct = self._spct
        judge = Judge.load(
            self._plan.model(name), template=spct.template or None, dtype=spct.dtype or None, rows=spct.rows,
            policy=SamplingPolicy(temperature=spct.meta_temperature), max_new=spct.max_new or None,
        )  # fmt: skip
        with RunFolder.open(home, judge.identity(seed), report=self._report) as store:
            fill(judge, store, items, k, seed, bar=bar)

    def _common(self) -> dict[str, Any]:
        return {"template": self._spct.template or None, "dtype": self._spct.dtype or None, "report": self._report}

    def _shared(self) -> dict[str, Any]:
        template = template_text(self._spct.template) if self._spct.template else ""
        return {"template": template, "Spct.dtype": self._spct.dtype, "Spct.seed": self._spct.seed}

    def _streams(self, data: SftData) -> dict[str, Any]:
        streams = self._recipe.streams
        return {f"source {spec}": streams[spec] for spec, _ in data.sources if spec in streams}

    def _start(self, name: str) -> dict[str, Any]:
        """What names a model that no stage made."""
        return {"Spct.base": self._plan.given} if name == "base" and self._spct.base else {}

    def _inputs(self, *names: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in names if not (name == "base" and self._spct.base)))

    def _say(self, name: str) -> Callable[[str], None]:
        return lambda message: self._report(f"{name}: {message}")
