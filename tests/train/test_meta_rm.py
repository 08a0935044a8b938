"""Laws of the meta reward model's loss."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.critique_reward import HEAD, critique_logits, zero_head
from grm_jax.model.gemma2 import Gemma2
from grm_jax.train.meta_rm import MetaRm, meta_loss
from tests.shapes import SHAPES, random_params

SHAPE = SHAPES["one_kv_head"]
MODEL = Gemma2(SHAPE)
P, G, S, T = 4, 3, 9, 6  # one shape is compiled; the critiques take up less of it


def params(head=True):
    rng = generator("test", "head")
    drawn = {"w": 0.3 * rng.standard_normal(SHAPE.model_dim).astype(np.float32), "b": np.float32(0.1)}
    return random_params(SHAPE) | {HEAD: drawn if head else zero_head(SHAPE)}


@pytest.fixture(scope="module")
def batch():
    rng = generator("test", "meta batch")
    mask = np.ones((P, G), np.float32)
    mask[0, 1:] = mask[2, 2] = 0  # the halves of the batch have 4 and 5 critiques
    return {
        "prompt_tokens": rng.integers(0, SHAPE.vocab_size, (P, S)).astype(np.int32),
        "prompt_lengths": rng.integers(1, S, P).astype(np.int32),
        "tokens": rng.integers(0, SHAPE.vocab_size, (P, G, T)).astype(np.int32),
        "lengths": rng.integers(1, T, (P, G)).astype(np.int32),
        "labels": rng.integers(0, 2, (P, G)).astype(np.float32),
        "mask": mask,
    }


@functools.cache
def compiled():
    def total(params, batch):
        terms = meta_loss(MODEL, params, batch)
        return terms.total, (terms, critique_logits(MODEL, params, batch))

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def terms_of(params, batch):
    (_, (terms, _)), gradient = compiled()(params, batch)
    return terms, gradient


def test_a_head_of_zeros_costs_log_2_a_critique(batch):
    terms, gradient = terms_of(params(head=False), batch)
    assert terms.denominator == batch["mask"].sum() == 9
    np.testing.assert_allclose(terms.total / terms.denominator, math.log(2), rtol=1e-6)
    assert float(jnp.abs(gradient[HEAD]["w"]).max()) > 0  # it does not stay there


def test_the_loss_is_binary_cross_entropy_in_float64(batch):
    (_, (terms, logits)), _ = compiled()(params(), batch)
    logits = np.float64(logits)
    probability = 1 / (1 + np.exp(-logits))
    right = batch["labels"] == 1
    held = batch["mask"] == 1
    expected = -np.where(right, np.log(probability), np.log(1 - probability))[held].sum()
    np.testing.assert_allclose(terms.total, expected, rtol=1e-5)
    hits, count = terms.metrics["accuracy"]
    assert ((logits > 0) & (logits < 0.5)).any() and ((logits > -0.5) & (logits < 0)).any()
    assert (hits, count) == (((probability[held] > 0.5) == right[held]).sum(), 9)
    assert terms.metrics["right"] == (right[held].sum(), 9)


def test_what_is_masked_or_padding_plays_no_part(batch):
    """Neither what stands in padding, nor labels and tokens of critiques that are not there; bit for bit."""
    there = batch["mask"] == 1
    inside = (np.arange(T) < batch["lengths"][..., None]) & there[..., None]
    other = {
        **batch,
        "tokens": np.where(inside, batch["tokens"], (batch["tokens"] + 1) % SHAPE.vocab_size),
        "prompt_tokens": np.where(np.arange(S) < batch["prompt_lengths"][:, None], batch["prompt_tokens"], 5),
        "labels": np.where(there, batch["labels"], 1 - batch["labels"]),
        "lengths": np.where(there, batch["lengths"], 0),
    }
    assert any((other[name] != batch[name]).any() for name in ("tokens", "prompt_tokens", "labels", "lengths"))
    jax.tree.map(np.testing.assert_array_equal, terms_of(params(), other), terms_of(params(), batch))


def test_parts_of_a_batch_add_up_to_the_batch(batch):
    """Loss, count, metrics and gradients of two halves of unequal counts, each in the compiled shape."""
    whole = terms_of(params(), batch)
    first = (np.arange(P) < P // 2)[:, None]
    parts = [terms_of(params(), batch | {"mask": batch["mask"] * half}) for half in (first, ~first)]
    assert [part.denominator for part, _ in parts] == [4, 5]
    added = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), added, whole)


def test_planted_good_ranks_above_planted_bad(batch):
    """Critiques that hold token 3 are right and those that hold token 4 wrong; the rest of them says nothing."""

    def planted(seed):
        rng = generator("test", "planted", seed)
        right = rng.integers(0, 2, (P, G))
        tokens = rng.integers(5, SHAPE.vocab_size, (P, G, T)).astype(np.int32)
        lengths = rng.integers(2, T + 1, (P, G)).astype(np.int32)
        where = rng.integers(0, lengths)[..., None]
        np.put_along_axis(tokens, where, np.where(right, 3, 4)[..., None].astype(np.int32), axis=-1)
        labels, mask = right.astype(np.float32), np.ones((P, G), np.float32)
        return batch | {"tokens": tokens, "lengths": lengths, "labels": labels, "mask": mask}

    weights = params(head=False)
    for step in range(60):
        _, gradient = compiled()(weights, planted(step))
        weights = jax.tree.map(lambda w, g: np.asarray(w - 0.01 * np.sign(g), np.float32), weights, gradient)
    logits, right = [], []
    for step in range(60, 64):
        unseen = planted(step)
        logits.append(np.asarray(compiled()(weights, unseen)[0][1][1]))
        right.append(unseen["labels"] == 1)
    good, bad = np.array(logits)[np.array(right)], np.array(logits)[~np.array(right)]
    assert (good[:, None] > bad).mean() > 0.95


@pytest.mark.parametrize(
    "bad", [{"prompts": 0}, {"group": 0}, {"prompts": 3, "accumulate": 2}, {"learning_rate": -1.0}]
)
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(UserError, match=r"MetaRm\."):
        MetaRm(steps=1, **bad)
