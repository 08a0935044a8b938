"""The stages of a comparison of paradigms, as `spct.pipeline` runs them; which there are, `paradigms.recipe` says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.folder import fingerprint
from grm_jax.data.parts import singles
from grm_jax.data.records import Item
from grm_jax.judge.filling import Bar, fill
from grm_jax.judge.judge import Judge
from grm_jax.judge.loading import model_folder
from grm_jax.judge.run_folder import RunFolder
from grm_jax.paradigms.evaluation import Evaluation, draw
from grm_jax.paradigms.recipe import EVALUATION, TUNED, Recipe, Supervised
from grm_jax.paradigms.reward_stage import run_reward_stage
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.items import items_digest
from grm_jax.spct.pipeline import Stage, named, of_effect
from grm_jax.spct.sft_stage import MODEL, run_sft_stage
from grm_jax.text.template_file import template_text

CRITIQUES = "critiques"


class Workshop:
    """Makes stages."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        items: Sequence[Item],
        evaluation: Sequence[Item],
        report: Callable[[str], None],
    ):
        """`items` are those the scalar models learn from, `evaluation` those that are judged; `report` is told what happens."""
        self._recipe, self._paradigms, self._folder = recipe, recipe.paradigms, folder
        self._items, self._evaluation, self._report = list(items), list(evaluation), report

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        size, kind = name.split("/")
        if kind == EVALUATION:
            return self._evaluate(name, size)
        if kind == "base":
            return self._base(name, size)
        return self._tuned(name, size, kind) if kind in TUNED else self._reward(name, size, kind)

    def model(self, name: str) -> Path:
        """The folder of a stage's model, there or to be made."""
        return model_folder(self._paradigms.base) if self._is_given(name) else self._folder / name / MODEL

    def _base(self, name: str, size: str) -> Stage:
        shape, base = self._recipe.shapes[size], self._recipe.supervised["base"]

        def run(home: Path, bar: Bar) -> None:
            with bar(f"{name}: training", base.sft.steps) as advance:
                run_sft_stage(shape, base.data, base.streams, base.sft, home, progress=advance, report=self._report)

        return Stage(
            name, {"Gemma2Config": shape.config, "ArenaTokenizer": shape.tokenizer, **_settings(base)}, (), run
        )

    def _tuned(self, name: str, size: str, kind: str) -> Stage:
        tuning, base = self._recipe.supervised[kind], f"{size}/base"
        template = self._paradigms.judge_template if kind == "judge" else None

        def run(home: Path, bar: Bar) -> None:
            with bar(f"{name}: training", tuning.sft.steps) as advance:
                run_sft_stage(
                    self.model(base), tuning.data, tuning.streams, tuning.sft, home,
                    template=template, progress=advance, report=self._report,
                )  # fmt: skip

        wording = {"template": template_text(template)} if template else {}
        return Stage(name, {**_settings(tuning), **wording, **self._given(base)}, self._inputs(base), run)

    def _reward(self, name: str, size: str, kind: str) -> Stage:
        settings, start = self._recipe.rewards[kind], f"{size}/{'critic' if kind == 'cloud' else 'base'}"
        items, about = self._items, {}
        if kind == "cloud":
            items = items[: self._paradigms.critic_items or None]
            about = {
                n: getattr(self._paradigms, n) for n in ("critic_samples", "temperature", "max_new", "rows", "seed")
            }

        def run(home: Path, bar: Bar) -> None:
            if kind == "cloud":
                self._criticise(start, items, home / CRITIQUES, named(bar, name))
            with bar(f"{name}: training", settings.steps) as advance:
                run_reward_stage(
                    kind, self.model(start), items, settings, home, critiques=home / CRITIQUES if kind == "cloud" else None,
                    progress=advance, report=lambda message: self._report(f"{name}: {message}"),
                )  # fmt: skip

        about |= {"RewardModel": of_effect(settings), "items": items_digest(items), **self._given(start)}
        return Stage(name, about, self._inputs(start), run)

    def _criticise(self, critic: str, items: Sequence[Item], home: Path, bar: Bar) -> None:
        """Draws critiques of every response by itself; run again, it goes on."""
        settings = self._paradigms
        judge = Judge.load(
            self.model(critic), policy=SamplingPolicy(temperature=settings.temperature),
            max_new=settings.max_new or None, rows=settings.rows,
        )  # fmt: skip
        parts = [part for item in items if len(item.responses) > 1 for part in singles(item)]
        with RunFolder.open(home, judge.identity(settings.seed), report=self._report) as store:
            fill(judge, store, parts, settings.critic_samples, settings.seed, bar=bar)

    def _evaluate(self, name: str, size: str) -> Stage:
        settings = self._paradigms
        what = Evaluation(max(settings.ks), settings.temperature, settings.max_new, settings.rows, settings.seed)
        inputs = [
            each for each in settings.stages if each.startswith(f"{size}/") and each not in (name, f"{size}/base")
        ]

        def run(home: Path, bar: Bar) -> None:
            models = {each.partition("/")[2]: self.model(each) for each in inputs}
            for row in settings.rows_of(size):
                draw(row, models, self._evaluation, what, home, bar=named(bar, f"{name}: {row}"), report=self._report)

        about = {"Paradigms": what, "items": items_digest(self._evaluation)}
        return Stage(name, about, tuple(inputs), run, frozenset({"Paradigms.k", "items"}))

    def _is_given(self, name: str) -> bool:
        return bool(self._paradigms.base) and name == f"{self._paradigms.largest}/base"

    def _given(self, name: str) -> dict[str, Any]:
        """What names a model that no stage made."""
        return {"Paradigms.base": fingerprint(model_folder(self._paradigms.base))} if self._is_given(name) else {}

    def _inputs(self, name: str) -> tuple[str, ...]:
        return () if self._is_given(name) else (name,)


def _settings(stage: Supervised) -> dict[str, Any]:
    """All that the result of a supervised stage depends on besides its model."""
    sources = {f"source {spec}": stage.streams[spec] for spec, _ in stage.data.sources if spec in stage.streams}
    return {"SftData": stage.data, "Sft": of_effect(stage.sft), **sources}
