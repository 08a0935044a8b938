"""ReaLMistake (arXiv 2404.03602): does a single response contain an error? Three tasks, two models that responded.

A reward model is measured by ROC-AUC: does a response without error score higher than one with? How arXiv 2504.02495 pools its
figure is not stated, so both are given: over all responses, and as the mean of the six cells.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import PAPER, Benchmark, Case, Votes, asked, case_id
from grm_jax.benchmarks.figures import mean
from grm_jax.benchmarks.policies import OWN, Policies
from grm_jax.data import fields
from grm_jax.data.records import Item
from grm_jax.evaluate.calibration import auc
from grm_jax.keys import generator

PASSWORD = b"open-realmistake"
"""Of the published archive: it keeps crawlers out, not readers (the benchmark's README)."""
_TASKS = ("math_word_problem_generation", "finegrained_fact_verification", "answerability_classification")
_MODELS = {"gpt-4-0613": 140, "Llama-2-70b-chat-hf": 160}
_REPLICATES = 500


def detection_metrics(wrong: np.ndarray, found: np.ndarray, passed: np.ndarray) -> dict[str, float]:
    """Returns accuracy, precision, recall and F1 of a detector of errors, all bool [N]; 0 where a denominator is 0.

    `wrong` is the truth, `found` that the detector reports an error and `passed` that it reports none; it may do neither,
    which is never accurate.
    """
    hits = float((wrong & found).sum())
    precision = hits / found.sum() if found.any() else 0.0
    recall = hits / wrong.sum() if wrong.any() else 0.0
    f1 = 2 * hits / (found.sum() + wrong.sum()) if hits else 0.0
    accurate = np.where(wrong, found, passed).mean()
    return {"accuracy": float(accurate), "precision": float(precision), "recall": float(recall), "f1": float(f1)}


def roc_auc(scores: np.ndarray, right: np.ndarray, missing: float, weights: np.ndarray | None = None) -> float:
    """Returns the probability that a right response scores above a wrong one, ties half; NaN without both kinds.

    Args:
        scores: float64 [N], NaN where there is none.
        right: bool [N].
        missing: what a pair is worth of which a score is missing.
        weights: [N], counts each response that many times.
    """
    weights = np.ones(len(scores)) if weights is None else weights

    def pairs(of: np.ndarray) -> float:
        return float(weights[of & right].sum() * weights[of & ~right].sum())

    every, scored = pairs(np.ones(len(scores), bool)), ~np.isnan(scores)
    if not every:
        return float("nan")
    compared = (auc(scores[scored], right[scored], weights[scored]) or 0.0) * pairs(scored)
    return (compared + missing * (every - pairs(scored))) / every


def _read(row: dict[str, Any], where: str, cell: str) -> tuple[str, list[Case]]:
    label = fields.read_choice(row["error_label"], ("error", "no_error"), where, "error_label")
    prompt = fields.read_text(row["input"], where, "input")
    response = fields.read_text(row["llm_response"], where, "llm_response")
    metadata = fields.read_object(row["metadata"], where, "metadata")
    fields.check_keys(metadata, metadata, ("id",), f"{where}: metadata", "")
    identity = case_id(cell, metadata["id"])
    item = Item(identity, asked(prompt), (response,), domain=cell)
    return cell, [Case(identity, cell, (item,), {"right": label == "no_error"})]


def _part_of(path: str) -> str | None:
    """The cell that a path names as its publishers do: data/TASK/MODEL.jsonl."""
    found = re.search(rf"({'|'.join(_TASKS)})/({'|'.join(map(re.escape, _MODELS))})\.jsonl$", path)
    return f"{found[1]}/{found[2]}" if found else None


def auc_figures(
    cells: Sequence[str], scores: np.ndarray, right: np.ndarray, missing: float, seed: int
) -> dict[str, np.ndarray]:
    """Returns the AUC over all responses, the mean of the cells' and each cell's as figures; responses are resampled within
    their cell. Arguments as for `roc_auc`; `cells` [N] names the cell of each response."""
    names = np.array(cells)
    members = {cell: names == cell for cell in dict.fromkeys(cells)}
    weights = np.ones((1 + _REPLICATES, len(names)))
    for cell, there in members.items():
        count = int(there.sum())
        rng = generator("bootstrap cells", seed, cell)
        weights[1:, there] = rng.multinomial(count, np.full(count, 1 / count), _REPLICATES)

    def figure(there: np.ndarray) -> np.ndarray:
        return np.array([roc_auc(scores[there], right[there], missing, row) for row in weights[:, there]])

    by_cell = {cell: figure(there) for cell, there in members.items()}
    return {"pooled AUC": figure(np.ones(len(names), bool)), "macro AUC": mean(by_cell.values()), **by_cell}


def detection_figures(
    cells: Sequence[str], scores: np.ndarray, right: np.ndarray, error_below: float, seed: int
) -> dict[str, np.ndarray]:
    """Returns `detection_metrics` of each responding model, the mean over its tasks, as figures; responses are resampled within
    their cell. A response is said to hold an error when its score [N] is below `error_below`; without a score nothing is said."""
    names = np.array(cells)
    found: dict[str, dict[str, np.ndarray]] = {}
    for cell in dict.fromkeys(cells):
        there = np.flatnonzero(names == cell)
        rng = generator("bootstrap detection", seed, cell)
        draws = [there, *rng.choice(there, (_REPLICATES, len(there)))]
        rows = [detection_metrics(~right[d], scores[d] < error_below, scores[d] >= error_below) for d in draws]
        found[cell] = {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}
    figures: dict[str, np.ndarray] = {}
    for model in dict.fromkeys(cell.partition("/")[2] for cell in found):
        of_model = [metrics for cell, metrics in found.items() if cell.endswith(f"/{model}")]
        figures |= {f"{metric} {model}": mean(each[metric] for each in of_model) for metric in of_model[0]}
    return figures


def with_detector(error_below: float) -> Benchmark:
    """Returns the benchmark with the detection metrics of a judge whose mean score below `error_below` says "error"."""
    return replace(
        REALMISTAKE,
        title=f"{REALMISTAKE.title}; detection: a mean score below {error_below:g} says error",
        figures=functools.partial(_figures, error_below=error_below),
    )


def _figures(
    cases: Sequence[Case], votes: Votes, policies: Policies, seed: int, error_below: float | None = None
) -> dict[str, np.ndarray]:
    voted = [votes[case.items[0].id][0] for case in cases]
    scores = np.array([np.nan if vote is None else vote[0] for vote in voted], np.float64)
    right = np.array([case.facts["right"] for case in cases])
    cells = [case.group for case in cases]
    figures = auc_figures(cells, scores, right, 0.5 if policies.failures == "chance" else 0.0, seed)
    if error_below is not None:
        figures |= detection_figures(cells, scores, right, error_below, seed)
    return figures


REALMISTAKE = Benchmark(
    name="realmistake",
    title="ReaLMistake (arXiv 2404.03602), ROC-AUC of no error",
    columns=("input", "llm_response", "error_label", "metadata"),
    counts={f"{task}/{model}": rows for task in _TASKS for model, rows in _MODELS.items()},
    read=_read,
    figures=_figures,
    default=Policies(OWN, "wrong"),
    published={PAPER: Policies(OWN, "wrong")},
    part_of=_part_of,
)
"""`data.zip` of the benchmark's repository, as published or unpacked. Ties of scores count half."""
