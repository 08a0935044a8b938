"""The clipped policy objective of GRPO with its KL penalty, and the ways users know to average it.

Of Eq 15 of arXiv 2504.02495, with rho the ratio of the policy to the one that sampled, A the advantage of a rollout o:

    loss = -(1/G) sum over rollouts (1/|o|) sum over tokens { min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta D_KL }

Everything here is float32 and elementwise but the sums. Letters: P prompts, G rollouts a prompt, T token positions.
"""

import dataclasses

import jax
import jax.numpy as jnp

from grm_jax.errors import UserError
from grm_jax.train.step import LossTerms

REDUCTIONS = ("grpo", "dapo", "dr_grpo")
LEVELS = ("token", "sequence")


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        kl_coefficient: beta, of the KL penalty.
        clip_low: a ratio below 1 - clip_low gains nothing more.
        clip_high: nor one above 1 + clip_high. Larger than `clip_low` it is "clip higher" of DAPO (arXiv 2503.14476).
        reduction: "grpo": the mean over rollouts of the mean over tokens, as in Eq 15; a rollout without tokens counts as
            0. "dapo": the mean over all tokens (arXiv 2503.14476). "dr_grpo": the sum over tokens divided by the constant
            `length`, averaged over rollouts (arXiv 2503.20783).
        level: of the ratio: "token", or "sequence": the geometric mean over the rollout's tokens (GSPO, arXiv 2507.18071).
        length: tokens a rollout may have; for "dr_grpo" alone.
    """

    kl_coefficient: float = 0.08
    clip_low: float = 0.2
    clip_high: float = 0.2
    reduction: str = "grpo"
    level: str = "token"
    length: int = 0

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS or self.level not in LEVELS:
            raise UserError(
                f"reduction {self.reduction!r} at level {self.level!r} is unknown; "
                f"use one of {', '.join(REDUCTIONS)} at level {' or '.join(LEVELS)}"
            )
        if self.reduction == "dr_grpo" and self.length < 1:
            raise UserError(
                f"reduction 'dr_grpo' divides by a constant length, which is {self.length}; give a positive one"
            )


def log_ratios(logprobs: jax.Array, old: jax.Array, mask: jax.Array, level: str) -> jax.Array:
    """Logarithm of the ratio of two policies.

    Args:
        logprobs: float32 [P, G, T], of the policy.
        old: the same of the policy that sampled.
        mask: 1 for tokens that count, else 0; what stands elsewhere plays no part.
        level: "token", or "sequence" for the mean over the tokens that count.

    Returns:
        [P, G, T], 0 where the mask is; or [P, G, 1], 0 for a rollout without tokens.
    """
    difference = jnp.where(mask > 0, logprobs - old, 0.0)
    if level == "token":
        return difference
    return jnp.sum(difference, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1.0)


def kl_estimate(logprobs: jax.Array, reference: jax.Array, mask: jax.Array) -> jax.Array:
    """Estimates KL(policy || reference) token by token: exp(d) - d - 1 with d = log reference - log policy.

    It is the unbiased, never negative estimator of arXiv 2402.03300 (Eq 4), known as k3, and exactly 0 for equal
    policies. Written with expm1, since exp(d) - 1 would lose all digits of the small d that training has.

    Args:
        logprobs: float32 [P, G, T], of the policy.
        reference: the same of the reference.
        mask: 0 where the result is to be 0, whatever stands there.
    """
    d = jnp.where(mask > 0, reference - logprobs, 0.0)
    return jnp.expm1(d) - d


def clipped_objective(ratio: jax.Array, advantages: jax.Array, objective: Objective) -> jax.Array:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A); the arguments broadcast."""
    clipped = jnp.clip(ratio, 1.0 - objective.clip_low, 1.0 + objective.clip_high)
    return jnp.minimum(ratio * advantages, clipped * advantages)


def policy_loss(
    objective: Objective,
    logprobs: jax.Array,
    old: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    reference: jax.Array | None = None,
) -> LossTerms:
    """The loss of rollouts.

    Args:
        objective: settings.
        logprobs: float32 [P, G, T], of the policy that is trained.
        old: the same of the policy that sampled; a constant.
        advantages: float32 [P, G].
        mask: float32 [P, G, T], 1 for tokens that are learnt from, else 0.
        reference: log-probabilities of the reference; None leaves the KL out.

    Returns:
        The sum and its denominator: rollouts for "grpo", tokens for "dapo", rollouts * length for "dr_grpo". Parts of a batch
        along P therefore add up to the batch. Metrics, as means over tokens (ratio and clipping at level "sequence" over
        rollouts): kl, ratio, clip_low (where A < 0 and the ratio is below its bound), clip_high (A > 0, above).
    """
    logprobs, old = logprobs.astype(jnp.float32), jax.lax.stop_gradient(old.astype(jnp.float32))
    ratio = jnp.exp(log_ratios(logprobs, old, mask, objective.level))
    A = advantages[..., None]
    losses = -clipped_objective(ratio, A, objective)
    tokens = jnp.sum(mask, axis=-1)
    # What a ratio belongs to: a token, or a rollout that has any.
    weight = mask if objective.level == "token" else (tokens[..., None] > 0).astype(jnp.float32)
    metrics = {
        "ratio": _mean(ratio, weight),
        "clip_low": _mean((ratio < 1.0 - objective.clip_low) & (A < 0), weight),
        "clip_high": _mean((ratio > 1.0 + objective.clip_high) & (A > 0), weight),
    }
    if reference is not None:
        kl = kl_estimate(logprobs, jax.lax.stop_gradient(reference.astype(jnp.float32)), mask)
        metrics["kl"] = _mean(kl, mask)
        losses = losses + objective.kl_coefficient * kl
    sums = jnp.sum(losses * mask, axis=-1)
    rollouts = jnp.float32(tokens.size)
    if objective.reduction == "grpo":
        return LossTerms(jnp.sum(sums / jnp.maximum(tokens, 1.0)), rollouts, metrics)
    denominator = jnp.sum(tokens) if objective.reduction == "dapo" else rollouts * objective.length
    return LossTerms(jnp.sum(sums), denominator, metrics)


def _mean(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(values * weight), jnp.sum(weight)
