"""Do a judge's scores follow from what it states? Stated scores against those recomputed from weights and sub-scores.

critiques   with readable scores
stated      share of them that state the parts (`text.weighted`); all else is of these, None without any
agree       share of whose scores none differs by more than one half, a whole number's rounding
same        share that name the same winners, of those of several responses
gap         points between recomputed and stated score, mean over responses
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from grm_jax.evaluate.intervals import bootstrap_interval
from grm_jax.judge.run_store import Judged
from grm_jax.text.weighted import recomputed

_ROUNDING = 0.5 + 1e-9


def weighted_scores(judged: Sequence[Judged], *, seed: int = 0) -> dict[str, Any]:
    """Makes the object of the module; estimates have 95% bootstrap intervals over items, each its own mean."""
    by_item: list[list[tuple[float, float, float]]] = []
    critiques = stated = 0
    for entry in judged:
        found = []
        for sample in entry.judgement.samples:
            if sample.scores is None:
                continue
            critiques += 1
            parts = recomputed(sample.text, sample.principles, entry.n)
            if parts is not None:
                given = np.array([sample.scores[response] for response in sample.order], np.float64)
                found.append(_compared(np.array(parts), given))
        stated += len(found)
        if found:
            by_item.append(found)
    means = np.array(
        [np.mean(found, axis=0) for found in by_item]
    )  # an item has the same n throughout: all NaN or none
    estimates = {}
    for column, name in enumerate(("agree", "same", "gap")):
        values = means[:, column][~np.isnan(means[:, column])] if len(means) else np.zeros(0)
        estimates[name] = dataclasses.asdict(bootstrap_interval(values, seed=seed)) if values.size else None
    return {"critiques": critiques, "stated": stated / critiques if critiques else 0.0, **estimates}


def _compared(parts: np.ndarray, given: np.ndarray) -> tuple[float, float, float]:
    """(agree, same, gap) of one critique; a single response has no winner."""
    gaps = np.abs(parts - given)
    same = float(((parts == parts.max()) == (given == given.max())).all()) if len(parts) > 1 else np.nan
    return float((gaps <= _ROUNDING).all()), same, float(gaps.mean())
