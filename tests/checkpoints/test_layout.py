"""The table of tensors: its tree, its sizes, and what its transforms mean."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model_folders import SHAPES, random_array, stored_shapes

from grm_jax.checkpoints.layout import TABLE, leaf_shapes, places, some
from grm_jax.model.config import PRESETS
from grm_jax.model.gemma2 import abstract_params

ROWS = {row.path.split("/")[-1]: row for row in TABLE}
C = SHAPES["head width times heads is not the model width"]


def test_leaves_are_those_of_the_module(config):
    declared = flatten_dict(jax.tree.map(lambda leaf: leaf.shape, abstract_params(config)), sep="/")
    assert dict(leaf_shapes(config)) == declared


def test_every_hugging_face_tensor_has_one_place(config):
    assert {p.name: p.row.stored_shape(config) for p in places(config)} == stored_shapes(config)
    assert len({(p.path, p.pair) for p in places(config)}) == len(places(config))


def test_pairs_hold_a_local_then_a_global_layer():
    found = {p.name: (p.path, p.pair) for p in places(C)}
    assert found["model.layers.2.mlp.up_proj.weight"] == ("layers/local/mlp/up", 1)
    assert found["model.layers.3.mlp.up_proj.weight"] == ("layers/global/mlp/up", 1)


# parameter counts of the released models: google/gemma-2-{2b,9b,27b}
@pytest.mark.parametrize(("name", "count"), [("2b", 2_614_341_888), ("9b", 9_241_705_984), ("27b", 27_227_128_320)])
def test_sizes_of_the_released_models(name, count):
    config = PRESETS[name]
    assert sum(int(np.prod(shape)) for shape in leaf_shapes(config).values()) == count
    assert sum(int(np.prod(p.row.stored_shape(config))) for p in places(config)) == count


def whole(row, config):
    return tuple(slice(0, size) for size in row.held_shape(config))


def matrix(name):
    row = ROWS[name]
    stored = np.nan_to_num(random_array(row.stored_shape(C), "float32", name), posinf=1, neginf=1).clip(-1, 1)
    return stored, row.part(stored, whole(row, C), C)


@pytest.mark.parametrize(
    ("name", "heads"), [("query", C.num_heads), ("key", C.num_kv_heads), ("value", C.num_kv_heads)]
)
def test_a_head_is_its_own_block_of_rows(name, heads):
    # torch's Linear computes x @ W.T, and Gemma-2 views the result as [heads, head_dim]
    stored, held = matrix(name)
    x = np.linspace(-1, 1, C.model_dim, dtype=np.float32)
    np.testing.assert_allclose(
        np.einsum("d,dnh->nh", x, held), (stored @ x).reshape(heads, C.head_dim), rtol=1e-5, atol=1e-6
    )


def test_output_matrix_takes_heads_in_order():
    stored, held = matrix("output")
    x = np.linspace(-1, 1, C.num_heads * C.head_dim, dtype=np.float32)
    ours = np.einsum("nh,nhd->d", x.reshape(C.num_heads, C.head_dim), held)
    np.testing.assert_allclose(ours, stored @ x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gate", "up", "down"])
def test_feed_forward_matrices_are_transposed(name):
    stored, held = matrix(name)
    np.testing.assert_array_equal(held, stored.T)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_what_is_written_with_our_axes_is_read_with_them(row, config):
    stored = np.arange(np.prod(row.stored_shape(config))).reshape(row.stored_shape(config))
    held = row.part(stored, whole(row, config), config)
    assert held.shape == row.held_shape(config)
    written = np.zeros_like(stored)
    row.part(written, whole(row, config), config)[...] = held
    np.testing.assert_array_equal(written, stored)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_a_part_is_that_part_of_the_whole(row, config):
    stored = np.arange(np.prod(row.stored_shape(config))).reshape(row.stored_shape(config))
    held = row.part(stored, whole(row, config), config)
    for axis, (letter, size) in enumerate(zip(row.held.split(), held.shape, strict=True)):
        if letter != "H":
            index = list(whole(row, config))
            index[axis] = slice(size // 3, size - size // 4)
            np.testing.assert_array_equal(row.part(stored, tuple(index), config), held[tuple(index)])


def test_heads_are_not_cut():
    index = list(whole(ROWS["query"], C))
    index[2] = slice(0, 2)
    with pytest.raises(AssertionError, match="q_proj"):
        ROWS["query"].part(np.zeros(ROWS["query"].stored_shape(C)), tuple(index), C)


def test_long_lists_of_names_are_cut_at_ten():
    assert some([str(i) for i in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert some([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
