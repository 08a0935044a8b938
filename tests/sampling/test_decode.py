"""Laws of decoding: it is the full forward pass, token by token."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import stream_key
from grm_jax.model.attention import Sharing
from grm_jax.model.gemma2 import Gemma2, unroll
from grm_jax.sampling.decode import decode, empty_rows
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.prefill import empty_prompts, grow, prefill, put
from tests.shapes import SHAPES, full_forward, random_params, random_tokens

NEW = 19


@functools.cache
def jitted(name: str, unrolled: bool, policy: SamplingPolicy, stop_ids: tuple[int, ...]):
    model = Gemma2(SHAPES[name], unrolled=unrolled)
    params = random_params(SHAPES[name])
    run = functools.partial(decode, model, policy=policy, stop_ids=stop_ids)
    return model, unroll(params) if unrolled else params, jax.jit(functools.partial(prefill, model)), jax.jit(run)


def all_rows(prompts: int, k: int) -> Sharing:
    """Rows i * k ... share prompt i."""
    places = jnp.arange(prompts * k, dtype=jnp.int32)
    return Sharing(rows=places.reshape(1, prompts, k), places=places[None])


def in_order(drawn, begun=0):
    """Tokens and log-probabilities [R, N] out of their rings; zero after a row's end."""
    N = drawn.tokens.shape[1]
    places = (begun + np.arange(N)) % N
    inside = np.arange(N) < drawn.lengths[:, None]
    return np.where(inside, drawn.tokens[:, places], 0), np.where(inside, drawn.logprobs[:, places], 0)


def generate(
    name, lengths, k, *, unrolled=False, policy=SamplingPolicy(1.0), stop_ids=(), new=NEW, active=None, by_column=True  # noqa: B008
):  # fmt: skip
    """All samples of some prompts at once, with the tokens and log-probabilities in order."""
    model, params, jit_prefill, jit_decode = jitted(name, unrolled, policy, stop_ids)
    B, P = len(lengths), max(lengths)
    tokens = random_tokens(SHAPES[name], rows=B, length=P)
    inside = np.arange(P) < np.asarray(lengths)[:, None]
    prompts = jit_prefill(params, jnp.asarray(np.where(inside, tokens, 0)), jnp.asarray(lengths, jnp.int32))
    keys = np.stack([stream_key("decode", row) for row in range(B * k)])
    rows = empty_rows(model, B * k, new, jnp.float32, by_column=by_column)
    fresh = jnp.ones(B * k, bool) if active is None else jnp.asarray(active)
    out = jit_decode(params, prompts, rows, jnp.asarray(keys), fresh, all_rows(B, k), jnp.int32(B * k))[1]
    out = jax.device_get(out)
    drawn, logprobs = in_order(out)
    return tokens, dataclasses.replace(out, tokens=drawn, logprobs=logprobs)


