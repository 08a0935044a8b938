"""The recipe of a whole SPCT run: what each stage of base -> RFT -> GRPO -> meta RM -> curve is set to.

Stages that are not run need no settings: their field is None.
"""

import dataclasses
import math
from typing import Any

from grm_jax.data.arena.world import SPLITS
from grm_jax.data.mixture import ARENA, SftData, Streams
from grm_jax.errors import UserError
from grm_jax.judge.voting import fits, fitting
from grm_jax.spct.rejection import Rft
from grm_jax.spct.sft_stage import NewModel
from grm_jax.train.grpo import Grpo
from grm_jax.train.meta_rm import MetaRm
from grm_jax.train.sft import Sft

STAGES = ("base", "rft", "grpo", "meta", "curve")
JUDGES = ("base", "rft", "grpo")
"""The stages that end with a judge, each trained from the one before."""
ACCEPTED = "accepted"
"""Names the critiques that rejective fine-tuning kept, among the sources of its mixture."""


@dataclasses.dataclass(frozen=True)
class Spct:
    """What the stages share, and what belongs to no training.

    Attributes:
        base: a model folder to start from, or "tiny"; "" makes the base model in a stage of its own.
        sampler: a model folder whose critiques rejective fine-tuning keeps or rejects; "" is the base model itself. The paper
            takes another, larger model.
        items: labelled items to learn from: "arena", or what `open_source` takes.
        item_seed: of the arena's items, for learning and evaluation; another than that of the critiques the base learnt from.
        rft_items: how many of them rejective fine-tuning samples, counted from the first; 0 takes all of a source.
        grpo_first: the first that GRPO sees.
        grpo_items: how many.
        meta_first: the first that the judge writes critiques of for the meta reward model.
        meta_items: how many.
        evaluation: where the items of the curve come from: "arena", or what `open_source` takes.
        split: of the arena's items there: "valid" or "test".
        evaluation_items: how many.
        ks: numbers of samples of the curve; the largest is sampled.
        temperatures: of its samples. The paper votes at 0.5; one greedy sample an item is always drawn as well.
        k_meta: critiques that guided voting keeps; below 1 the share of them, half as in the paper.
        subsets: each k below the largest is averaged over this many random subsets of the samples.
        general: the source of general instruction data in rejective fine-tuning's mixture.
        general_weight: examples of it for each accepted critique; 0 leaves it out. The paper has 1070K : 186K.
        meta_init: what the meta reward model starts from: "base", "rft", "grpo", or a model folder.
        meta_samples: critiques an item, drawn from the judge that is to be guided; the paper's N_RFT.
        meta_temperature: of them.
        meta_rounds: how often critiques are drawn and learnt from; each round after the first trains on with new ones.
        template: name or file of the prompt template; "" is the model's own.
        dtype: of saved weights and of judges; "" is float32 and the device's own.
        max_new: tokens a critique, for the curve and the meta reward model; 0 is the judge's default.
        rows: critiques decoded together there.
        seed: added to the seed of every stage.
    """

    base: str = ""
    sampler: str = ""
    items: str = ARENA
    item_seed: int = 1
    rft_items: int = 0
    grpo_first: int = 0
    grpo_items: int = 0
    meta_first: int = 0
    meta_items: int = 0
    evaluation: str = ARENA
    split: str = "valid"
    evaluation_items: int = 0
    ks: tuple = (1, 2, 4, 8, 16, 32)
    temperatures: tuple = (0.5, 1.0)
    k_meta: float = 0.5
    subsets: int = 64
    general: str = "arena_instructions"
    general_weight: float = 1.0
    meta_init: str = "base"
    meta_samples: int = 3
    meta_temperature: float = 0.5
    meta_rounds: int = 1
    template: str = ""
    dtype: str = ""
    max_new: int = 0
    rows: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("rft_items", "grpo_first", "grpo_items", "meta_first", "meta_items", "evaluation_items", "max_new")
        for name in counts:
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("subsets", "meta_samples", "meta_rounds", "rows"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        ks, temperatures = self.ks, self.temperatures
        whole = bool(ks) and all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in ks)
        self._require(
            "ks", whole and sorted(set(ks)) == list(ks), "must be rising whole numbers from 1, such as (1, 8)"
        )
        numbers = [t for t in temperatures if isinstance(t, int | float) and 0 < t < math.inf]
        good = bool(numbers) and len(set(numbers)) == len(temperatures)
        self._require("temperatures", good, "must be different positive numbers, such as (0.5, 1.0)")
        self._require("k_meta", fits(self.k_meta, max(ks)), f"must be one of {fitting(max(ks))}")
        self._require("meta_temperature", 0 <= self.meta_temperature < math.inf, "must be 0 (greedy) or positive")
        self._require("general_weight", 0 <= self.general_weight < math.inf, "must be 0 or a positive number")
        self._require("split", self.split in SPLITS[1:], f"must be one of {', '.join(SPLITS[1:])}")
        self._require("dtype", self.dtype in ("", "float32", "bfloat16"), "must be float32, bfloat16 or empty")
        for kind in ("items", "evaluation"):
            self._require(kind, bool(getattr(self, kind)), "must name a source")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(f"Spct.{name} {rule}, not {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """How the base model is made from nothing."""

    model: NewModel
    data: SftData
    sft: Sft


@dataclasses.dataclass(frozen=True)
class RftRecipe:
    """How critiques are sampled and rejected, and how the base model is tuned on those kept."""

    sampling: Rft
    sft: Sft
    seed: int = 0  # of the mixture's order


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of all stages that are run; `streams` are the sources of examples that are no files."""

    spct: Spct
    streams: Streams
    base: BaseRecipe | None = None
    rft: RftRecipe | None = None
    grpo: Grpo | None = None
    meta: MetaRm | None = None


def shifted(settings: Any, seed: int) -> Any:
    """Returns settings with `seed` added to theirs."""
    return dataclasses.replace(settings, seed=settings.seed + seed)
