"""Laws of the schedules and optimizers, against closed forms and float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grm_jax.keys import generator
from grm_jax.train.optimizer import make_optimizer, make_schedule
from grm_jax.train.training import Training

SHAPES = {"kernel": (3, 4), "attention": {"query": (2, 3)}, "pre_attention_norm": (4,), "final_norm": (3,)}
SHAPES |= {"scalar_head": {"w": (3,), "b": ()}}


def drawn(seed, scale=1.0):
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    rng = generator("optimizer", seed)
    return jax.tree.unflatten(structure, [np.asarray(scale * rng.standard_normal(s), np.float32) for s in leaves])


def decays(path):
    """Norms do not, nor does the bias of the scalar head."""
    name = jax.tree_util.keystr(path)
    return "norm" not in name and name != "['scalar_head']['b']"


def cosine(fraction):
    return 0.1 + 0.9 * (1 + math.cos(math.pi * fraction)) / 2


AFTER = {"cosine": cosine, "linear": lambda fraction: 1 - 0.9 * fraction, "constant": lambda fraction: 1.0}


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.parametrize(("steps", "warmup"), [(100, 20), (100, 0), (3, 50), (1, 50)])
def test_the_rate_is_its_closed_form_at_every_step(name, steps, warmup):
    """Warm-up from 0 to the highest rate, which comes no later than the last step; then down to a tenth when all are done."""
    training = Training(steps=steps, learning_rate=0.5, warmup=warmup, schedule=name, final_fraction=0.1)
    schedule, rise = make_schedule(training), min(warmup, steps - 1)
    for number in range(steps + 1):
        part = number / rise if number < rise else AFTER[name]((number - rise) / (steps - rise))
        assert float(schedule(number)) == pytest.approx(0.5 * part, rel=1e-5, abs=1e-8), number


def test_the_rate_at_named_steps():
    def rate(name, number):
        return float(
            make_schedule(Training(steps=110, learning_rate=2.0, warmup=10, schedule=name, final_fraction=0))(number)
        )

    assert [rate("cosine", number) for number in (0, 5, 10)] == [0, 1, 2]
    assert rate("cosine", 60) == pytest.approx(1.0)
    assert rate("cosine", 35) == pytest.approx(1 + math.sqrt(0.5))
    assert rate("linear", 35) == pytest.approx(1.5)
    assert rate("constant", 109) == 2
    assert rate("cosine", 110) == pytest.approx(0, abs=1e-6) == rate("linear", 110)


@pytest.mark.parametrize(("norm", "scale"), [(20.0, 0.1), (2.0, 1.0), (0.5, 1.0)])
def test_gradients_are_scaled_to_the_clip_by_their_global_norm(norm, scale):
    """Measured by AdamW's first moment, which after one step is (1 - beta1) times the gradient it was given."""
    optimizer = make_optimizer(Training(steps=1, clip=2.0, beta1=0.75))
    gradients = drawn("clip")
    size = math.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(gradients)))
    gradients = jax.tree.map(lambda g: g * np.float32(norm / size), gradients)
    _, state = optimizer.update(gradients, optimizer.init(drawn("params")), drawn("params"))
    moments = optax.tree.get(state, "mu")
    for given, moment in zip(jax.tree.leaves(gradients), jax.tree.leaves(moments), strict=True):
        np.testing.assert_allclose(moment, 0.25 * scale * given, rtol=1e-5)


def test_adamw_is_its_definition_in_float64():
    training = Training(
        steps=8, learning_rate=0.03, warmup=3, schedule="linear", final_fraction=0.5,
        beta1=0.8, beta2=0.95, weight_decay=0.3, clip=3.0,
    )  # fmt: skip
    optimizer = make_optimizer(training)
    update = jax.jit(optimizer.update)
    params = drawn("params")
    state = optimizer.init(params)
    expected = [np.float64(leaf) for leaf in jax.tree.leaves(params)]
    decayed = [decays(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert decayed.count(False) == 3 == decayed.count(True)
    first, second = ([np.zeros_like(leaf) for leaf in expected] for _ in range(2))
    clipped = 0
    for number in range(8):
        gradients = drawn(f"gradient {number}", scale=0.3 + 0.2 * number)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        rate = 0.03 * (number / 3 if number < 3 else 1 - 0.5 * (number - 3) / 5)
        wide = [np.float64(leaf) for leaf in jax.tree.leaves(gradients)]
        norm = math.sqrt(sum((leaf**2).sum() for leaf in wide))
        clipped += norm > 3
        for i, gradient in enumerate(wide):
            gradient = gradient * min(1, 3 / norm)
            first[i] = 0.8 * first[i] + 0.2 * gradient
            second[i] = 0.95 * second[i] + 0.05 * gradient**2
            step = first[i] / (1 - 0.8 ** (number + 1)) / (np.sqrt(second[i] / (1 - 0.95 ** (number + 1))) + 1e-8)
            expected[i] = expected[i] - rate * (step + 0.3 * decayed[i] * expected[i])
        for wanted, found in zip(expected, jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
    assert 0 < clipped < 8


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_without_a_gradient_weights_decay_by_rate_times_weight_decay_and_norms_and_the_bias_do_not(name):
    optimizer = make_optimizer(
        Training(steps=10, learning_rate=0.2, warmup=0, schedule="constant", optimizer=name, weight_decay=0.25)
    )
    params = drawn("params")
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for (path, update), weight in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
        decay = 0.2 * 0.25 if decays(path) else 0.0
        np.testing.assert_allclose(update, -decay * weight, rtol=1e-6, err_msg=str(path))


def test_adafactor_goes_downhill_at_a_rate_relative_to_the_weights():
    training = Training(steps=60, learning_rate=0.1, warmup=5, optimizer="adafactor", weight_decay=0.0)
    optimizer = make_optimizer(training)
    start, goal = drawn("params"), drawn("goal")

    def loss(params):
        return sum(jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(goal), strict=True))

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value, updates

    params, state, values = start, optimizer.init(start), []
    for number in range(60):
        before, (params, state, value, updates) = params, step(params, state)
        values.append(float(value))
        rate = float(make_schedule(training)(number))
        for weight, update in zip(jax.tree.leaves(before), jax.tree.leaves(updates), strict=True):
            root_mean_square = float(np.sqrt(np.mean(np.square(update))))
            assert root_mean_square <= 1.001 * rate * max(1e-3, float(np.sqrt(np.mean(np.square(weight)))))
    assert values[-1] < 0.1 * values[0]
    factored = optimizer.init({"w": jnp.zeros((256, 384))})
    assert sum(leaf.size for leaf in jax.tree.leaves(factored)) < 256 + 384 + 10  # not 2 * 256 * 384
