"""Laws of meshes: what is computed on one is what one device computes."""

import functools
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import HEAD
from grm_jax.model.gemma2 import logical_axes
from grm_jax.model.quantization import quantized
from grm_jax.parallel.layout import DecodeMesh, Layouts, TrainMesh, layouts, make_layouts, use
from grm_jax.parallel.meshes import make_mesh
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.sampler import Request, Sampler
from grm_jax.spct.programs import Shape, programs
from grm_jax.train.grpo import Grpo, grpo_loss, make_scorer
from grm_jax.train.loop import training_model
from grm_jax.train.losses import sft_loss
from grm_jax.train.meta_rm import MetaRm, meta_loss
from grm_jax.train.placement import Placement, placement
from grm_jax.train.sft import Sft
from grm_jax.train.step import init_state, make_step
from tests.shapes import random_params
from tests.train.toy import recorder

SHAPE = Gemma2Config(
    vocab_size=104, model_dim=32, mlp_dim=48, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=6, window=7,
    query_pre_attn_scalar=7, attention_soft_cap=2.0, final_soft_cap=3.0, max_length=64,
)  # fmt: skip
PARAMS = random_params(SHAPE)
MESHES = [
    (2, 2, 2),
    *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(8, 1, 1), (1, 8, 1), (1, 2, 4), (1, 1, 8)]),
]
P, G, S, T = 8, 2, 9, 6
GRPO = Grpo(steps=1, prompts=P, group=G, temperature=0.7, max_new=T)


def sft_batch():
    rng = generator("test", "mesh sft")
    tokens = rng.integers(0, SHAPE.vocab_size, (P, T + 1)).astype(np.int32)
    positions = np.tile(np.array([0, 1, 2, 0, 1, 2], np.int32), (P, 1))  # two examples a row
    return {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "positions": positions,
        "segments": np.tile(np.array([1, 1, 1, 2, 2, 0], np.int32), (P, 1)),
        "weights": (rng.random((P, T)) < 0.6).astype(np.float32),
    }  # fmt: skip


def rollouts():
    rng = generator("test", "mesh grpo")
    lengths = rng.integers(1, T + 1, (P, G))
    return {
        "prompt_tokens": rng.integers(0, SHAPE.vocab_size, (P, S)).astype(np.int32),
        "prompt_lengths": rng.integers(3, S + 1, P).astype(np.int32),
        "tokens": rng.integers(0, SHAPE.vocab_size, (P, G, T)).astype(np.int32),
        "lengths": lengths.astype(np.int32) - 1,
        "mask": (np.arange(T) < lengths[..., None]).astype(np.float32),
        "advantages": rng.standard_normal((P, G)).astype(np.float32),
        "sampler_logprobs": np.full((P, G, T), -2.0, np.float32),
        "reference_logprobs": rng.normal(-2.0, 0.1, (P, G, T)).astype(np.float32),
    }


def meta_batch():
    drawn = rollouts()
    labels = (drawn["advantages"] > 0).astype(np.float32)
    return {name: drawn[name] for name in ("prompt_tokens", "prompt_lengths", "tokens", "lengths")} | {
        "labels": labels, "mask": np.ones((P, G), np.float32),
    }  # fmt: skip


def stage(name):
    """(loss, parameters, batch) of a trained stage."""
    if name == "sft":
        return functools.partial(sft_loss, training_model(SHAPE, Sft(steps=1))), PARAMS, sft_batch()
    if name == "grpo":
        model = training_model(SHAPE, GRPO)
        return functools.partial(grpo_loss, model, GRPO.objective, GRPO.temperature), PARAMS, rollouts()
    head = {"w": generator("test", "head").standard_normal(SHAPE.model_dim).astype(np.float32), "b": np.float32(0.1)}
    return functools.partial(meta_loss, training_model(SHAPE, MetaRm(steps=1))), PARAMS | {HEAD: head}, meta_batch()


def stepped(name, *, accumulate=1):
    """The gradient and the metrics of one step on the run's mesh."""
    loss, params, batch = stage(name)
    where, places = placement(SHAPE), None
    state = init_state(params, recorder())
    if where:
        places = where.state(state, recorder(), where.of(params))
        state = jax.device_put(state, places)
    layout = layouts().train
    step = make_step(loss, recorder(), accumulate=accumulate, places=places)
    with layout.active():
        state, metrics = step(state, layout.place(batch))
    if places:
        assert (
            jax.tree.map(lambda x: x.sharding, state) == places
        )  # gradients and weights are where they were said to be
    return jax.device_get(state.optimizer), jax.device_get(metrics)


