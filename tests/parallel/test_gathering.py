"""Laws of weights that are gathered for one layer: whole where they are used, and their gradients divided as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grm_jax.keys import generator
from grm_jax.model.gathering import gathered
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh

WEIGHT = generator("gathering").standard_normal((16, 6)).astype(np.float32)


def value(weight, rows):
    weight = gathered(weight, ("embed", "mlp"))
    return jnp.sum((rows @ weight) ** 2), weight


@pytest.mark.parametrize(("shape", "whole"), [((1, 8, 1), None), ((2, 2, 2), "tensor")])
def test_a_weight_is_whole_along_its_width_and_its_gradient_is_divided(shape, whole):
    rows = generator("rows").standard_normal((8, 16)).astype(np.float32)
    function = jax.value_and_grad(value, has_aux=True)
    (expected, _), gradient = jax.jit(function)(WEIGHT, rows)
    layout = make_layouts(TrainMesh(*shape), DecodeMesh()).train
    place = layout.sharding(("embed", "mlp"), WEIGHT.shape)
    with layout.active():
        (found, weight), divided = jax.jit(function)(jax.device_put(WEIGHT, place), layout.place(rows))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(divided, gradient, rtol=1e-5, atol=1e-5)
    assert weight.sharding.is_equivalent_to(jax.NamedSharding(layout.mesh, PartitionSpec(None, whole)), 2)
    assert divided.sharding.is_equivalent_to(place, 2)
    assert not place.is_fully_replicated


def test_nothing_happens_without_a_mesh_nor_to_what_is_not_divided():
    assert gathered(WEIGHT, ("embed", "mlp")) is WEIGHT
    layouts = make_layouts(TrainMesh(fsdp=8), DecodeMesh(tensor=8))
    for layout, names in ((layouts.train, ("heads", "mlp")), (layouts.decode, ("embed", "mlp"))):
        with layout.active():
            assert gathered(WEIGHT, names) is WEIGHT
    with layouts.train.active():
        assert gathered(WEIGHT[:10], ("embed", "mlp")).shape == (10, 6)  # ten is no multiple of eight
