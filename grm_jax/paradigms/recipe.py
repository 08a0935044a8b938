"""The recipe of a comparison of paradigms: what is trained, at which sizes, and what is measured.

Stages, at every size:

    SIZE/base      a model from nothing, which all others start from
    SIZE/grm       the pointwise GRM: scores for all responses, with principles of its own, given ones, a reference answer
    SIZE/btrm      the Bradley-Terry reward model: a scalar for one response
    SIZE/evaluation  what the models of the size say of the items

at the largest one alone:

    SIZE/plain     the pointwise GRM without principles
    SIZE/judge     LLM-as-a-Judge: which of two responses is better
    SIZE/critic    critiques of one response
    SIZE/cloud     CLoud: a scalar for one response and a critique of it by the critic
    SIZE/pairrm    PairRM: a scalar for two responses
"""

import dataclasses
import math
from collections.abc import Mapping

from grm_jax.data.arena.world import SPLITS
from grm_jax.data.mixture import ARENA, SftData, Streams
from grm_jax.errors import UserError
from grm_jax.spct.sft_stage import NewModel
from grm_jax.train.reward_models import RewardModel
from grm_jax.train.sft import Sft

SIZES = ("small", "medium", "large")
"""Scopes of the sizes' shapes, rising."""
TUNED = ("grm", "plain", "judge", "critic")
"""Stages that learn to write critiques."""
REWARDS = ("btrm", "cloud", "pairrm")
"""Stages that learn a scalar."""
EVERY_SIZE = ("base", "grm", "btrm")
"""Stages of every size; the others are of the largest alone."""
EVALUATION = "evaluation"
ROWS = ("btrm", "pairrm", "cloud", "judge", "plain", "grm", "grm_given", "grm_reference")
"""What is evaluated at the largest size: the stages' models, and the GRM with the aids that items have."""
SIZE_ROWS = ("btrm", "grm")
"""What is evaluated at the other sizes."""


@dataclasses.dataclass(frozen=True)
class Paradigms:
    """What the stages share, and what belongs to no training.

    Attributes:
        sizes: of `SIZES`, rising; the paradigms are compared at the last.
        base: a model folder that takes the place of the last size's base; "" makes one.
        judge_template: name or file of the prompt template of LLM-as-a-Judge, whose answer names the best response; all others
            have the base's own.
        items: labelled items that the scalar models learn from: "arena", or what `open_source` takes.
        item_seed: of the arena's items, for learning and evaluation; another than that of the critiques that are learnt from.
        preference_items: how many of them BTRM and PairRM learn from; 0 takes all of a source.
        critic_samples: critiques a response that CLoud learns from.
        critic_items: how many of the items CLoud learns from, from the first; 0 takes all that BTRM has.
        evaluation: where the items that are judged come from: "arena", or what `open_source` takes. The arena's have principles
            and reference answers (`data.arena.aids`); others are judged with what they have.
        split: of the arena's items there: "valid" or "test".
        evaluation_items: how many; those of one response are passed over.
        ks: numbers of samples; the largest is drawn.
        temperature: of the samples. The paper votes at 0.5.
        subsets: each k below the largest is averaged over this many random subsets of the samples.
        max_new: tokens a critique; 0 is the judge's default.
        rows: critiques decoded together.
        seed: added to the seed of every stage.
    """

    sizes: tuple = SIZES
    base: str = ""
    judge_template: str = "tiny_judge"
    items: str = ARENA
    item_seed: int = 1
    preference_items: int = 0
    critic_samples: int = 1
    critic_items: int = 0
    evaluation: str = ARENA
    split: str = "valid"
    evaluation_items: int = 0
    ks: tuple = (1, 2, 4, 8)
    temperature: float = 0.5
    subsets: int = 64
    max_new: int = 0
    rows: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        rising = [size for size in SIZES if size in self.sizes]
        self._require(
            "sizes", bool(rising) and list(self.sizes) == rising, f"must be some of {', '.join(SIZES)}, in order"
        )
        for name in ("preference_items", "critic_items", "evaluation_items", "max_new"):
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("critic_samples", "subsets", "rows"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        whole = bool(self.ks) and all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in self.ks)
        self._require("ks", whole and sorted(set(self.ks)) == list(self.ks), "must be rising whole numbers from 1")
        self._require("temperature", 0 < self.temperature < math.inf, "must be positive")
        self._require("split", self.split in SPLITS[1:], f"must be one of {', '.join(SPLITS[1:])}")

    @property
    def largest(self) -> str:
        """The size at which the paradigms are compared."""
        return str(self.sizes[-1])

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of all stages, in their order."""
        rest = [name for name in (*TUNED, *REWARDS) if name not in EVERY_SIZE]
        names = {size: [*EVERY_SIZE, *(rest if size == self.largest else []), EVALUATION] for size in self.sizes}
        if self.base:
            names[self.largest].remove("base")
        return tuple(f"{size}/{name}" for size in self.sizes for name in names[size])

    def rows_of(self, size: str) -> tuple[str, ...]:
        """What is evaluated at a size."""
        return ROWS if size == self.largest else SIZE_ROWS

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(f"Paradigms.{name} {rule}, not {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True)
class Supervised:
    """A stage that learns to write critiques."""

    data: SftData
    streams: Streams
    sft: Sft


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of all stages: shapes by size; supervised stages ("base" and `TUNED`) and scalar ones by name."""

    paradigms: Paradigms
    shapes: Mapping[str, NewModel]
    supervised: Mapping[str, Supervised]
    rewards: Mapping[str, RewardModel]