@pytest.fixture(scope="module", params=["sft", "grpo", "meta_rm"])
def alone(request):
    return request.param, stepped(request.param)


@pytest.mark.parametrize("shape", MESHES)
def test_a_step_on_a_mesh_is_the_step_of_one_device(alone, shape):
    name, (gradient, metrics) = alone
    with use(make_layouts(TrainMesh(*shape), DecodeMesh())):
        found, about = stepped(name)
    for key, value in metrics.items():
        np.testing.assert_allclose(about[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
    for path, wanted in jax.tree_util.tree_leaves_with_path(gradient):
        leaf = functools.reduce(lambda tree, key: tree[key.key], path, found)
        assert np.linalg.norm(leaf - wanted) <= 1e-5 * np.linalg.norm(wanted) > 0, path


def test_parts_of_a_batch_add_up_on_a_mesh():
    gradient, metrics = stepped("sft")
    with use(make_layouts(TrainMesh(2, 2, 2), DecodeMesh())):
        found, about = stepped("sft", accumulate=2)
    np.testing.assert_allclose(about["loss"], metrics["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, gradient)


def samples(params=PARAMS, *, prefixed=False, **kwargs):
    rng = generator("test", "mesh prompts")
    head = rng.integers(3, SHAPE.vocab_size, 33)
    requests = [
        Request(
            np.concatenate([head[:h], rng.integers(3, SHAPE.vocab_size, n)]).astype(np.int32),
            rng.integers(0, 2**32, (4, 2), dtype=np.uint32), h,
        )
        for n, h in ((5, 33), (9, 33), (40, 0), (12, 0), (7, 0), (21, 33))
    ]  # fmt: skip
    prefix = np.concatenate([head, rng.integers(3, SHAPE.vocab_size, 130)])
    for n in (6, 10, 14) if prefixed else ():  # orders of one item
        ids = np.concatenate([prefix, rng.integers(3, SHAPE.vocab_size, n)]).astype(np.int32)
        requests.append(Request(ids, rng.integers(0, 2**32, (4, 2), dtype=np.uint32), len(head), len(prefix)))
    sampler = Sampler(
        SHAPE,
        params,
        policy=SamplingPolicy(temperature=1.0),
        max_new=12,
        stop_ids=frozenset({1, 2, 3}),
        rows=16,
        **kwargs,
    )
    found = {}
    for i, completions in sampler.sample(requests):
        assert (
            jax.sharding.get_abstract_mesh().empty
        )  # who takes samples computes where it will, not on the sampler's mesh
        found[i] = completions
    assert (sampler.usage.prefixes > 0) == prefixed
    return found


@pytest.fixture(scope="module")
def sampled_alone():
    return samples(prefixed=True)


@pytest.mark.parametrize("shape", MESHES)
def test_a_mesh_samples_what_one_device_samples(sampled_alone, shape):
    with use(make_layouts(TrainMesh(), DecodeMesh(*shape))):
        found = samples(prefixed=True)
    for i, completions in sampled_alone.items():
        for wanted, completion in zip(completions, found[i], strict=True):
            assert completion.ids.tolist() == wanted.ids.tolist()
            np.testing.assert_allclose(completion.logprobs, wanted.logprobs, rtol=0, atol=1e-5)
            assert completion.stopped == wanted.stopped
    assert any(c.stopped for cs in found.values() for c in cs) and any(
        not c.stopped for cs in found.values() for c in cs
    )


@pytest.mark.parametrize("shape", MESHES)
def test_weights_in_8_bits_are_divided_as_weights_are(shape):
    """Values as their weights, scales along the axes they have; and the tokens are those of one device."""
    params = quantized(PARAMS)
    alone = samples(params)
    with use(make_layouts(TrainMesh(), DecodeMesh(*shape))):
        found = samples(params)
        where = layouts().decode.tree(logical_axes(SHAPE), params)["layers"]["local"]
    for i, completions in alone.items():
        assert [c.ids.tolist() for c in found[i]] == [c.ids.tolist() for c in completions]
    tensor = ("tensor",) if shape[2] > 1 else None
    assert where["mlp"]["up"].values.spec == PartitionSpec(None, None, tensor)
    assert where["mlp"]["up"].scales.spec == PartitionSpec(None, None, tensor)
    assert where["mlp"]["down"].values.spec == PartitionSpec(None, tensor, None)
    assert where["mlp"]["down"].scales.spec == PartitionSpec(None, None, None)


@pytest.mark.parametrize("shape", MESHES)
def test_a_cache_in_8_bits_is_divided_as_a_cache_is(shape):
    """Scales as their keys and values, by rows and heads; and the tokens are those of one device."""
    alone = samples(int8_cache=True)
    with use(make_layouts(TrainMesh(), DecodeMesh(*shape))):
        found = samples(int8_cache=True)
        sampler = Sampler(
            SHAPE, PARAMS, policy=SamplingPolicy(), max_new=12, stop_ids=frozenset({1}), rows=16, int8_cache=True
        )
        rows = sampler._take_rows(16)
    for i, completions in alone.items():
        assert [c.ids.tolist() for c in found[i]] == [c.ids.tolist() for c in completions]
    places = {leaf.dtype: leaf.sharding.spec for leaf in jax.tree.leaves(rows.cache.layers)}
    assert len(places) == 2 and places[np.dtype(np.int8)] == places[np.dtype(np.float32)]
    assert "tensor" in str(places) or shape[2] not in (2, 4)
    assert "data" in str(places) or shape[0] == 1


def test_weights_move_from_the_mesh_that_trains_to_the_one_that_samples(sampled_alone):
    """In one process, as reinforcement learning does at every batch; and both score alike."""
    batch = rollouts()
    alone = make_scorer(SHAPE, GRPO)(PARAMS, batch)
    with use(make_layouts(TrainMesh(fsdp=8), DecodeMesh(data=2, tensor=4))):
        where = placement(SHAPE)
        trained = jax.device_put(PARAMS, where.layout.tree(where.of(PARAMS), PARAMS))
        assert trained["layers"]["local"]["mlp"]["up"].sharding.spec == PartitionSpec(None, "fsdp", None)
        sampler = Sampler(SHAPE, PARAMS, policy=SamplingPolicy(), max_new=12, stop_ids=frozenset({1}), rows=16)
        sampler.load(jax.tree.map(lambda x: x * 2, trained))
        moved = jax.tree.leaves(sampler._params)
        assert any("tensor" in str(leaf.sharding.spec) for leaf in moved)
        assert not any("fsdp" in str(leaf.sharding.spec) for leaf in moved)
        np.testing.assert_array_equal(sampler._params["embedding"], 2 * PARAMS["embedding"])
        found = make_scorer(SHAPE, GRPO)(trained, batch)
    np.testing.assert_allclose(found.logprobs, alone.logprobs, rtol=0, atol=1e-5)


def test_what_does_not_fit_a_mesh_is_refused():
    with pytest.raises(UserError, match=r"TrainMesh: data = 1, fsdp = 3, tensor = 1 has 3 places, there are 8 devices"):
        make_layouts(TrainMesh(fsdp=3), DecodeMesh())
    with pytest.raises(UserError, match=r"DecodeMesh.tensor must be a whole number from 1, not 0"):
        DecodeMesh(tensor=0)
    layout = make_layouts(TrainMesh(fsdp=8), DecodeMesh()).train
    with pytest.raises(UserError, match="a batch of 12 cannot be divided among 8 devices"):
        layout.place({"tokens": np.zeros((12, 3))})
    assert layouts() == Layouts()
    assert make_mesh(TrainMesh(2, 2, 2)).axis_names == ("data", "fsdp", "tensor")
    assert isinstance(placement(SHAPE), Placement | None)


def test_no_token_gathers_weights():
    """The compiled loop exchanges activations; an exchange the size of a weight would cost more than the token."""
    with use(make_layouts(TrainMesh(), DecodeMesh(data=2, tensor=4))):
        (_, program) = programs(SHAPE, None, Shape(prompt=32, completion=12, prompts=4, k=4), layouts())
        program = program.lower().compile()
    gathered = [
        math.prod(map(int, shape.split(",")))
        for shape in re.findall(r"= \w+\[([\d,]+)\]\S* all-gather(?:-start)?\(", program.as_text())
    ]
    weights = {math.prod(leaf.shape[leaf.ndim > 2 :]) for leaf in jax.tree.leaves(PARAMS)} - {SHAPE.model_dim}
    assert gathered and not weights & set(gathered)
    assert max(gathered) == 16 // 2 * SHAPE.vocab_size  # the logits of the rows of two groups, each of eight
