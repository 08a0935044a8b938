"""Group-relative advantages: a rollout is better or worse than its siblings of the same prompt.

Letters: P prompts, G group size. The group is an axis; nothing is found again by its place in a flat batch.
"""

import numpy as np

NORMALISATIONS = ("std", "none")
_ROUNDING = 1e-6  # of the largest reward: a spread below it is the rounding of equal rewards, not a difference


def group_advantages(
    rewards: np.ndarray, counted: np.ndarray | None = None, *, normalisation: str = "std", epsilon: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A = (r - mean(r)) / std(r) within each group (Eq 15 of arXiv 2504.02495).

    The deviation is that of a sample (divided by G - 1), as in torch and the implementations built on it. A group whose rewards
    are all equal, or of which fewer than two rollouts count, has advantages of exactly 0.

    Args:
        rewards: [P, G].
        counted: bool [P, G]; rollouts that are False neither get an advantage (0) nor shift the mean. Default: all count.
        normalisation: "std" as above; "none" leaves the difference r - mean(r) (Dr. GRPO, arXiv 2503.20783).
        epsilon: added to the deviation; others add 1e-4 or 1e-6, which the guard of equal groups makes needless here.

    Returns:
        advantages float32 [P, G], and bool [P]: the groups without variance, from which nothing is learnt.
    """
    assert normalisation in NORMALISATIONS
    rewards = np.asarray(rewards, np.float64)
    counted = np.ones(rewards.shape, bool) if counted is None else np.asarray(counted, bool)
    count = counted.sum(-1, keepdims=True)
    mean = np.where(counted, rewards, 0.0).sum(-1, keepdims=True) / np.maximum(count, 1)
    difference = np.where(counted, rewards - mean, 0.0)
    std = np.sqrt(np.square(difference).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    flat = std <= _ROUNDING * np.abs(np.where(counted, rewards, 0.0)).max(-1, keepdims=True)
    scale = np.where(flat, 1.0, std + epsilon) if normalisation == "std" else 1.0
    return np.where(flat, 0.0, difference / scale).astype(np.float32), flat[:, 0]
