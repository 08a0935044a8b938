"""Laws of the speed figures: what one step asks for, counted in three ways, and how it is averaged."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from grm_jax.model.config import PRESETS, Gemma2Config
from grm_jax.model.gemma2 import Gemma2, abstract_params, unroll
from grm_jax.train.losses import sft_loss
from grm_jax.train.speed import PEAK_FLOPS, Speedometer, Work, packed_work, peak_flops, training_flops
from tests.shapes import SHAPES

CONFIG = Gemma2Config(
    vocab_size=512, model_dim=128, mlp_dim=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=32, window=16
)
B, T = 2, 64


def value_and_grad(config, unrolled=False):
    """(loss and gradient, abstract arguments) for B rows of T tokens."""
    model = Gemma2(config, unrolled=unrolled)

    def loss(params, batch):
        terms = sft_loss(model, params, batch)
        return terms.total

    batch = {name: jax.ShapeDtypeStruct((B, T), jnp.int32) for name in ("tokens", "targets", "positions", "segments")}
    batch["weights"] = jax.ShapeDtypeStruct((B, T), jnp.float32)
    params = abstract_params(config)
    return jax.value_and_grad(loss), (jax.eval_shape(unroll, params) if unrolled else params, batch)


def products(jaxpr):
    """FLOPs of all matrix products of a program: two to a multiplication and addition."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        inside = sum(products(each) for each in jaxprs_in_params(equation.params))
        total += inside * (equation.params["length"] if equation.primitive.name == "scan" else 1)
    return total


def asked_and_more(config):
    """(model FLOPs if no query had a mask, what this program computes beside: logits once more in the backward pass).

    The program multiplies whole T x T attention matrices and masks them; model FLOPs count the keys that are seen.
    """
    return training_flops(config, B * T, B * T * T, B * T * T), 2.0 * B * T * config.vocab_size * config.model_dim


@pytest.mark.parametrize("config", [CONFIG, *SHAPES.values()], ids=["wide", *SHAPES])
def test_model_flops_are_the_matrix_products_of_the_traced_program(config):
    """Every product of the forward and backward pass is counted: exactly."""
    function, arguments = value_and_grad(config)
    found = products(jax.make_jaxpr(function)(*arguments).jaxpr)
    assert found == sum(asked_and_more(config))


def test_model_flops_are_what_the_compiler_counts():
    """From 1 to 1.1 times: XLA counts norms, softmax and activations too (3 in 100 here, less as widths grow), and on some
    devices logits once more in the backward pass (5 in 100 here); on others it sees that it has them already.

    Layers are unrolled because XLA counts the body of a loop once.
    """
    function, arguments = value_and_grad(CONFIG, unrolled=True)
    counted = jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]
    assert 1.0 < counted / asked_and_more(CONFIG)[0] < 1.1


def test_model_flops_by_hand():
    """Two layers, one token that sees 3 keys locally and 5 globally, all sizes different primes but heads."""
    c = dataclasses.replace(
        CONFIG, vocab_size=13, model_dim=5, mlp_dim=7, num_layers=4, num_heads=6, num_kv_heads=3, head_dim=2, window=3
    )
    query, key, value, output = 5 * 12, 5 * 6, 5 * 6, 12 * 5
    layer = query + key + value + output + 3 * 5 * 7
    forward = 2 * (4 * layer + 13 * 5) + 2 * 2 * 12 * (2 * 3 + 2 * 5)  # 2 a weight; logits and values of 12 x keys
    assert training_flops(c, 1, 3, 5) == 3 * forward


def test_a_released_shape_needs_six_flops_a_weight_and_token():
    """At 2b the attention products add 2 in 100 at 512 tokens; the 2.6e9 weights are the published count."""
    config = PRESETS["2b"]
    keys = 512 * 513 // 2
    assert training_flops(config, 512, keys, keys) / (6 * 2.614e9 * 512) == pytest.approx(1.01, abs=0.01)


def test_the_work_of_a_packed_batch_is_counted_query_by_query():
    config = dataclasses.replace(CONFIG, window=3)
    lengths = [[5, 2], [1], []]  # examples of each row; the rest is padding
    positions, segments = np.zeros((3, 8), np.int32), np.zeros((3, 8), np.int32)
    local_keys = global_keys = tokens = 0
    for row, examples in enumerate(lengths):
        place = 0
        for number, size in enumerate(examples, 1):
            positions[row, place : place + size], segments[row, place : place + size] = np.arange(size), number
            place += size
    for row in range(3):
        for query in range(8):
            if segments[row, query]:
                seen = [key for key in range(query + 1) if segments[row, key] == segments[row, query]]
                tokens += 1
                global_keys += len(seen)
                local_keys += sum(query - key < 3 for key in seen)
    assert (tokens, global_keys, local_keys) == (8, 15 + 3 + 1, 12 + 3 + 1)
    assert packed_work(config, positions, segments) == Work(8, training_flops(config, 8, local_keys, global_keys))
    assert packed_work(config, positions, np.zeros_like(segments)) == Work(0, 0.0)


def test_the_first_step_which_compiles_is_left_out():
    speedometer = Speedometer(peak=1000.0)
    assert speedometer.read() == {}
    speedometer.add(100.0, 50.0, Work(10, 10.0))
    assert speedometer.read() == {}
    speedometer.add(2.0, 0.5, Work(30, 400.0))
    speedometer.add(3.0, 1.0, Work(70, 800.0))
    expected = {"step_seconds": 2.5, "source_seconds": 0.75, "tokens_per_second": 20.0, "flops_utilisation": 0.24}
    assert speedometer.read() == pytest.approx(expected)
    assert speedometer.read() == {}
    speedometer.add(4.0, 0.0, Work(40, 400.0))
    assert speedometer.read() == pytest.approx(
        {"step_seconds": 4.0, "source_seconds": 0.0, "tokens_per_second": 10.0, "flops_utilisation": 0.1}
    )


@pytest.mark.parametrize(
    ("peak", "work", "names"),
    [
        (None, Work(10, 10.0), {"step_seconds", "source_seconds", "tokens_per_second"}),
        (1e12, None, {"step_seconds", "source_seconds"}),
    ],
)
def test_what_is_not_known_is_left_out(peak, work, names):
    speedometer = Speedometer(peak)
    for _ in range(2):
        speedometer.add(1.0, 0.0, work)
    assert speedometer.read().keys() == names


KINDS = {  # what jax calls them
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5": 459e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12, "NVIDIA H100 NVL": 835e12, "NVIDIA H200": 989e12, "NVIDIA GH200 480GB": 989e12,
    "NVIDIA B200": 2250e12, "NVIDIA L4": 121e12,
    "NVIDIA L40S": None, "TPU v3": None, "cpu": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "peak"), KINDS.items())
def test_a_devices_peak_is_found_by_its_name_or_not_guessed(kind, peak):
    assert peak_flops(kind) == peak


def test_no_peak_is_hidden_by_a_shorter_name():
    assert all(peak_flops(name) == peak for name, peak in PEAK_FLOPS.items())
