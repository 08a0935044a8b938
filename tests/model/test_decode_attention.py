"""A cached segment by the kernel for GPUs, interpreted: the same as `attention.attend`, and what nobody sees is not read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from grm_jax.keys import stream_key
from grm_jax.model.attention import KeyValues, Sharing, Tokens, attend
from grm_jax.model.decode_attention import attend_segment
from grm_jax.model.kernels import attention_by
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.sampler import Request, Sampler
from tests.shapes import SHAPES, random_params, random_tokens

H = 16
HOW = {"scale": 0.3, "cap": 5.0}


def made(seed, dtype=jnp.float32):
    draw = np.random.default_rng(seed)
    return lambda *shape: jnp.asarray(draw.normal(size=shape), dtype)


def one_token(make, positions, N, K):
    """Queries of one token a row, where they stand, and its own keys and values."""
    R = len(positions)
    where = Tokens(jnp.asarray(positions, jnp.int32)[:, None], jnp.ones((R, 1), jnp.int32))
    return make(R, 1, N, H) * 3, where, KeyValues(make(R, K, 1, H), make(R, K, 1, H))


def ring(make, size, lengths, cursor, K, start=0):
    """Rows whose samples end before the cursor of a ring; what is there of older samples has id 0."""
    places = (np.arange(size) - cursor) % size - size  # before the cursor: -1, -2, ...
    lengths = np.asarray(lengths)[:, None]
    positions = np.where(places >= -lengths, start + lengths + places, 7)
    tokens = Tokens(jnp.asarray(positions, jnp.int32), jnp.asarray(places >= -lengths, jnp.int32))
    return KeyValues(make(len(lengths), K, size, H), make(len(lengths), K, size, H)), tokens


def assert_same(arguments, window, atol=2e-6):
    by_kernel = attention_by("triton interpreted", arguments[0], 1)
    found = jax.jit(functools.partial(by_kernel, **HOW, window=window))(*arguments)
    expected = attend(*arguments, **HOW, window=window)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=atol)


@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(
    ("size", "lengths", "cursor"), [(150, (0, 70, 150), 20), (64, (1, 2, 64), 63), (24, (9, 24, 3), 0)]
)
def test_a_row_attends_to_its_ring_as_by_xla(size, lengths, cursor, window, K):
    make = made(0)
    queries, where, own = one_token(make, lengths, 4, K)
    assert_same((queries, where, own, [ring(make, size, lengths, cursor, K)]), window)


def rows_of_prompts(dtype=jnp.float32):
    """Eleven rows of three prompts of 200 places, some of which are padding and some grid places empty, after a head of 40."""
    make, K = made(1, dtype), 2
    lengths, prompts = np.array([3, 90, 0, 17, 64, 65, 5, 9, 31, 2, 40]), np.array([200, 130, 7])
    rows = np.array([[[0, 1, 2, 3, 4], [5, 6, 7, 0, 0], [8, 9, 10, 0, 0]]])
    places = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12]])
    sharing = Sharing(jnp.asarray(rows, jnp.int32), jnp.asarray(places, jnp.int32))
    start = 40 + prompts[places[0] // 5]
    queries, where, own = one_token(make, start + lengths, 4, K)
    head = KeyValues(make(1, K, 40, H), make(1, K, 40, H)), Tokens(jnp.arange(40)[None], jnp.ones((1, 40), jnp.int32))
    positions = 40 + jnp.tile(jnp.arange(200), (3, 1))
    inside = jnp.asarray(np.arange(200) < prompts[:, None], jnp.int32)
    prompt = KeyValues(make(3, K, 200, H), make(3, K, 200, H)), Tokens(positions, inside, sharing)
    return queries, where, own, [head, prompt, ring(make, 96, lengths, 50, K, start[:, None])]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("window", [None, 100])
def test_rows_attend_to_head_prompt_and_ring_as_by_xla(window, dtype):
    assert_same(rows_of_prompts(dtype), window, atol=2e-6 if dtype == jnp.float32 else 0.02)


@pytest.mark.parametrize(
    "mesh",
    [DecodeMesh(data=4, tensor=2), pytest.param(DecodeMesh(data=1, tensor=8), marks=pytest.mark.slow)],
    ids=["divided", "more devices than heads"],
)
def test_each_device_attends_with_its_own_rows_and_heads(mesh):
    make, lengths, K = made(3), (3, 50, 0, 64, 65, 9, 31, 40), 2
    queries, where, own = one_token(make, 70 + np.array(lengths), 4, K)
    ones = lambda *shape: jnp.ones(shape, jnp.int32)  # noqa: E731
    places = lambda B, S: jnp.tile(jnp.arange(S), (B, 1))  # noqa: E731
    head = KeyValues(make(1, K, 30, H), make(1, K, 30, H)), Tokens(places(1, 30), ones(1, 30))
    prompts = KeyValues(make(4, K, 40, H), make(4, K, 40, H)), Tokens(30 + places(4, 40), ones(4, 40))
    cache = [head, prompts, ring(make, 96, lengths, 50, K, 70)]
    with make_layouts(TrainMesh(), mesh).decode.active():
        assert_same((queries, where, own, cache), 60)


def test_a_sampler_draws_the_same_tokens_with_it(monkeypatch):
    config = SHAPES["all_kv_heads"]
    ids = [random_tokens(config, 1, length, seed=length)[0] for length in (9, 30)]
    requests = [Request(i, np.stack([stream_key("test", len(i), j) for j in range(3)])) for i in ids]

    def tokens():
        sampler = Sampler(
            config, random_params(config), policy=SamplingPolicy(1.0), max_new=12, stop_ids=frozenset({3}), rows=4
        )
        return {i: [list(c.ids) for c in completions] for i, completions in sampler.sample(requests)}

    expected = tokens()
    monkeypatch.setattr("grm_jax.model.gemma2.best_kernel", lambda backend: "triton interpreted")
    assert tokens() == expected


def test_many_queries_of_one_segment_are_taken_in_blocks():
    make, R = made(2), 50  # 200 queries of each key/value head: four blocks
    queries, where, own = one_token(make, range(650, 650 + R), 8, 2)
    tokens = Tokens(jnp.arange(700)[None], jnp.ones((1, 700), jnp.int32))
    assert_same((queries, where, own, [(KeyValues(make(1, 2, 700, H), make(1, 2, 700, H)), tokens)]), 300)


def segment(seed=0, B=3, K=2, M=2, S=640):
    make = made(seed)
    return make(B, K, M, H), jnp.full((B, M), S), jnp.ones((B, M), jnp.int32), make(B, K, S, H), make(B, K, S, H)


def test_blocks_in_which_nothing_is_seen_are_not_read():
    queries, positions, ids, keys, values = segment()
    begin, end = 130, 180  # of ten blocks of 64 places, the third alone has something to see
    unread = (np.arange(640) < 128) | (np.arange(640) >= 192)
    hidden = lambda x: jnp.where(unread[:, None], jnp.nan, x)  # noqa: E731
    key_ids = jnp.tile((jnp.arange(640) >= begin) & (jnp.arange(640) < end), (3, 1)).astype(jnp.int32)
    places = jnp.tile(jnp.arange(640), (3, 1))
    peak, total, output = attend_segment(
        queries, positions, ids, hidden(keys), hidden(values), places, key_ids, cap=None, window=None, interpret=True
    )
    logits = np.einsum("bkmh,bksh->bkms", queries, keys[:, :, begin:end])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(peak, logits.max(-1), rtol=1e-6)
    np.testing.assert_allclose(total, weights.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(output, np.einsum("bkms,bksh->bkmh", weights, values[:, :, begin:end]), atol=1e-5)


def test_a_row_that_sees_nothing_adds_nothing():
    queries, positions, ids, keys, values = segment(S=70)
    nothing = jnp.zeros((3, 70), jnp.int32)
    peak, total, output = attend_segment(
        queries, positions, ids, keys * jnp.nan, values, nothing, nothing, cap=None, window=None, interpret=True
    )
    assert (peak < -1e38).all() and jnp.isfinite(peak).all() and not total.any() and not output.any()


@pytest.mark.parametrize(
    ("dtype", "rows", "taken"), [("bfloat16", 32, True), ("bfloat16", 31, False), ("float32", 32, False)]
)
def test_it_leaves_to_xla_what_xla_does_faster(dtype, rows, taken):
    queries, positions, ids, keys, values = segment(B=rows, S=64)
    places = jnp.tile(jnp.arange(64), (rows, 1))
    run = functools.partial(attend_segment, cap=None, window=None)
    arrays = [x.astype(dtype) for x in (queries, keys, values)]
    found = jax.eval_shape(run, arrays[0], positions, ids, *arrays[1:], places, places)
    assert (found is not None) == taken


def test_it_is_lowered_for_gpus_without_one():
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((32, 2, 2, 128), jnp.bfloat16), ((32, 2), jnp.int32), ((32, 2), jnp.int32), ((32, 2, 1000, 128), jnp.bfloat16),
            ((32, 2, 1000, 128), jnp.bfloat16), ((32, 1000), jnp.int32), ((32, 1000), jnp.int32),
        )
    ]  # fmt: skip
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="cuda")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        traced = jax.jit(functools.partial(attend_segment, cap=50.0, window=4096)).trace(*shapes)
        assert "attend_segment" in traced.lower(lowering_platforms=("cuda",)).as_text()
