"""What a judgement costs at each k, from stored samples and the times of their run.

    tokens   of a critique: mean, median, 90% below, most; prompts, whose tokens are not stored, are left out
    by_k     for each k: tokens generated for the k critiques, mean over items and subsets; seconds, and meta_seconds for scoring
             them, mean over items: wall-clock, of all items judged together on the machine of the run; measured and
             meta_measured say whether they are of a run at this k, or else in proportion to the generated tokens, and to the
             critiques
    timed    share of the critiques whose drawing was timed

A smaller k costs more than its proportion: the prompt is computed once whatever k is, and fewer rows are decoded together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.judge.run_store import Judged
from grm_jax.judge.run_times import CRITIQUES, META_SCORES, Spent


def cost(
    judged: Sequence[Judged], ks: Sequence[int], times: Mapping[str, Spent] | None = None
) -> dict[str, Any] | None:
    """Makes the object of the module; None where nothing was sampled.

    Args:
        judged: all items of the run, those that were never sampled too.
        ks: numbers of critiques.
        times: of the run (`run_times.read_times`).
    """
    samples = [sample for entry in judged for sample in entry.judgement.samples]
    if not samples:
        return None
    tokens = np.array([sample.tokens for sample in samples])
    drawn = {len(entry.judgement.samples) for entry in judged} - {0}
    items = sum(bool(entry.judgement.samples) for entry in judged)
    # The mean over all k-subsets of an item is k times the mean of its samples.
    each = float(np.mean([np.mean([s.tokens for s in e.judgement.samples]) for e in judged if e.judgement.samples]))
    times = times or {}
    spent, scoring = times.get(CRITIQUES, Spent()), times.get(META_SCORES, Spent())
    complete = spent.count == len(samples) and len(drawn) == 1
    rate = spent.seconds / spent.tokens if spent.tokens else None
    readable = sum(sample.meta_score is not None for sample in samples)
    # Scores made elsewhere were not timed: only where all were is their time that of the run.
    score = scoring.seconds / len(samples) if readable and scoring.count == readable else None
    rows = []
    for k in ks:
        measured = complete and drawn == {k}
        seconds = spent.seconds / items if measured else None if rate is None else rate * k * each
        meta_seconds = None if score is None else score * k
        row = {"k": k, "tokens": k * each, "seconds": seconds, "measured": measured}
        rows.append({**row, "meta_seconds": meta_seconds, "meta_measured": score is not None and drawn == {k}})
    return {
        "tokens": {
            "mean": float(tokens.mean()), "median": float(np.median(tokens)),
            "most_below": float(np.quantile(tokens, 0.9)), "most": int(tokens.max()),
        },
        "by_k": rows,
        "timed": min(1.0, spent.count / len(samples)),
    }  # fmt: skip
