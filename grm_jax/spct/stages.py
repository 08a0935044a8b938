"""The stages of SPCT: base -> RFT -> GRPO -> meta RM -> curve, as `spct.pipeline` runs them.

Each reads the last judge before it that is run or finished, so that a stage may be left out: GRPO without a cold start
trains the base model, and a curve without GRPO ends at rejective fine-tuning.
"""

import dataclasses
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
from grm_jax.spct.curve_stage import Curve, run_curve_stage
from grm_jax.spct.items import Stretch, evaluation_items, items_digest, training_items
from grm_jax.spct.meta_stage import run_meta_stage
from grm_jax.spct.pipeline import Stage, is_finished
from grm_jax.spct.recipe import ACCEPTED, JUDGES, STAGES, Recipe
from grm_jax.spct.rft import ACCEPTED_FILE, REPORT_FILE, TRAJECTORIES_FILE, check_hints, load_judge, sample_and_reject
from grm_jax.spct.sft_stage import MODEL, default_template, run_sft_stage
from grm_jax.text.template_file import load_template, template_text
from grm_jax.train.training import Training

SAMPLES = "samples"
_META_SETTINGS = ("meta_init", "meta_samples", "meta_temperature", "meta_rounds", "max_new", "rows")
_WITHOUT_EFFECT = ("save_every", "log_every", "export_every", "peak_flops")


