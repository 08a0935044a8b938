"""Where everything of the 27B model lives: stored dumps, and the law that nothing large is on every device.

REFRESH_GOLDENS=1 writes the dumps anew.
"""

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from grm_jax.model.config import PRESETS
from grm_jax.model.critique_reward import HEAD, parameter_axes, zero_head
from grm_jax.model.gemma2 import abstract_params
from grm_jax.parallel.layout import DECODE, TRAIN, Layout
from grm_jax.parallel.meshes import AXES
from grm_jax.train import lora
from grm_jax.train.optimizer import make_optimizer
from grm_jax.train.placement import Placement
from grm_jax.train.step import init_state
from grm_jax.train.training import Training

CONFIG = PRESETS["27b"]
GOLDENS = Path(__file__).parents[1] / "goldens"
LARGE = 64 * 2**20  # bytes
MESHES = {
    "train_fsdp64": ((1, 64, 1), TRAIN),
    "train_data2_fsdp16_tensor8": ((2, 16, 8), TRAIN),
    "decode_data4_tensor16": ((4, 1, 16), DECODE),
}


def layout(name):
    sizes, rules = MESHES[name]
    return Layout(AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3), rules)


def model():
    return abstract_params(CONFIG) | {HEAD: zero_head(CONFIG)}


def state(layout, **settings):
    """(abstract state, its shardings) of training."""
    training = Training(steps=10, **settings)
    optimizer, params, place = make_optimizer(training), model(), Placement(layout, CONFIG)
    trained, frozen, names = params, {}, place.of(params)
    if training.lora_rank:
        trained, frozen = jax.eval_shape(lambda tree: lora.split(tree, training.lora_rank, 0), params)
        names = lora.names(names)
    abstract = jax.eval_shape(
        lambda t, f: init_state(t, optimizer, frozen=f, ema=training.ema_decay > 0), trained, frozen
    )
    return abstract, place.state(abstract, optimizer, names)


def lines(arrays, places):
    """path, shape, spec and MiB a device of every leaf."""
    found = []
    for (path, leaf), place in zip(jax.tree_util.tree_leaves_with_path(arrays), jax.tree.leaves(places), strict=True):
        each = math.prod(place.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize / 2**20
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found.append(f"{name} {'x'.join(map(str, leaf.shape)) or '-'} {place.spec} {each:.3f}")
    return found


@pytest.mark.parametrize("name", MESHES)
def test_every_leaf_lives_where_the_dump_says(name):
    params = model()
    if MESHES[name][1] is TRAIN:
        dumped = lines(*state(layout(name)))
    else:
        dumped = lines(params, layout(name).tree(parameter_axes(CONFIG, params), params))
    golden = GOLDENS / f"sharding_27b_{name}.txt"
    if os.environ.get("REFRESH_GOLDENS"):
        golden.write_text("\n".join(dumped) + "\n", encoding="utf-8")
    assert dumped == golden.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adafactor"}, {"lora_rank": 64}, {"ema_decay": 0.99}])
@pytest.mark.parametrize("name", [name for name, (_, rules) in MESHES.items() if rules is TRAIN])
def test_nothing_large_is_on_every_device(name, settings):
    arrays, places = state(layout(name), **settings)
    for (path, leaf), place in zip(jax.tree_util.tree_leaves_with_path(arrays), jax.tree.leaves(places), strict=True):
        size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        assert size <= LARGE or not place.is_fully_replicated, path


def test_weights_that_decode_are_divided_along_tensor_alone():
    params = model()
    places = layout("decode_data4_tensor16").tree(parameter_axes(CONFIG, params), params)
    for (path, leaf), place in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(places), strict=True):
        axes = {axis for entry in place.spec if entry for axis in ((entry,) if isinstance(entry, str) else entry)}
        assert axes == ({"tensor"} if math.prod(leaf.shape) > 2**20 else set()), path


def test_an_axis_that_does_not_divide_evenly_stays_whole():
    """16 key/value heads cannot be divided among 64 devices, nor 32 query heads; the feed-forward width can."""
    wide = Layout(AbstractMesh((1, 1, 64), AXES, axis_types=(AxisType.Auto,) * 3), DECODE)
    params = abstract_params(CONFIG)
    places = wide.tree(parameter_axes(CONFIG, params), params)["layers"]["local"]
    assert places["attention"]["key"].is_fully_replicated and places["attention"]["query"].is_fully_replicated
    assert not places["mlp"]["up"].is_fully_replicated
