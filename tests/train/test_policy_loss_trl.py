"""The policy loss against that of trl, value, gradient and metrics, over a grid."""

import collections
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.train.policy_loss import Objective, policy_loss

pytestmark = pytest.mark.torch
pytest.importorskip("trl")

ROWS, T, LENGTH = 8, 7, 11
NAMES = {"grpo": ("grpo",), "dapo": ("dapo", "bnpo"), "dr_grpo": ("dr_grpo",)}  # bnpo is dapo on one process
MASKS = {
    "ragged": [7, 1, 3, 5, 2, 7, 4, 6],
    "empty rows": [7, 0, 3, 0, 0, 7, 4, 0],
    "all empty": [0] * 8,
}


def trl_loss(objective, loss_type, logprobs, old, advantages, mask, reference):
    """(loss, gradient, metrics) of `GRPOTrainer._compute_loss`, in which our numbers stand for the model's."""
    import torch
    from trl.trainer.grpo_trainer import GRPOTrainer

    leaf = torch.tensor(logprobs, requires_grad=True)
    tensors = [torch.tensor(x) for x in (old, advantages, mask, reference)]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    accelerator = types.SimpleNamespace(
        num_processes=1, sync_gradients=True, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    metrics = collections.defaultdict(list)
    stub = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, torch.zeros_like(leaf), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        importance_sampling_level=objective.level, beta=objective.kl_coefficient, loss_type=loss_type,
        epsilon_low=objective.clip_low, epsilon_high=objective.clip_high, max_completion_length=objective.length,
        args=types.SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        model=types.SimpleNamespace(training=True), current_gradient_accumulation_steps=1, accelerator=accelerator,
        _entropy_bonus_enabled=False, entropy_coef=0.0, _metrics={"train": metrics},
    )  # fmt: skip
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": tensors[2],
        "old_per_token_logps": tensors[0], "advantages": tensors[1], "ref_per_token_logps": tensors[3],
        "num_items_in_batch": tensors[2].sum(),
    }  # fmt: skip
    loss = GRPOTrainer._compute_loss(stub, None, inputs)
    loss.backward()
    return loss.item(), leaf.grad.numpy(), {name: values[0] for name, values in metrics.items()}


@functools.cache
def compiled(objective):
    shape = (2, 4, T)

    def loss(logprobs, old, advantages, mask, reference):
        rows = [x.reshape(shape) for x in (logprobs, old, mask, reference)]
        given = rows[3] if objective.kl_coefficient else None
        terms = policy_loss(objective, *rows[:2], advantages.reshape(2, 4), rows[2], given)
        return terms.total / jnp.maximum(terms.denominator, 1), terms.metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def ours(objective, *arrays):
    (value, metrics), gradient = jax.device_get(compiled(objective)(*arrays))
    return float(value), gradient, {name: float(a / max(b, 1)) for name, (a, b) in metrics.items()}


def drawn(mask, sign, spread, seed):
    rng = generator("test", "trl", mask, sign, seed)
    logprobs = -rng.exponential(1.5, (ROWS, T))
    old = logprobs + rng.normal(0, spread, (ROWS, T))
    reference = logprobs + rng.normal(0, 0.7, (ROWS, T))
    advantages = rng.standard_normal(ROWS)
    advantages = {"plus": abs(advantages), "minus": -abs(advantages), "both": advantages}[sign]
    held = np.arange(T) < np.array(MASKS[mask])[:, None]
    return [np.asarray(x, np.float32) for x in (logprobs, old, advantages, held, reference)]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.04, 1.0])
@pytest.mark.parametrize("reduction", NAMES)
def test_value_gradient_and_metrics_are_those_of_trl(reduction, beta, level, record_property):
    largest = [0.0, 0.0]
    beyond = 0
    for clip, mask, sign, spread in itertools.product(
        ((0.2, 0.2), (0.1, 0.28)), MASKS, ("plus", "minus", "both"), (0.1, 1.5)
    ):
        objective = Objective(beta, *clip, reduction, level, LENGTH)
        arrays = drawn(mask, sign, spread, str(clip))
        value, gradient, metrics = ours(objective, *arrays)
        beyond += int((np.exp(arrays[0] - arrays[1])[arrays[3] > 0] > 3).sum())
        for name in NAMES[reduction]:
            expected, expected_gradient, theirs = trl_loss(objective, name, *arrays)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)
            largest[0] = max(largest[0], abs(value - expected))
            largest[1] = max(largest[1], float(abs(gradient - expected_gradient).max()))
            if beta:
                np.testing.assert_allclose(metrics["kl"], theirs["kl"], rtol=1e-4, atol=1e-6)
            if level == "token":  # of a rollout without tokens trl counts a ratio at level "sequence"
                for mine, other in (("clip_low", "low_mean"), ("clip_high", "high_mean")):
                    np.testing.assert_allclose(metrics[mine], theirs[f"clip_ratio/{other}"], rtol=1e-5)
    assert beyond > 10  # the grid holds ratios far beyond the clip
    record_property("largest difference of value and gradient", largest)
