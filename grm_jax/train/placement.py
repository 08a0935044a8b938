"""Where the state of a training run lives on a mesh."""

import dataclasses
from typing import Any, cast

import optax

from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import parameter_axes
from grm_jax.parallel.layout import Layout, layouts
from grm_jax.train.step import Params, TrainState


@dataclasses.dataclass(frozen=True)
class Placement:
    """A layout, and the shape of the model that is placed; see `placement`."""

    layout: Layout
    config: Gemma2Config

    def of(self, params: Params) -> Params:
        """Names of the axes of these parameters: `PartitionSpec`s in a tree like theirs."""
        return parameter_axes(self.config, params)

    def state(self, state: TrainState, optimizer: optax.GradientTransformation, trained: Params) -> TrainState:
        """Shardings of a state.

        Args:
            state: abstract or real.
            optimizer: whose state it holds.
            trained: names of the axes of the trained leaves; those of the frozen ones are the model's.

        Returns:
            A tree like the state. Moments live where their weights do; what has another shape than its weight (Adafactor's
            rows and columns) and scalars are on every device.
        """
        layout = self.layout
        params = layout.tree(trained, state.params)
        moments = optax.tree_utils.tree_map_params(
            optimizer,
            lambda leaf, weight, place: place if leaf.shape == weight.shape else layout.whole,
            state.optimizer, state.params, params,
            transform_non_params=lambda _: layout.whole,
        )  # fmt: skip
        frozen = layout.tree(self.of(state.frozen), state.frozen)
        counts = dict.fromkeys(("step", "skipped", "skipped_in_row"), cast(Any, layout.whole))
        return TrainState(params=params, optimizer=moments, ema=params if state.ema else {}, frozen=frozen, **counts)


def placement(config: Gemma2Config) -> Placement | None:
    """The placement of a model of this shape, with or without a scalar head, on the run's mesh; None on one device."""
    layout = layouts().train
    return Placement(layout, config) if layout.mesh else None
