"""What an item is worth, one vote at a time: the reference of what is computed for all items at once."""

import numpy as np

from grm_jax.evaluate.protocol import subsets
from grm_jax.judge.voting import decide


def slow_values(entries, k, protocol):
    """Float64 [3, items]: worth, tied, failed of labelled items of several responses, means over the protocol's subsets."""
    return np.array([np.mean(list(_worths(entry, k, protocol)), axis=0) for entry in entries]).T


def _worths(entry, k, protocol):
    judgement = entry.judgement
    samples = sorted(judgement.samples, key=lambda sample: sample.index)
    picks = subsets(judgement.id, len(samples), k, protocol) if samples else [()]
    for pick in picks:
        about = {"policy": protocol.vote, "k_meta": protocol.k_meta, "seed": judgement.seed, "item_id": judgement.id}
        verdict = decide([samples[i] for i in pick], **about)
        if verdict.scores is None:
            yield {"wrong": 0.0, "chance": 1 / entry.n}[protocol.failures], 0.0, 1.0
            continue
        best = [i for i, score in enumerate(verdict.scores) if score == max(verdict.scores)]
        shared = {"expected": 1 / len(best), "half": 0.5, "strict": 0.0}
        if protocol.ties == "shuffle_argmax":
            won = float(verdict.best == entry.label)
        else:
            won = (entry.label in best) * (shared[protocol.ties] if len(best) > 1 else 1.0)
        yield won, float(len(best) > 1), 0.0
