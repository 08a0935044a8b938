"""The recipe of a comparison of paradigms, from gin."""

from typing import Any

from grm_jax.cli.configure import make, new_model, streams
from grm_jax.data.mixture import SftData
from grm_jax.paradigms.recipe import REWARDS, SIZES, TUNED, Paradigms, Recipe, Supervised
from grm_jax.spct.recipe import shifted
from grm_jax.train.reward_models import RewardModel
from grm_jax.train.sft import Sft

SCOPES = ("base", *TUNED, *REWARDS, *SIZES)
"""Every stage and size has a scope."""


def recipe(**given: Any) -> Recipe:
    """Builds the recipe; `given` values of `Paradigms` win.

    Raises:
        UserError: as `configure.make`.
    """
    settings = make(Paradigms, **given)
    made = [size for size in settings.sizes if f"{size}/base" in settings.stages]
    supervised = [*(["base"] if made else []), *TUNED]

    def stage(name: str) -> Supervised:
        sft = shifted(make(Sft, scope=name), settings.seed)
        return Supervised(make(SftData, scope=name), streams(name), sft)

    return Recipe(
        settings,
        {size: new_model(size) for size in made},
        {name: stage(name) for name in supervised},
        {name: shifted(make(RewardModel, scope=name), settings.seed) for name in REWARDS},
    )
