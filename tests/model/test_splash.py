"""Laws of the attention kernel, interpreted: on tokens that are no padding it is the reference, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.model.attention import KeyValues, Tokens, attend
from grm_jax.model.gemma2 import Gemma2
from grm_jax.model.kernels import attention_by, best_kernel
from grm_jax.model.splash import splash_attend
from grm_jax.parallel.exchanges import exchanged
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
from grm_jax.sampling.prefill import prefill
from tests.shapes import SHAPES, random_params, random_tokens

R, N, K, H = 2, 4, 2, 16
SCALE = 0.4
TOLERANCE = 2e-6  # of the largest value, float32: the kernel adds up in another order


def drawn(name, *shape):
    return jnp.asarray(generator("splash", name).standard_normal(shape).astype(np.float32))


def keys_and_values(name, rows, length):
    return KeyValues(keys=2 * drawn(name + "k", rows, K, length, H), values=drawn(name + "v", rows, K, length, H))


def packed(*rows):
    """Tokens of rows of segments, each (id, length); id 0 is padding."""
    segments = np.stack([np.concatenate([np.full(length, i, np.int32) for i, length in row]) for row in rows])
    positions = np.stack([np.concatenate([np.arange(length, dtype=np.int32) for _, length in row]) for row in rows])
    return Tokens(positions=jnp.asarray(positions), segments=jnp.asarray(segments))


WHOLE = packed([(1, 300)], [(1, 300)])
PACKED = packed([(1, 90), (2, 7), (3, 203)], [(1, 150), (2, 110), (0, 40)])


def both(queries, where, own, cache, **how):
    """Output and gradients of the reference and of the kernel; padding weighs nothing."""
    weights = drawn("weights", *queries.shape) * (where.segments != 0)[..., None, None]

    def value(attention, queries, own, layers):
        output = attention(queries, where, own, [(kv, tokens) for kv, (_, tokens) in zip(layers, cache, strict=True)])
        return jnp.sum(output * weights), output * (where.segments != 0)[..., None, None]

    for attention in (attend, functools.partial(splash_attend, interpret=True)):
        attention = functools.partial(attention, scale=SCALE, **how)
        function = jax.jit(jax.value_and_grad(functools.partial(value, attention), argnums=(0, 1, 2), has_aux=True))
        (_, output), gradients = function(queries, own, [kv for kv, _ in cache])
        yield output, gradients


def assert_equal(reference, kernel):
    for wanted, found in zip(jax.tree.leaves(reference), jax.tree.leaves(kernel), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@pytest.mark.parametrize("where", [WHOLE, PACKED], ids=["whole", "packed and padded"])
@pytest.mark.parametrize(("cap", "window"), [(3.0, None), (3.0, 37), (None, 37), (None, None)])
def test_whole_sequences_attend_as_the_reference(where, cap, window):
    """Of a length that is no multiple of a block; the soft cap bites, the window is shorter than a segment."""
    own = keys_and_values("own", R, 300)
    assert_equal(*both(drawn("q", R, 300, N, H), where, own, [], cap=cap, window=window))


@pytest.mark.parametrize("window", [None, 37, 250, 600])
def test_completions_attend_to_their_prompt_as_the_reference(window):
    """Two padded prompts of two completions each; windows that end in the completion, in the prompt, before it."""
    prompt = packed([(1, 190), (0, 10)], [(1, 33), (0, 167)])
    positions = jnp.asarray(np.repeat([190, 33], 2)[:, None] + np.arange(130), jnp.int32)
    where = Tokens(positions=positions, segments=jnp.ones_like(positions))
    cache = [(keys_and_values("prompt", 2, 200), prompt)]
    own = keys_and_values("completion", 4, 130)
    assert_equal(*both(drawn("q", 4, 130, N, H), where, own, cache, cap=3.0, window=window))


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 2), pytest.param((1, 1, 8), marks=pytest.mark.slow)],
    ids=["heads divided", "more devices than heads"],
)
def test_each_device_attends_with_its_own_rows_and_heads(shape):
    own, queries = keys_and_values("own", 4, 200), drawn("q", 4, 200, N, H)
    where = packed(*([[(1, 120), (2, 80)]] * 4))
    reference, kernel = both(queries, where, own, [], cap=3.0, window=37)
    assert_equal(reference, kernel)
    layout = make_layouts(TrainMesh(*shape), DecodeMesh()).train
    with layout.active():
        _, divided = both(queries, where, own, [], cap=3.0, window=37)
    assert_equal(kernel, divided)


@pytest.mark.parametrize(("heads", "gathers"), [(8, False), (2, True)])
def test_no_device_gathers_the_heads_of_another(heads, gathers):
    """Where they can be divided among all."""
    layout = make_layouts(TrainMesh(tensor=8), DecodeMesh()).train

    def array(*shape, names=("batch", "heads", None, None)):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=layout.sharding(names, shape))

    queries = array(1, 128, 16, H, names=("batch", None, "heads", None))
    own = KeyValues(keys=array(1, heads, 128, H), values=array(1, heads, 128, H))
    attention = functools.partial(splash_attend, scale=SCALE, cap=3.0, window=None, interpret=True)
    with layout.active():
        where = packed([(1, 128)])
        program = jax.jit(lambda q, own: attention(q, where, own, []), out_shardings=queries.sharding).lower(
            queries, own
        )
    assert bool(exchanged(program.compile().as_text())) == gathers


def test_a_model_with_the_kernel_is_the_model():
    """All layers, rows of padding between them; and prefill gives the same cache, whatever attends."""
    config = SHAPES["grouped"]
    params, tokens = random_params(config), random_tokens(config)
    found = [
        jax.jit(functools.partial(prefill, Gemma2(config, kernel=kernel)))(params, tokens, jnp.array([40, 23]))
        for kernel in ("xla", "splash interpreted")
    ]
    inside = found[0].segment.tokens.segments != 0
    for wanted, other in zip(*map(jax.tree.leaves, found), strict=True):
        if wanted.ndim == 5:  # keys and values [pairs, B, K, S, H]
            wanted, other = (jnp.where(inside[None, :, None, :, None], x, 0) for x in (wanted, other))
        np.testing.assert_allclose(other, wanted, rtol=0, atol=2e-5)


def test_only_a_tpu_has_the_kernel_and_elsewhere_nothing_changes():
    assert [best_kernel(backend) for backend in ("cpu", "gpu", "tpu")] == ["xla", "triton", "splash"]
    assert [best_kernel(backend, training=True) for backend in ("cpu", "gpu", "tpu")] == ["xla", "xla", "splash"]
    own, queries = keys_and_values("own", R, 300), drawn("q", R, 300, N, H)
    how = {"scale": SCALE, "cap": 3.0, "window": 37}
    text = [
        jax.jit(functools.partial(f, **how)).lower(queries, PACKED, own, []).as_text().partition("\n")[2]
        for f in (attend, attention_by("xla", queries, 0))
    ]
    assert text[0] == text[1]  # but for its name


def test_a_decoded_token_attends_by_the_reference():
    """One query would leave the kernel's block of queries empty but for one row."""
    own, queries = keys_and_values("own", R, 1), drawn("q", R, 1, N, H)
    where = packed([(1, 1)], [(1, 1)])
    found = attention_by("splash", queries, 0)(queries, where, own, [], scale=SCALE, cap=3.0, window=None)
    np.testing.assert_array_equal(found, jnp.repeat(own.values, N // K, axis=1).swapaxes(1, 2))
