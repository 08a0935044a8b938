"""What a run of SPCT is to do: the stages chosen, what is there already, the items, and whether it can be.

Everything that can be known to be wrong is refused here, before the first stage begins.
"""

from collections.abc import Sequence
from pathlib import Path

from grm_jax.checkpoints.folder import fingerprint, leaves
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.spct.curve_stage import Curve
from grm_jax.spct.grpo_stage import check_labels
from grm_jax.spct.items import Stretch, evaluation_items, training_items
from grm_jax.spct.pipeline import is_finished
from grm_jax.spct.recipe import JUDGES, STAGES, Recipe
from grm_jax.spct.rft import check_hints
from grm_jax.spct.sft_stage import MODEL, default_template
from grm_jax.text.template_file import load_template


class Plan:
    """A recipe, a run folder, and the stages of it that are to be run.

    Attributes:
        recipe: settings of the stages chosen.
        folder: of the run.
        chosen: stages to run, in order; `Spct.base` takes the place of the stage base.
        there: those and the stages that are finished in the folder; base, when it is given.
        judges: those of them that end with a judge.
        items: by the stage that reads them.
        evaluation: items of the curve.
    """

    def __init__(self, recipe: Recipe, folder: Path, chosen: Sequence[str]):
        """Reads items, and what is finished in the folder.

        Raises:
            UserError: a stage lacks what it reads, or anything of its settings cannot be.
        """
        spct = recipe.spct
        self.recipe, self.folder = recipe, folder
        made = [name for name in STAGES if not (name == "base" and spct.base)]
        self.chosen = [name for name in made if name in chosen]
        found = [name for name in made if name in self.chosen or (name != "curve" and is_finished(folder, name))]
        self.there = [*(["base"] if spct.base else []), *found]
        self.judges = [name for name in JUDGES if name in self.there]
        self._check_stages()
        self._check_files()
        stretches = {
            "rft": Stretch("Spct.rft_items", 0, spct.rft_items),
            "grpo": Stretch("Spct.grpo_items", spct.grpo_first, spct.grpo_items),
            "meta": Stretch("Spct.meta_items", spct.meta_first, spct.meta_items),
        }
        # The meta reward model reads critiques that rejective fine-tuning has drawn, and so their items.
        also = {"rft"} if "meta" in self.chosen and "rft" in self.there else set()
        needed = {name: stretch for name, stretch in stretches.items() if name in {*self.chosen, *also}}
        everything = training_items(spct, list(needed.values()))
        self.items = {name: stretch.of(everything) for name, stretch in needed.items()}
        self.evaluation = evaluation_items(spct) if "curve" in self.chosen else []
        if recipe.grpo:
            check_labels(self.items["grpo"])
        if recipe.rft and recipe.rft.sampling.hinted:
            wording = spct.template or default_template(self.model("base"), new=self._is_new)
            check_hints(load_template(wording), self.items["rft"])

    @property
    def curve(self) -> Curve:
        """What the curve samples."""
        spct = self.recipe.spct
        return Curve(max(spct.ks), tuple(map(float, spct.temperatures)), spct.max_new, spct.rows, spct.seed)

    @property
    def general(self) -> tuple[tuple[str, float], ...]:
        """The source of general instructions with its weight, if it has any."""
        spct = self.recipe.spct
        return ((spct.general, spct.general_weight),) if spct.general_weight else ()

    @property
    def given(self) -> str:
        """Names the model of `Spct.base`."""
        return fingerprint(model_folder(self.recipe.spct.base))

    @property
    def guided_judge(self) -> str:
        """The judge that the meta reward model is to guide: the last."""
        return self.judges[-1]

    @property
    def grpo_start(self) -> str:
        """The judge that GRPO trains: the last before it."""
        return [name for name in self.judges if name != "grpo"][-1]

    def model(self, name: str) -> Path:
        """The folder of a stage's model, there or to be made."""
        given = name == "base" and self.recipe.spct.base
        return model_folder(self.recipe.spct.base) if given else self.folder / name / MODEL

    @property
    def _is_new(self) -> bool:
        return "base" in self.chosen

    def _check_stages(self) -> None:
        init = self.recipe.spct.meta_init
        if not self.chosen:
            raise UserError("no stage to run: Spct.base takes the place of the stage base; choose others")
        for name in ("grpo", "meta", "curve"):
            if name in self.chosen and not [judge for judge in self.judges if judge != name]:
                raise UserError(f"stage {name} needs a judge; run base as well, or set Spct.base to a model folder")
        if "rft" in self.chosen and "base" not in self.there:
            raise UserError("stage rft starts from base; run that as well, or set Spct.base to a model folder")
        if "meta" in self.chosen and init in JUDGES and init not in self.there:
            raise UserError(f"Spct.meta_init is {init!r}, a stage that is neither run nor finished; choose another")

    def _check_files(self) -> None:
        """Looks at what is read later: models, templates, sources; and whether their lengths fit."""
        spct, recipe = self.recipe.spct, self.recipe
        if spct.template:
            load_template(spct.template)
        sources = [*(recipe.base.data.sources if recipe.base else ()), *(self.general if recipe.rft else ())]
        for spec, _ in sources:
            if spec not in recipe.streams:
                open_source(spec)
        if "meta" in self.chosen and spct.meta_init not in JUDGES:
            leaves(model_folder(spct.meta_init))
        if recipe.rft and spct.sampler:
            leaves(model_folder(spct.sampler))
        if not self.judges:
            return
        config = recipe.base.model.config if recipe.base else leaves(self.model(self.judges[0]))[0]
        context = config.max_length
        rft, grpo = recipe.rft, recipe.grpo
        lengths = {"Spct": spct.max_new, "Rft": rft.sampling.max_new if rft else 0, "Grpo": grpo.max_new if grpo else 0}
        for name, max_new in lengths.items():
            if max_new >= context:
                raise UserError(
                    f"{name}.max_new is {max_new}; it must be below the model's context of {context} tokens"
                )
        if rft and rft.sft.length < context and not rft.sft.skip_long:
            raise UserError(
                f"rft/Sft.length is {rft.sft.length}, and a critique may take {context} tokens with its prompt; "
                "set it to that, or rft/Sft.skip_long = True to leave out longer ones"
            )
