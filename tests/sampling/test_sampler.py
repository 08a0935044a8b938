"""A sample depends on its prompt and its key, not on its company."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import stream_key
from grm_jax.model.gemma2 import unroll, unrolling_pays
from grm_jax.model.output_major import native_form
from grm_jax.model.projections import formed
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.sampler import Request, Sampler, bucket
from tests.shapes import SHAPES, random_params, random_tokens

CONFIG = SHAPES["grouped"]
PARAMS = random_params(CONFIG)


OPTIONS = {"policy": SamplingPolicy(1.0), "max_new": 12, "stop_ids": frozenset({1, 5})}


@functools.cache  # a sampler compiles each shape once
def sampler(rows=16, policy=SamplingPolicy(1.0), stop_ids=frozenset({1, 5}), int8_cache=False) -> Sampler:  # noqa: B008 - frozen
    return Sampler(CONFIG, PARAMS, policy=policy, max_new=12, stop_ids=stop_ids, rows=rows, int8_cache=int8_cache)


def request(item: int, indices, seed: int = 0) -> Request:
    length = 3 + 7 * item % 37
    ids = random_tokens(CONFIG, rows=1, length=length, seed=item)[0]
    return Request(ids=ids, keys=np.stack([stream_key("sample", seed, item, index) for index in indices]))


def texts(requests, **kwargs):
    out = dict(sampler(**kwargs).sample(requests))
    return [[completion.ids.tolist() for completion in out[i]] for i in range(len(requests))]


@pytest.mark.parametrize("policy", [SamplingPolicy(1.0), SamplingPolicy(0.5, top_p=0.9)], ids=["plain", "top_p"])
def test_a_sample_is_the_same_alone_in_any_batch_and_with_any_k(policy):
    together = texts([request(item, range(6)) for item in range(5)], policy=policy)
    for item in range(5):
        assert texts([request(item, [4])], policy=policy) == [[together[item][4]]]
        assert texts([request(item, range(3))], policy=policy) == [together[item][:3]]
    reversed_and_small = texts([request(item, range(6)) for item in reversed(range(5))], rows=7, policy=policy)
    assert reversed_and_small == together[::-1]


def test_neighbouring_seeds_share_no_stream():
    """Seed s + 1 is not seed s shifted by a sample: no completion of one is any completion of the other."""
    first = texts([request(0, range(12), seed=0)], stop_ids=frozenset())[0]
    second = texts([request(0, range(12), seed=1)], stop_ids=frozenset())[0]
    assert len({tuple(ids) for ids in first + second}) == 24
    keys = [tuple(stream_key("critique", seed, "item", index)) for seed in range(50) for index in range(50)]
    assert len(set(keys)) == len(keys)


def test_streams_of_neighbouring_seeds_are_uncorrelated():
    def uniforms(seed):
        keys = jax.random.wrap_key_data(jnp.asarray(np.stack([stream_key("s", seed, i) for i in range(64)])))
        return np.asarray(
            jax.vmap(lambda key: jax.vmap(lambda t: jax.random.uniform(jax.random.fold_in(key, t)))(jnp.arange(64)))(
                keys
            )
        )

    a, b = uniforms(7).ravel(), uniforms(8).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06  # four standard deviations of 4,096 independent pairs
    assert abs(a.mean() - 0.5) < 0.02


def test_order_of_results_names_the_requests():
    requests = [request(item, range(2)) for item in (5, 0, 3)]
    out = dict(sampler().sample(requests))
    assert sorted(out) == [0, 1, 2]
    assert all(len(completions) == 2 for completions in out.values())


def test_few_shapes_are_compiled_for_many_prompts():
    engine = sampler.__wrapped__(rows=8)
    requests = [request(item, range(2)) for item in range(60)]
    list(engine.sample(requests))
    buckets = {bucket(len(r.ids)) for r in requests}
    assert len({len(r.ids) for r in requests}) > 4 * len(buckets)
    prefills = {shape for shape in engine.compilations if shape[0] == "prefill"}
    assert len(prefills) <= len(buckets) * 2  # eight at once, and one alone
    assert len(engine.compilations - prefills) == 1
    assert engine._decode._cache_size() == 1 and engine._holding._prefill._cache_size() == len(prefills)


def test_buckets_waste_at_most_half_and_depend_on_length_alone():
    for length in range(1, 10_000, 7):
        assert length <= bucket(length) <= max(32, 1.5 * length)


def test_completions_end_with_their_stop_token():
    (completions,) = [c for _, c in sampler().sample([request(2, range(16))])]
    for completion in completions:
        assert completion.stopped == (int(completion.ids[-1]) in {1, 5})
        assert not {1, 5} & set(completion.ids[:-1].tolist())
        assert len(completion.ids) == len(completion.logprobs)
        assert len(completion.ids) == 12 or completion.stopped


def test_no_requests_are_no_work():
    assert list(sampler().sample([])) == []


def test_other_parameters_are_loaded_without_compiling_anew():
    other = random_params(CONFIG, seed=1)
    request = [Request(random_tokens(CONFIG, 1, 20)[0], np.stack([stream_key("load", i) for i in range(2)]))]
    drawn = Sampler(CONFIG, PARAMS, policy=SamplingPolicy(1.0), max_new=12, stop_ids=frozenset({1, 5}))
    first = list(drawn.sample(request))
    drawn.load(other)
    second = list(drawn.sample(request))
    assert drawn._decode._cache_size() == drawn._holding._prefill._cache_size() == drawn._formed._cache_size() == 1
    fresh = Sampler(CONFIG, other, policy=SamplingPolicy(1.0), max_new=12, stop_ids=frozenset({1, 5}))
    for (_, found), (_, expected), (_, before) in zip(second, fresh.sample(request), first, strict=True):
        for a, b, old in zip(found, expected, before, strict=True):
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_array_equal(a.logprobs, b.logprobs)
            assert not np.array_equal(a.logprobs, old.logprobs)


def test_parameters_that_are_as_wanted_are_not_copied():
    wanted = jax.tree.map(jnp.array, unroll(PARAMS) if unrolling_pays() else PARAMS)
    if form := native_form(jax.default_backend(), divided=False):
        wanted = formed(form, wanted)
    drawn = Sampler(CONFIG, wanted, policy=SamplingPolicy(1.0), max_new=12, stop_ids=frozenset())
    same = jax.tree.map(lambda a, b: a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer(), drawn._params, wanted)
    assert all(jax.tree.leaves(same))
    drawn.load(jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn._params)} == {jnp.dtype(jnp.float32)}
    assert jax.tree.structure(drawn._params) == jax.tree.structure(wanted)


def test_prompts_of_several_lengths_may_share_a_shape():
    requests = [
        Request(random_tokens(CONFIG, 1, size, seed=size)[0], np.stack([stream_key("s", size, i) for i in range(2)]))
        for size in (5, 36)
    ]
    alone = dict(sampler().sample(requests))
    drawn = sampler.__wrapped__()
    together = dict(drawn.sample(requests, alike=True))
    assert {shape[-2] for shape in drawn.compilations} == {48} and len(drawn.compilations) == 2
    for i in range(2):
        for a, b in zip(alone[i], together[i], strict=True):
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "int8_cache"), [(3, False), (32, False), (32, True)])
def test_samples_do_not_depend_on_how_they_are_scheduled(rows, int8_cache):
    """Few rows and many, one prompt held or all, prompts of one and of forty samples, prompts that need room to grow."""
    stop_ids = frozenset(range(8))  # most end early, some never
    requests = [request(item, range(k)) for item, k in enumerate((1, 40, 2, 7, 1, 3, 2, 1))]
    requests[3] = Request(ids=random_tokens(CONFIG, 1, 200, seed=9)[0], keys=requests[3].keys)
    expected = texts(requests, rows=64, stop_ids=stop_ids, int8_cache=int8_cache)
    assert texts(requests, rows=rows, stop_ids=stop_ids, int8_cache=int8_cache) == expected
    lengths = [len(ids) for found in expected for ids in found]
    assert min(lengths) == 1 and max(lengths) == 12


def test_usage_counts_steps_tokens_and_prompts():
    engine = sampler.__wrapped__(rows=4, stop_ids=frozenset())
    list(engine.sample([request(item, range(2)) for item in range(6)]))
    assert engine.usage.tokens == 6 * 2 * 12
    assert engine.usage.prompts == 6
    assert engine.usage.steps == 3 * 12 and engine.usage.row_steps == 4 * 3 * 12  # none waits: all are of one length
    assert engine.usage.calls == 3


def test_a_sampler_that_was_left_in_the_middle_begins_anew():
    requests = [request(item, range(4)) for item in range(6)]
    engine = sampler.__wrapped__(rows=8)
    first = next(engine.sample(requests))
    again = dict(engine.sample(requests))
    for left, right in zip(first[1], again[first[0]], strict=True):
        np.testing.assert_array_equal(left.ids, right.ids)


def headed(item: int, indices, head: int) -> Request:
    """A request whose prompt begins with the first `head` ids of all such prompts."""
    ids = np.concatenate([random_tokens(CONFIG, 1, head, seed=99)[0], request(item, indices).ids])
    return Request(ids=ids, keys=request(item, indices).keys, head=head)


def test_what_all_prompts_begin_with_is_computed_once_and_changes_nothing():
    requests = [headed(item, range(3), 33) for item in range(5)]
    engine, plain = sampler.__wrapped__(), sampler.__wrapped__()
    found = dict(engine.sample(requests))
    expected = dict(plain.sample([dataclasses.replace(each, head=0) for each in requests]))
    for i, completions in expected.items():
        for wanted, completion in zip(completions, found[i], strict=True):
            np.testing.assert_array_equal(completion.ids, wanted.ids)
            np.testing.assert_allclose(completion.logprobs, wanted.logprobs, rtol=0, atol=1e-5)
    assert ("head", 33) in engine.compilations and not {"head"} & {shape[0] for shape in plain.compilations}
    assert {shape[-1] for shape in engine.compilations} == {33}
    assert max(shape[2] for shape in engine.compilations if shape[0] == "prefill") < max(
        shape[2] for shape in plain.compilations if shape[0] == "prefill"
    )
    list(engine.sample(requests))
    assert engine._holding._compute_head._cache_size() == len(engine._holding._heads) == 1
    engine.load(random_params(CONFIG, seed=1))
    others = dict(engine.sample(requests[:1]))[0]
    fresh = dict(Sampler(CONFIG, random_params(CONFIG, seed=1), **OPTIONS).sample(requests[:1]))[0]
    for a, b in zip(others, fresh, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)


def test_prompts_of_two_heads_and_of_none_are_sampled_together():
    requests = [headed(0, range(2), 33), headed(1, range(2), 40), headed(2, range(2), 3), request(3, range(2))]
    whole = [dataclasses.replace(each, head=0) for each in requests]
    assert texts(requests) == texts(whole)


def orders(item: int, indices, prefix: int, head: int = 33, own: int = 20) -> list[Request]:
    """Two requests of one item: a head that all have, a prefix that both have, and each its own end."""
    begin = [random_tokens(CONFIG, 1, size, seed=seed)[0] for size, seed in ((head, 99), (prefix, 200 + item))]
    ends = [random_tokens(CONFIG, 1, own + item, seed=300 + 2 * item + i)[0] for i in range(2)]
    keys = [request(2 * item + i, indices).keys for i in range(2)]
    return [
        Request(np.concatenate([*begin, end]), each, head, head + prefix) for end, each in zip(ends, keys, strict=True)
    ]


@pytest.mark.parametrize("head", [pytest.param(0, marks=pytest.mark.slow), 33])
def test_what_orders_of_an_item_begin_with_is_computed_once_and_changes_nothing(head):
    """Of five items; a prefix that is short, and one that no other has, are computed with the rest."""
    requests = [each for item in range(5) for each in orders(item, range(3), 150 + 3 * item, head)]
    requests += [*orders(7, range(3), 100, head), orders(8, range(3), 150, head)[0]]
    engine, plain = sampler.__wrapped__(rows=64), sampler.__wrapped__()
    found = dict(engine.sample(requests))
    expected = dict(plain.sample([dataclasses.replace(each, prefix=0) for each in requests]))
    for i, completions in expected.items():
        for wanted, completion in zip(completions, found[i], strict=True):
            np.testing.assert_array_equal(completion.ids, wanted.ids)
            np.testing.assert_allclose(completion.logprobs, wanted.logprobs, rtol=0, atol=1e-5)
    assert engine.usage.prompts == plain.usage.prompts == 13
    assert engine.usage.prefixes == 5 and plain.usage.prefixes == 0
    after = {shape for shape in engine.compilations if shape[0] == "prefill after"}
    assert after and {shape[2:4] for shape in after} <= {(192, 32)}
    assert not {shape for shape in plain.compilations if shape[0] == "prefill after"}
    assert texts([dataclasses.replace(each, head=head) for each in requests[:4]]) == [
        [c.ids.tolist() for c in expected[i]] for i in range(4)
    ]


def test_rollouts_of_one_shape_have_no_prefix():
    requests = [each for item in range(2) for each in orders(item, range(3), 150)]
    engine = sampler.__wrapped__()
    found, expected = dict(engine.sample(requests, alike=True)), dict(sampler().sample(requests))
    assert engine.usage.prefixes == 0
    for i, completions in expected.items():
        assert [c.ids.tolist() for c in found[i]] == [c.ids.tolist() for c in completions]


@pytest.mark.parametrize("head", [0, 33])
def test_a_cache_in_8_bits_is_that_of_prompts_heads_and_samples(head):
    """No other keys and values are held. The first token's log-probability is that of a prompt that is computed in full, and near
    it after a head, which is read in 8 bits."""
    requests = [headed(item, range(3), 33) for item in range(5)]
    requests = [dataclasses.replace(each, head=head) for each in requests]
    greedy = SamplingPolicy(0.0)
    engine = sampler.__wrapped__(policy=greedy, int8_cache=True)
    found, expected = (dict(each.sample(requests)) for each in (engine, sampler(policy=greedy)))
    held = [engine._holding.empty(2, 32).segment, engine._rows.cache, *engine._holding._heads.values()]
    assert len(held) == (3 if head else 2)
    for segment in held:
        assert {leaf.dtype for leaf in jax.tree.leaves(segment.layers)} == {jnp.dtype(jnp.int8), jnp.dtype(jnp.float32)}
        assert sum(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(segment.layers)) == 2 * CONFIG.num_layers
    apart = [abs(a.logprobs[0] - b.logprobs[0]) for i in expected for a, b in zip(found[i], expected[i], strict=True)]
    assert (max(apart) > 0) == (head > 0) and max(apart) < 0.02
