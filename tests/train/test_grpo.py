"""Laws of GRPO's loss on a model: what it reads, what it is at its start, and that it falls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.gemma2 import Gemma2
from grm_jax.train.grpo import Grpo, grpo_loss, make_scorer, rollout_statistics, rollout_work
from grm_jax.train.optimizer import make_optimizer
from grm_jax.train.policy_loss import Objective
from grm_jax.train.speed import training_flops
from grm_jax.train.step import init_state, make_step
from tests.shapes import SHAPES, full_forward, random_params

SHAPE = SHAPES["one_kv_head"]
MODEL = Gemma2(SHAPE)
PARAMS = random_params(SHAPE)
P, G, S, T = 2, 3, 9, 6
TEMPERATURE = 0.7
GRPO = Grpo(steps=1, prompts=P, group=G, temperature=TEMPERATURE, learning_rate=3e-3, max_new=T)


@functools.cache
def score():
    return make_scorer(SHAPE, GRPO)


@functools.cache
def value_and_gradient():
    def total(params, batch):
        terms = grpo_loss(MODEL, GRPO.objective, TEMPERATURE, params, batch)
        return terms.total, terms

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.fixture(scope="module")
def batch():
    rng = generator("test", "grpo batch")
    lengths = rng.integers(1, T + 1, (P, G, 1))
    lengths[0, 1] = 0
    drawn = {
        "prompt_tokens": rng.integers(0, SHAPE.vocab_size, (P, S)).astype(np.int32),
        "prompt_lengths": np.array([S, 5], np.int32),
        "tokens": rng.integers(0, SHAPE.vocab_size, (P, G, T)).astype(np.int32),
        "mask": (np.arange(T) < lengths).astype(np.float32),
        "advantages": rng.standard_normal((P, G)).astype(np.float32),
    }
    statistics = score()(PARAMS, drawn)
    drawn["sampler_logprobs"] = np.asarray(statistics.plain) + 0.01
    return drawn | {"reference_logprobs": np.asarray(statistics.logprobs)}


def test_statistics_are_those_of_a_plain_forward_pass_in_float64(batch):
    statistics = score()(PARAMS, batch)
    rows = [
        np.concatenate([batch["prompt_tokens"][p, : batch["prompt_lengths"][p]], batch["tokens"][p, g]])
        for p, g in np.ndindex(P, G)
    ]
    logits, _ = full_forward(SHAPE, PARAMS, rows, S + T)
    for row, (p, g) in enumerate(np.ndindex(P, G)):
        start = batch["prompt_lengths"][p] - 1
        own = np.float64(logits[row, start : start + T])
        for temperature, found in ((1.0, statistics.plain), (TEMPERATURE, statistics.logprobs)):
            logprobs = own / temperature - np.log(np.exp(own / temperature).sum(-1, keepdims=True))
            expected = np.take_along_axis(logprobs, batch["tokens"][p, g][:, None], -1)[:, 0]
            np.testing.assert_allclose(found[p, g], expected, rtol=0, atol=2e-5)
        entropy = -(np.exp(logprobs) * logprobs).sum(-1)
        np.testing.assert_allclose(statistics.entropy[p, g], entropy, rtol=0, atol=2e-5)


def test_learnt_from_once_the_ratio_is_one_and_the_gradient_that_of_the_log_probability(batch):
    (total, terms), gradient = value_and_gradient()(PARAMS, batch)
    count = batch["mask"].sum()
    assert terms.metrics["ratio"] == (count, count) and terms.denominator == P * G
    held = batch["mask"].any(-1)
    np.testing.assert_allclose(total, -batch["advantages"][held].sum(), rtol=1e-5, atol=1e-6)
    assert terms.metrics["clip_low"][0] == terms.metrics["clip_high"][0] == 0

    def surrogate(params):
        logprobs = rollout_statistics(MODEL, params, batch, TEMPERATURE).logprobs
        means = jnp.sum(logprobs * batch["mask"], -1) / jnp.maximum(batch["mask"].sum(-1), 1)
        return -jnp.sum(batch["advantages"] * means)

    expected = jax.jit(jax.grad(surrogate))(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected)


def test_the_kl_to_oneself_is_nothing_and_the_mismatch_is_reported(batch):
    """Exactly 0 where both are computed by one program; a step is another program, whose sums may differ in the last bits."""
    (_, terms), _ = value_and_gradient()(PARAMS, batch)
    assert terms.metrics["kl"][0] < 1e-9
    loss = functools.partial(grpo_loss, MODEL, Objective(0.5), TEMPERATURE)
    own = {**batch, "old_logprobs": batch["reference_logprobs"], "advantages": np.zeros((P, G), np.float32)}

    @jax.jit
    def against_oneself(params):
        statistics = rollout_statistics(MODEL, params, batch, TEMPERATURE)
        return loss(params, own | {"reference_logprobs": statistics.logprobs, "old_plain": statistics.plain})

    exact = against_oneself(PARAMS)
    assert exact.total == 0 and exact.metrics["kl"][0] == 0
    mismatch, count = terms.metrics["mismatch"]
    np.testing.assert_allclose(mismatch / count, 0.01, rtol=1e-3)
    scored = score()(PARAMS, batch)
    np.testing.assert_array_equal(scored.logprobs, batch["reference_logprobs"])  # the reference is scored by the same


def test_the_mismatch_of_a_later_update_is_that_of_the_parameters_that_sampled(batch):
    changed = batch | {"old_plain": batch["sampler_logprobs"] - 0.25, "old_logprobs": batch["reference_logprobs"]}
    moved = jax.tree.map(lambda x: x * np.float32(1.1), PARAMS)

    def metrics(params, batch):
        return grpo_loss(MODEL, GRPO.objective, TEMPERATURE, params, batch).metrics

    found = jax.jit(metrics)(moved, changed)
    np.testing.assert_allclose(found["mismatch"][0] / found["mismatch"][1], 0.25, rtol=1e-5)
    assert found["kl"][0] > 1e-4 and found["ratio"][0] != found["ratio"][1]


def test_the_loss_falls_on_a_fixed_batch_and_what_is_good_becomes_likelier(batch):
    fixed = batch | {"old_logprobs": batch["reference_logprobs"], "old_plain": batch["sampler_logprobs"]}
    settings = Grpo(steps=40, prompts=P, group=G, temperature=TEMPERATURE, learning_rate=1e-3, max_new=T)
    optimizer = make_optimizer(settings)
    step = make_step(functools.partial(grpo_loss, MODEL, settings.objective, TEMPERATURE), optimizer)
    state, losses = init_state(PARAMS, optimizer), []
    for _ in range(settings.steps):
        state, metrics = step(state, fixed)
        losses.append(float(metrics["loss"]))
    assert losses[10] < losses[0] - 0.01 and losses[-1] < losses[10]
    assert metrics["kl"] > 0 and metrics["clip_high"] + metrics["clip_low"] > 0
    before, after = score()(PARAMS, batch), score()(state.params, batch)
    gain = ((np.asarray(after.logprobs) - before.logprobs) * batch["mask"]).sum(-1)
    held = batch["mask"].any(-1)
    assert (np.sign(gain) == np.sign(batch["advantages"]))[held].mean() > 0.7


def test_scored_in_parts_and_at_once_is_the_same(batch):
    parts = make_scorer(SHAPE, Grpo(steps=1, prompts=P, group=G, temperature=TEMPERATURE, accumulate=2))(PARAMS, batch)
    whole = score()(PARAMS, batch)
    assert parts.logprobs.shape == (P, G, T)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), parts, whole)


def test_work_counts_each_prompt_once_and_what_the_mathematics_asks_for(batch):
    tokens = local = everywhere = head = 0
    empty = batch | {"mask": batch["mask"] * np.array([1, 0]).reshape(2, 1, 1)}
    for given, prompts in ((batch, range(P)), (empty, [0])):
        tokens = local = everywhere = head = 0
        for p in prompts:
            start = int(batch["prompt_lengths"][p])
            seen = list(range(1, start + 1))
            for g in range(G):
                length = int(batch["mask"][p, g].sum())
                seen += range(start + 1, start + length)
                head += length
            tokens += len(seen)
            everywhere += sum(seen)
            local += sum(min(keys, SHAPE.window) for keys in seen)
        work = rollout_work(SHAPE, given)
        assert work.tokens == tokens
        trunk = training_flops(SHAPE, tokens, local, everywhere) - 6.0 * SHAPE.vocab_size * SHAPE.model_dim * tokens
        np.testing.assert_allclose(work.flops, trunk + 6.0 * SHAPE.vocab_size * SHAPE.model_dim * head, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("group", 1), ("prompts", 0), ("kl_coefficient", -0.1), ("kl_coefficient", float("nan")), ("clip_low", 0.0),
        ("clip_low", 1.0), ("clip_high", 0.0), ("clip_high", float("inf")), ("reduction", "mean"), ("level", "turn"),
        ("normalisation", "batch"), ("truncated", "keep"), ("temperature", 0.0), ("updates", 0), ("max_new", -1),
        ("rows", 0), ("format_reward", -1.0), ("consistency_reward", -1.0), ("query_only_reward", -1.0), ("steps", 0),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^Grpo\.{name} .*{value}$") as error:
        Grpo(**{"steps": 1, name: value})
    assert "\n" not in str(error.value)


def test_prompts_must_be_cut_into_parts_and_pairs():
    with pytest.raises(UserError, match="multiple of accumulate = 2"):
        Grpo(steps=1, prompts=3, accumulate=2)
    with pytest.raises(UserError, match="must be even"):
        Grpo(steps=1, prompts=3, consistency_reward=0.1)