class Workshop:
    """Makes the stages of one run; everything that can be wrong is looked at when it is made."""

    def __init__(self, recipe: Recipe, folder: Path, chosen: Sequence[str], report: Callable[[str], None]):
        """Reads items and what is finished in the folder.

        Args:
            recipe: has the settings of the stages chosen.
            folder: of the run.
            chosen: names of stages to run; one that is not may be finished there.
            report: told what stages have to say.

        Raises:
            UserError: a stage lacks what it reads, or anything of its settings cannot be.
        """
        spct = recipe.spct
        self._recipe, self._folder, self._report, self._spct = recipe, folder, report, spct
        self._chosen = [name for name in STAGES if name in chosen and not (name == "base" and spct.base)]
        there = [name for name in STAGES if name in self._chosen or (name != "curve" and is_finished(folder, name))]
        self._there = [
            *(["base"] if spct.base else []),
            *(name for name in there if not (spct.base and name == "base")),
        ]
        self.judges = [name for name in JUDGES if name in self._there]
        self.has_meta = "meta" in self._there
        if spct.base:
            self._given = f"{spct.base}@{fingerprint(model_folder(spct.base))}"
        self._check()
        stretches = {
            "rft": Stretch("rft_items", 0, spct.rft_items),
            "grpo": Stretch("grpo_items", spct.grpo_first, spct.grpo_items),
            "meta": Stretch("meta_items", spct.meta_first, spct.meta_items),
        }
        # The meta reward model reads the critiques of both.
        needed = {name for name in stretches if name in self._chosen}
        needed |= {"rft"} if "meta" in self._chosen and "rft" in self._there else set()
        everything = training_items(spct, [stretches[name] for name in sorted(needed)])
        self.items = {name: stretches[name].of(everything) if name in needed else [] for name in stretches}
        self.evaluation = evaluation_items(spct) if "curve" in self._chosen else []
        if recipe.rft and recipe.rft.sampling.hinted:
            check_hints(load_template(self._wording()), self.items["rft"])

    def stages(self) -> list[Stage]:
        """The stages chosen, in their order."""
        makers = {"base": self._base, "rft": self._rft, "grpo": self._grpo, "meta": self._meta, "curve": self._curve}
        return [makers[name]() for name in self._chosen]

    @property
    def curve(self) -> Curve:
        """What the curve samples."""
        spct = self._spct
        return Curve(max(spct.ks), tuple(map(float, spct.temperatures)), spct.max_new, spct.rows, spct.seed)

    def model(self, name: str) -> Path:
        """The folder of a stage's model, there or to be made."""
        return model_folder(self._spct.base) if name == "base" and self._spct.base else self._folder / name / MODEL

    def _check(self) -> None:
        spct, recipe = self._spct, self._recipe
        if set(self._chosen) - {"base"} and not self.judges:
            raise UserError("no model to start from: run the stage base as well, or set Spct.base to a model folder")
        if "rft" in self._chosen and "base" not in self._there:
            raise UserError("stage rft starts from base, which is neither run nor finished; run it as well")
        if "meta" in self._chosen and spct.meta_init in JUDGES and spct.meta_init not in self._there:
            raise UserError(
                f"Spct.meta_init is {spct.meta_init!r}, a stage that is neither run nor finished; choose another"
            )
        if spct.template:
            load_template(spct.template)
        sources = [*(recipe.base.data.sources if recipe.base else ()), *(self._general() if recipe.rft else ())]
        for spec, _ in sources:
            if spec not in recipe.streams:
                open_source(spec)
        if "meta" in self._chosen and spct.meta_init not in JUDGES:
            model_folder(spct.meta_init)

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
            "base/SftData": base.data, "base/Sft": _of_effect(base.sft), **self._streams(base.data),
        }  # fmt: skip
        return Stage("base", settings, (), run)

    def _rft(self) -> Stage:
        rft, items = self._recipe.rft, self.items["rft"]
        assert rft
        data = SftData(sources=((ACCEPTED, 1.0), *self._general()), seed=rft.seed)

        def run(home: Path, bar: Bar) -> None:
            samples = home / SAMPLES
            if not (samples / REPORT_FILE).exists():  # written last
                common = self._common()
                judge = load_judge(self.model("base"), rft.sampling, template=common["template"], dtype=common["dtype"])
                with RunFolder.open(samples, judge.identity(rft.sampling.seed), report=self._report) as store:
                    found = sample_and_reject(
                        judge, store, items, rft.sampling, bar=_named(bar, "rft"), report=self._report
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
                run_sft_stage(self.model("base"), data, streams, rft.sft, home, progress=advance, **self._common())

        settings = {
            **self._shared(), **self._start("base"), "Rft": rft.sampling, "rft/Sft": _of_effect(rft.sft),
            "rft/SftData": data, "items": items_digest(items), **self._streams(data),
        }  # fmt: skip
        return Stage("rft", settings, self._inputs("base"), run)

    def _grpo(self) -> Stage:
        grpo, items = self._recipe.grpo, self.items["grpo"]
        assert grpo
        start = [name for name in self.judges if name != "grpo"][-1]
        easy = [self._folder / "rft" / SAMPLES / TRAJECTORIES_FILE] if "rft" in self._there else []

        def run(home: Path, bar: Bar) -> None:
            from grm_jax.spct.grpo_stage import run_grpo_stage

            with bar("grpo: training", grpo.steps) as advance:
                run_grpo_stage(self.model(start), items, grpo, home, easy=easy, progress=advance, **self._common())

        settings = {**self._shared(), **self._start(start), "Grpo": _of_effect(grpo), "items": items_digest(items)}
        return Stage("grpo", settings, self._inputs(start), run)

    def _meta(self) -> Stage:
        meta, spct, judge = self._recipe.meta, self._spct, self.judges[-1]
        assert meta
        init = spct.meta_init
        of_stage = init in JUDGES
        rft = ["rft"] if "rft" in self._there else []
        known = {item.id: item for item in [*(self.items["rft"] if rft else []), *self.items["meta"]]}

        def run(home: Path, bar: Bar) -> None:
            start: Path | str = self.model(init) if of_stage else init
            sources = [self._folder / "rft" / SAMPLES / TRAJECTORIES_FILE] if rft else []
            for number in range(1, spct.meta_rounds + 1):
                drawn = home / f"{SAMPLES}-{number}"
                self._draw(judge, drawn, self.items["meta"], spct.meta_samples, spct.seed + number, _named(bar, "meta"))
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
            "MetaRm": _of_effect(meta), "items": items_digest(list(known.values())),
        }  # fmt: skip
        return Stage("meta", settings, self._inputs(judge, *rft, *([init] if of_stage else [])), run)

    def _curve(self) -> Stage:
        spct = self._spct
        curve = self.curve
        judges = {name: self.model(name) for name in self.judges}
        meta = self.model("meta") if self.has_meta else None

        def run(home: Path, bar: Bar) -> None:
            run_curve_stage(
                judges, meta, self.evaluation, curve, home, bar=bar, report=self._report,
                template=spct.template or None, dtype=spct.dtype or None,
            )  # fmt: skip

        settings = {**self._shared(), **self._start("base"), "curve": curve, "items": items_digest(self.evaluation)}
        free = frozenset({"curve.k", "curve.temperatures", "items"})
        return Stage("curve", settings, self._inputs(*self.judges, *(["meta"] if meta else [])), run, free)

    def _draw(self, name: str, home: Path, items: Sequence[Item], k: int, seed: int, bar: Bar) -> None:
        spct = self._spct
        judge = Judge.load(
            self.model(name), template=spct.template or None, dtype=spct.dtype or None, rows=spct.rows,
            policy=SamplingPolicy(temperature=spct.meta_temperature), max_new=spct.max_new or None,
        )  # fmt: skip
        with RunFolder.open(home, judge.identity(seed), report=self._report) as store:
            fill(judge, store, items, k, seed, bar=bar)

    def _general(self) -> tuple[tuple[str, float], ...]:
        return ((self._spct.general, self._spct.general_weight),) if self._spct.general_weight else ()

    def _wording(self) -> str | Path:
        made = not self._spct.base and "base" in self._chosen
        return self._spct.template or default_template(self.model("base"), new=made)

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
        return {"Spct.base": self._given} if name == "base" and self._spct.base else {}

    def _inputs(self, *names: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in names if not (name == "base" and self._spct.base)))

    def _say(self, name: str) -> Callable[[str], None]:
        return lambda message: self._report(f"{name}: {message}")


def _of_effect(settings: Training) -> dict[str, Any]:
    """The settings of a training without those that its result does not depend on."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings) if field.name not in _WITHOUT_EFFECT
    }  # fmt: skip


def _named(bar: Bar, stage: str) -> Bar:
    return lambda what, total: bar(f"{stage}: {what}", total)
