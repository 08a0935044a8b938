"""Laws of the one training step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.gemma2 import forward
from grm_jax.train.loop import training_model
from grm_jax.train.losses import sft_loss
from grm_jax.train.sft import Sft
from grm_jax.train.step import LossTerms, init_state, make_step
from tests.shapes import SHAPES, random_params
from tests.train.toy import assert_equal_trees, copied, recorder, toy_batch, toy_loss, toy_params

SHAPE = SHAPES["one_kv_head"]
T = 12


@functools.cache
def toy_step(**settings):
    return make_step(toy_loss, optax.adam(0.1), **settings)


def sft_batch():
    rng = generator("test", "step batch")
    tokens = rng.integers(0, SHAPE.vocab_size, (4, T + 1)).astype(np.int32)
    learnt = np.arange(T) >= np.array([[0], [5], [11], [12]])  # 12, 7, 1 and 0 tokens: no two parts weigh the same
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "positions": np.tile(np.arange(T, dtype=np.int32), (4, 1)),
        "segments": np.ones((4, T), np.int32),
        "weights": learnt.astype(np.float32),
    }


@pytest.fixture(scope="module")
def whole():
    return whole_and_parts(1)


def whole_and_parts(parts):
    def loss(params, batch):
        terms = sft_loss(training_model(SHAPE, Sft(steps=1)), params, batch)
        rows = jnp.sum(batch["weights"], axis=1)
        return LossTerms(terms.total, terms.denominator, {"squares": (jnp.sum(rows**2), jnp.sum(rows > 0))})

    step = make_step(loss, recorder(), accumulate=parts)
    state, metrics = step(init_state(random_params(SHAPE), recorder()), sft_batch())
    return state.optimizer, metrics


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_unequal_weight_add_up_to_the_whole_batch(parts, whole):
    gradients, metrics = whole_and_parts(parts)
    assert metrics["weight"] == 20
    assert metrics["squares"] == pytest.approx((12**2 + 7**2 + 1) / 3, rel=1e-6)
    for name, value in whole[1].items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-6), name
    for wanted, found in zip(jax.tree.leaves(whole[0]), jax.tree.leaves(gradients), strict=True):
        # Products of other shapes round otherwise, by 1.1e-6 on some processors; parts weighed wrongly are some 0.1 apart.
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted) > 0


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_step_by_hand(parts):
    params = {"w": np.float32([1, 2, 0]), "norm": np.float32([0.5])}
    batch = {
        "x": np.float32([[1, 0, 0], [2, 1, 0], [7, 7, 7], [0, 0, 0]]),
        "y": np.float32([0, 1, 7, 0]),
        "weights": np.float32([1, 3, 0, 0]),  # errors are 1.5, 3.5, 14.5, 0.5
        "flags": np.float32([0, 0, 1, 1]),
    }
    optimizer = optax.sgd(0.1)
    state, metrics = make_step(toy_loss, optimizer, accumulate=parts)(init_state(params, optimizer), batch)
    assert float(metrics["loss"]) == pytest.approx(0.5 * (1 * 1.5**2 + 3 * 3.5**2) / 4)
    gradient = [(1 * 1.5 * 1 + 3 * 3.5 * 2) / 4, (3 * 3.5 * 1) / 4, 0.0, (1 * 1.5 + 3 * 3.5) / 4]
    assert float(metrics["gradient_norm"]) == pytest.approx(math.hypot(*gradient))
    assert (metrics["weight"], metrics["size"], metrics["skipped_steps"]) == (4, 7.5, 0)
    np.testing.assert_allclose(state.params["w"], np.subtract([1, 2, 0], np.multiply(0.1, gradient[:3])), rtol=1e-6)
    np.testing.assert_allclose(state.params["norm"], [0.5 - 0.1 * gradient[3]], rtol=1e-6)
    assert (state.step, state.skipped, state.ema) == (1, 0, {})
    assert {value.dtype for value in metrics.values()} == {jnp.dtype("float32")}


def kinked_loss(params, batch):
    """|scale * w| + offset: finite at scale 0, where its gradient is not; at an infinite offset its gradient is."""
    distance = jnp.sqrt(jnp.sum((params["w"] * batch["scale"][0]) ** 2))
    return LossTerms(distance + batch["offset"][0], jnp.float32(1))


def kinked(scale, offset):
    return {"scale": np.float32([scale]), "offset": np.float32([offset])}


@pytest.mark.parametrize(
    ("bad", "finite"),
    [
        (kinked(np.nan, 0), {"loss": False, "gradient_norm": False}),
        (kinked(0, 0), {"loss": True, "gradient_norm": False}),
        (kinked(1, np.inf), {"loss": False, "gradient_norm": True}),
    ],
    ids=["neither", "the gradient", "the loss"],
)
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad, finite):
    optimizer = optax.adamw(0.1)
    step = make_step(kinked_loss, optimizer, ema_decay=0.5)
    state = init_state(toy_params(), optimizer, ema=True)
    good = kinked(1, 0)
    state, _ = step(state, good)
    before = copied((state.params, state.optimizer, state.ema))
    for count in (1, 2):
        state, metrics = step(state, bad)
        assert_equal_trees(copied((state.params, state.optimizer, state.ema)), before)
        assert {name: bool(np.isfinite(metrics[name])) for name in finite} == finite
        assert (state.step, state.skipped, state.skipped_in_row, metrics["skipped_steps"]) == (
            1 + count,
            count,
            count,
            count,
        )
    state, metrics = step(state, good)
    assert (state.step, state.skipped, state.skipped_in_row, metrics["skipped_steps"]) == (4, 2, 0, 2)
    moved = copied((state.params, state.optimizer, state.ema))
    assert all(
        (new["w"] != old["w"]).all() for new, old in zip((moved[0], moved[2]), (before[0], before[2]), strict=True)
    )


def test_the_moving_average_is_its_recurrence():
    decay, step = 0.75, toy_step(ema_decay=0.75)
    state = init_state(toy_params(), optax.adam(0.1), ema=True)
    expected = jax.tree.map(np.float64, toy_params())
    for number in range(6):
        state, _ = step(state, toy_batch(number))
        expected = jax.tree.map(lambda e, p: decay * e + (1 - decay) * np.float64(p), expected, state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.ema, expected)
    assert abs(state.ema["w"] - state.params["w"]).min() > 1e-3


def test_a_metric_is_nan_where_its_denominator_is_0_and_the_rest_goes_on():
    batch = toy_batch(0)
    state = init_state(toy_params(), optax.adam(0.1))
    state, metrics = toy_step()(state, batch | {"flags": np.zeros_like(batch["flags"])})
    assert np.isnan(metrics["size"])
    assert np.isfinite([metrics["loss"], metrics["gradient_norm"], *state.params["w"]]).all()
    assert (state.params["w"] != toy_params()["w"]).all() and state.skipped == 0


def test_a_batch_without_weight_has_loss_and_gradient_0():
    batch = toy_batch(0)
    state = init_state(toy_params(), optax.adam(0.1))
    state, metrics = toy_step()(state, batch | {"weights": np.zeros_like(batch["weights"])})
    assert (metrics["loss"], metrics["gradient_norm"], metrics["weight"], metrics["skipped_steps"]) == (0, 0, 0, 0)
    assert_equal_trees(copied(state.params), toy_params())


def test_a_batch_that_cannot_be_taken_in_parts_is_refused():
    with pytest.raises(
        UserError, match=r"a batch of 4 cannot be taken in accumulate = 3 equal parts; make it a multiple"
    ):
        toy_step(accumulate=3)(init_state(toy_params(), optax.adam(0.1)), toy_batch(0))


def test_a_step_takes_the_states_memory_and_leaves_the_callers():
    params = jax.tree.map(jnp.asarray, toy_params())
    frozen = {"frozen": jnp.arange(3.0)}
    step = make_step(toy_loss, optax.adam(0.1), ema_decay=0.5, merge=lambda frozen, trained: trained)
    first = init_state(params, optax.adam(0.1), frozen=frozen, ema=True)
    step(first, toy_batch(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((first.params, first.ema, first.optimizer)))
    assert_equal_trees(copied(params), toy_params())
    assert frozen["frozen"].tolist() == [0, 1, 2]


def test_weights_stay_float32_while_bfloat16_computes():
    """Updates far below bfloat16's resolution add up: a thousandth of it a step."""
    model = training_model(SHAPE, Sft(steps=1, dtype="bfloat16"))
    batch = sft_batch()
    hidden, _ = jax.eval_shape(lambda params: forward(model, params, batch["tokens"]), random_params(SHAPE))
    assert hidden.dtype == jnp.bfloat16
    optimizer = optax.adam(2.0**-18)
    step = make_step(functools.partial(sft_loss, model), optimizer)
    state = init_state(random_params(SHAPE), optimizer)
    for _ in range(4):
        state, metrics = step(state, batch)
    floats = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.optimizer)) if leaf.dtype != jnp.int32}
    assert floats == {jnp.dtype("float32")} and metrics["loss"].dtype == jnp.float32
    moved = np.abs(
        state.params["layers"]["global"]["mlp"]["up"] - random_params(SHAPE)["layers"]["global"]["mlp"]["up"]
    )
    assert np.median(moved) == pytest.approx(4 * 2.0**-18, rel=0.3)
