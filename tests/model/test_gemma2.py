"""Laws of the model definition: sizes, equal forms, causality, padding, packing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.model import attention
from grm_jax.model.config import PRESETS
from grm_jax.model.gemma2 import Gemma2, abstract_params, init_params, logical_axes, unroll
from tests.shapes import SHAPES, jitted, random_params, random_tokens

CONFIG = SHAPES["grouped"]
PARAMS = random_params(CONFIG)


def hidden(tokens, model=Gemma2(CONFIG), params=PARAMS, *args, jitted=jitted):  # noqa: B008 - a frozen dataclass
    return jitted(model)(params, jnp.asarray(tokens), *args)[0]


@pytest.mark.parametrize(("size", "count"), [("2b", 2_614_341_888), ("9b", 9_241_705_984), ("27b", 27_227_128_320)])
def test_parameter_counts_are_those_of_the_released_models(size, count):
    leaves = jax.tree.leaves(abstract_params(PRESETS[size]))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == count


def test_every_parameter_names_its_axes():
    axes = logical_axes(CONFIG)
    shapes = abstract_params(CONFIG)
    jax.tree.map(lambda leaf, spec: (len(leaf.shape) == len(spec)) or pytest.fail(f"{leaf.shape} {spec}"), shapes, axes)
    assert set(jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, str))) >= {axes["embedding"]}


def test_unrolled_and_rematerialized_models_equal_the_scanned_one():
    tokens = random_tokens(CONFIG)
    expected = hidden(tokens)
    np.testing.assert_allclose(hidden(tokens, Gemma2(CONFIG, unrolled=True), unroll(PARAMS)), expected, atol=1e-5)
    np.testing.assert_allclose(hidden(tokens, Gemma2(CONFIG, remat=True)), expected, atol=1e-5)


def test_rematerialized_gradients_equal_stored_ones():
    tokens = random_tokens(CONFIG)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(hidden(tokens, model, p)))))(PARAMS)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        gradient(Gemma2(CONFIG, remat=True)), gradient(Gemma2(CONFIG)),
    )  # fmt: skip


def test_attention_in_query_blocks_equals_attention_at_once(monkeypatch):
    tokens = random_tokens(CONFIG)
    expected = hidden(tokens)
    monkeypatch.setattr(
        attention, "QUERY_BLOCK", 12
    )  # less than the sequence, not a divisor of it, more than the window
    np.testing.assert_allclose(hidden(tokens, jitted=jitted.__wrapped__), expected, atol=1e-5)
    monkeypatch.setattr(attention, "QUERY_BLOCK", 5)
    np.testing.assert_allclose(hidden(tokens, jitted=jitted.__wrapped__), expected, atol=1e-5)


def test_a_token_depends_on_no_later_one():
    tokens = random_tokens(CONFIG)
    changed = tokens.copy()
    changed[:, 25:] = (changed[:, 25:] + 1) % CONFIG.vocab_size
    before, after = hidden(tokens), hidden(changed)
    np.testing.assert_array_equal(before[:, :25], after[:, :25])
    assert np.abs(before[:, 25:] - after[:, 25:]).min(axis=-1).max() > 0


def test_with_local_layers_only_a_token_is_blind_beyond_the_windows_reach():
    """The window is exactly `window` keys, the query included: reach is layers * (window - 1) tokens back."""
    config = dataclasses.replace(CONFIG, num_layers=2)
    params = random_params(config)
    window = config.window
    # With its output projection at zero the global layer passes nothing between tokens.
    params["layers"]["global"]["attention"]["output"] = np.zeros_like(params["layers"]["global"]["attention"]["output"])
    tokens = random_tokens(config, rows=1)
    expected = hidden(tokens, Gemma2(config), params)
    for distance, sees in ((window - 1, True), (window, False)):
        changed = tokens.copy()
        changed[0, -1 - distance] = (changed[0, -1 - distance] + 1) % config.vocab_size
        moved = np.abs(hidden(changed, Gemma2(config), params)[0, -1] - expected[0, -1]).max()
        assert (moved > 0) == sees, (distance, moved)


def test_packed_examples_equal_the_same_examples_alone():
    first, second = random_tokens(CONFIG, rows=1, length=17), random_tokens(CONFIG, rows=1, length=21, seed=1)
    packed = np.concatenate([first, second, np.zeros((1, 4), np.int32)], axis=1)
    positions = np.concatenate([np.arange(17), np.arange(21), np.zeros(4, int)])[None].astype(np.int32)
    segments = np.repeat([1, 2, 0], [17, 21, 4])[None].astype(np.int32)
    out = hidden(packed, Gemma2(CONFIG), PARAMS, jnp.asarray(positions), jnp.asarray(segments))
    np.testing.assert_allclose(out[:, :17], hidden(first), atol=1e-5)
    np.testing.assert_allclose(out[:, 17:38], hidden(second), atol=1e-5)
    assert np.isfinite(out).all()


def test_prefill_in_two_calls_equals_one_call():
    model = Gemma2(CONFIG)
    tokens = jnp.asarray(random_tokens(CONFIG))
    expected = hidden(tokens)
    _, segment = jitted(model)(PARAMS, tokens[:, :23])
    positions = jnp.broadcast_to(jnp.arange(23, tokens.shape[1], dtype=jnp.int32), tokens[:, 23:].shape)
    rest, _ = jitted(model)(PARAMS, tokens[:, 23:], positions, None, (segment,))
    np.testing.assert_allclose(rest, expected[:, 23:], atol=1e-5)


def test_rows_that_share_a_prefix_share_its_segment():
    model = Gemma2(CONFIG)
    prefix = jnp.asarray(random_tokens(CONFIG, rows=2, length=11))
    tails = jnp.asarray(random_tokens(CONFIG, rows=6, length=9, seed=1))
    _, segment = jitted(model)(PARAMS, prefix)
    positions = jnp.broadcast_to(jnp.arange(11, 20, dtype=jnp.int32), tails.shape)
    shared, _ = jitted(model)(PARAMS, tails, positions, None, (segment,))
    whole = hidden(jnp.concatenate([jnp.repeat(prefix, 3, axis=0), tails], axis=1))
    np.testing.assert_allclose(shared, whole[:, 11:], atol=1e-5)


def test_random_initial_logits_are_of_order_one():
    config = PRESETS["tiny"]
    out = hidden(random_tokens(config), Gemma2(config), init_params(config, jax.random.key(0)))
    assert 0.5 < float(jnp.std(out)) < 2.0