@pytest.mark.parametrize(
    ("name", "lengths", "k", "unrolled"),
    [
        ("grouped", [21, 3, 14], 1, False),
        ("grouped", [21, 3, 14], 4, True),
        ("one_kv_head", [17, 9], 7, True),
        ("all_kv_heads", [21, 3, 14], 4, False),
    ],
)
def test_sampled_log_probabilities_are_the_trainers(name, lengths, k, unrolled):
    """Decoding equals the full forward for ragged prompts and every k, past the window, and sampler equals trainer."""
    prompts, out = generate(name, lengths, k, unrolled=unrolled)
    rows = [np.concatenate([prompts[r // k, : lengths[r // k]], out.tokens[r]]) for r in range(len(lengths) * k)]
    _, logprobs = full_forward(SHAPES[name], random_params(SHAPES[name]), rows, max(lengths) + NEW)
    for row in range(len(rows)):
        start = lengths[row // k] - 1
        np.testing.assert_allclose(out.logprobs[row], logprobs[row, start : start + NEW], rtol=0, atol=1e-5)


def test_greedy_decoding_takes_the_likeliest_token_of_the_full_forward():
    name, lengths = "grouped", [9, 20]
    prompts, out = generate(name, lengths, 1, policy=SamplingPolicy(0.0))
    rows = [np.concatenate([prompts[r, : lengths[r]], out.tokens[r]]) for r in range(2)]
    logits, _ = full_forward(SHAPES[name], random_params(SHAPES[name]), rows, max(lengths) + NEW)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(out.tokens[row], logits[row, length - 1 : length - 1 + NEW].argmax(-1))


def test_a_row_ends_with_its_stop_token_and_the_loop_with_the_last_row():
    name = "grouped"
    _, free = generate(name, [9, 20], 3)
    stop = int(free.tokens[1, 4])  # a token that is drawn, and so ends its row early
    _, out = generate(name, [9, 20], 3, stop_ids=(stop, int(free.tokens[0, 2])))
    stops = {stop, int(free.tokens[0, 2])}
    for row in range(6):
        hits = [i for i, token in enumerate(free.tokens[row]) if int(token) in stops]
        length = hits[0] + 1 if hits else NEW
        assert out.lengths[row] == length
        assert out.stopped[row] == bool(hits)
        np.testing.assert_array_equal(out.tokens[row, :length], free.tokens[row, :length])
        assert not out.tokens[row, length:].any()
        assert not out.logprobs[row, length:].any()
    assert out.steps == out.lengths.max()


def test_the_loop_ends_early_when_every_row_has_stopped():
    _, free = generate("grouped", [9], 1)
    _, out = generate("grouped", [9], 1, stop_ids=(int(free.tokens[0, 3]),))
    assert out.steps <= 4 < NEW


@pytest.mark.parametrize(("by_column", "int8"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("unrolled", [False, True], ids=["scanned", "unrolled"])
def test_the_cache_is_donated_and_updated_in_place(unrolled, by_column, int8):
    """The compiled decode aliases the cache it is given with the one it returns, and holds no second copy of it."""
    name, R, new = "grouped", 64, 1024
    config = SHAPES[name]
    model = Gemma2(config, unrolled=unrolled)
    params = random_params(config)
    params = unroll(params) if unrolled else params
    prompts = jax.eval_shape(
        functools.partial(prefill, model), params,
        jax.ShapeDtypeStruct((1, 16), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32),
    )  # fmt: skip
    rows = jax.eval_shape(lambda: empty_rows(model, R, new, jnp.float32, by_column=by_column, int8=int8))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(rows.cache.layers))
    run = jax.jit(functools.partial(decode, model, policy=SamplingPolicy(1.0), stop_ids=(1,)), donate_argnames="rows")
    inputs = (jax.ShapeDtypeStruct((R, 2), jnp.uint32), jax.ShapeDtypeStruct((R,), bool), all_rows(1, R), jnp.int32(R))
    memory = run.lower(params, prompts, rows, *inputs).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= size
    read = size if not int8 else 4 * sum(x.size for x in jax.tree.leaves(rows.cache.layers) if x.dtype == jnp.int8)
    # A scan copies one pair's cache out of the stack while it reads it, and of 8 bits a CPU makes float32 to multiply.
    copied = int8 * read if unrolled else read / config.num_pairs
    assert memory.temp_size_in_bytes < 0.25 * size + copied


def test_rows_that_wait_generate_nothing():
    _, out = generate("grouped", [5, 1], 1, active=[True, False], new=4)
    assert out.lengths.tolist() == [4, 0]
    assert out.steps == 4


@pytest.mark.parametrize("by_column", [False, True], ids=["lines", "columns"])
def test_a_row_goes_on_with_any_prompt_at_any_time(by_column):
    """Rows that are given other prompts while others run draw what they would have drawn alone: through held prompts that are
    replaced and grow, through rings that wrap, from any cell of the grid, and whatever the last sample left in the row."""
    name, lengths, k = "grouped", [21, 3, 14, 9], 2
    stop = (2, 3, 5, 7, 11, 13)
    tokens, alone = generate(name, lengths, k, stop_ids=stop)
    model, params, jit_prefill, jit_decode = jitted(name, False, SamplingPolicy(1.0), stop)
    keys = np.stack([stream_key("decode", row) for row in range(8)])
    held = empty_prompts(model, 2, 14, jnp.float32, by_column=by_column)

    def hold(held, prompt, place):
        new = jit_prefill(
            params, jnp.asarray(tokens[[prompt], : lengths[prompt]]), jnp.array([lengths[prompt]], jnp.int32)
        )
        return put(held, new, jnp.array([[place]], jnp.int32))

    def fill(waiting):
        """Three rows are kept busy; a sample is (prompt, index), its cell its index."""
        nonlocal held, rows
        steps, found, doing, place_of = 0, {}, [None] * 3, {}
        while waiting or any(doing):
            fresh, begins = np.zeros(3, bool), []
            for row in range(3):
                if doing[row] is None and waiting:
                    prompt, index = waiting[0]
                    if prompt not in place_of:
                        free = {0, 1} - {place_of[work[0]] for work, _ in filter(None, doing)}
                        if not free:
                            continue
                        place_of = {p: at for p, at in place_of.items() if at != min(free)} | {prompt: min(free)}
                        if lengths[prompt] > held.segment.tokens.positions.shape[1]:
                            held = grow(held, 24)
                        held = hold(held, prompt, min(free))
                    doing[row], fresh[row] = (waiting.pop(0), steps), True
                    begins.append(row)
            grid, places, row_keys = (
                np.zeros((1, 2, 2), np.int32),
                np.zeros((1, 3), np.int32),
                np.zeros((3, 2), np.uint32),
            )
            for row, work in enumerate(doing):
                if work:
                    (prompt, index), _ = work
                    grid[0, place_of[prompt], index], places[0, row] = row, place_of[prompt] * 2 + index
                    row_keys[row] = keys[prompt * 2 + index]
            sharing = Sharing(jnp.asarray(grid), jnp.asarray(places))
            rows, out = jit_decode(params, held, rows, jnp.asarray(row_keys), jnp.asarray(fresh), sharing, jnp.int32(1))
            out = jax.device_get(out)
            for row, work in enumerate(doing):
                if work and not out.running[row]:
                    drawn, logprobs = in_order(out, work[1])
                    found[work[0]] = drawn[row], logprobs[row], out.lengths[row], out.stopped[row]
                    doing[row] = None
            steps = int(out.steps)
        return found

    rows = empty_rows(model, 3, NEW, jnp.float32, by_column=by_column)
    found = fill([(1, 0), (2, 1), (2, 0), (1, 1), (0, 1), (3, 0), (0, 0), (3, 1)])
    assert len(found) == 8
    for (prompt, index), (drawn, logprobs, length, stopped) in found.items():
        row = prompt * 2 + index
        np.testing.assert_array_equal(drawn, alone.tokens[row])
        np.testing.assert_allclose(logprobs, alone.logprobs[row], rtol=0, atol=1e-5)
        assert length == alone.lengths[row] and stopped == alone.stopped[row]
    assert len({length for _, _, length, _ in found.values()}) > 2


def test_the_loop_ends_when_enough_samples_have():
    stop = (2, 3, 5, 7, 11, 13)
    _, whole = generate("grouped", [9, 20], 4, stop_ids=stop)
    model, params, jit_prefill, jit_decode = jitted("grouped", False, SamplingPolicy(1.0), stop)
    tokens = random_tokens(SHAPES["grouped"], rows=2, length=20)
    tokens[0, 9:] = 0
    prompts = jit_prefill(params, jnp.asarray(tokens), jnp.array([9, 20], jnp.int32))
    keys = jnp.asarray(np.stack([stream_key("decode", row) for row in range(8)]))
    rows, fresh, steps = empty_rows(model, 8, NEW, jnp.float32, by_column=False), jnp.ones(8, bool), 0
    ends = np.sort(whole.lengths)
    for patience in (1, 2, 5):
        rows, out = jit_decode(params, prompts, rows, keys, fresh, all_rows(2, 4), jnp.int32(patience))
        before = int((whole.lengths <= steps).sum())
        assert out.steps == ends[min(before + patience, 8) - 1]
        steps, fresh = int(out.steps), jnp.zeros(8, bool)
    np.testing.assert_array_equal(out.lengths, whole.lengths)


def test_what_a_waiting_row_has_drawn_stays_while_others_go_around_the_ring():
    stop = (2, 3, 5)
    _, alone = generate("grouped", [9], 8, stop_ids=stop)
    by_length = np.argsort(alone.lengths)
    short, middle, full = by_length[0], by_length[1], by_length[-1]
    assert 0 < alone.lengths[short] < alone.lengths[middle] < alone.lengths[full] == NEW
    model, params, jit_prefill, jit_decode = jitted("grouped", False, SamplingPolicy(1.0), stop)
    tokens = random_tokens(SHAPES["grouped"], rows=1, length=9)
    prompts = jit_prefill(params, jnp.asarray(tokens), jnp.array([9], jnp.int32))
    keys = jnp.asarray(np.stack([stream_key("decode", int(row)) for row in (short, middle, full)]))
    rows = empty_rows(model, 3, NEW, jnp.float32, by_column=False)
    for fresh, patience in (([True, True, False], 1), ([False, False, True], 2)):
        rows, out = jit_decode(params, prompts, rows, keys, jnp.array(fresh), all_rows(1, 3), jnp.int32(patience))
    assert out.steps == alone.lengths[short] + NEW  # the last row has passed the place where the others began
    np.testing.assert_array_equal(in_order(jax.device_get(out))[0][1], alone.tokens[middle])
