"""JudgeBench (arXiv 2410.12784): each pair is judged in both orders, and both together decide.

k critiques are drawn in each order. A pair is right when more of its two decisions are right than wrong: one right and one
undecided is right, one of each is wrong.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import Benchmark, Case, Votes, asked, one_item
from grm_jax.benchmarks.figures import accuracies, weighted
from grm_jax.benchmarks.policies import OWN, Policies, Scores
from grm_jax.data import fields

COUNTS = {
    "gpt": {"mmlu-pro": 154, "livebench-reasoning": 98, "livebench-math": 56, "livecodebench": 42},
    "claude": {"mmlu-pro": 154, "livebench-reasoning": 51, "livebench-math": 34, "livecodebench": 31},
}


def both_orders(decisions: Sequence[Scores], label: int) -> bool:
    """Tells whether a pair is right, given the votes of its games (two totals each, or None)."""
    return sum(_sign(scores, label) for scores in decisions) > 0


def _sign(scores: Scores, label: int) -> int:
    """1 for a right decision, -1 for a wrong one, 0 for none."""
    return 0 if scores is None else int(np.sign(scores[label] - scores[1 - label]))


def _read(row: dict[str, Any], where: str, part: str, *, split: str) -> tuple[str, list[Case]]:
    source = fields.read_name(row["source"], where, "source")
    subset = next((subset for subset in COUNTS[split] if source.startswith(subset)), None)
    subset = fields.read_choice(subset or source, COUNTS[split], where, "source")
    model = fields.read_name(row["response_model"], where, "response_model")
    if not model.startswith(split):
        problem = f"{fields.show(model)} is not of the {split} split"
        fields.fail(where, "response_model", problem, "give one split; the other is a benchmark of its own")
    label = ("A>B", "B>A").index(fields.read_choice(row["label"], ("A>B", "B>A"), where, "label"))
    responses = [fields.read_text(row[name], where, name) for name in ("response_A", "response_B")]
    return subset, [
        one_item(row["pair_id"], subset, asked(fields.read_text(row["question"], where, "question")), responses, label)
    ]


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    values = np.array([both_orders(votes[case.items[0].id], int(case.items[0].label or 0)) for case in cases])
    groups = [case.group for case in cases]
    subsets = accuracies(groups, values, seed)
    return {"overall": weighted(subsets, Counter(groups)), **subsets}


def _split(name: str, split: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=f"JudgeBench (arXiv 2410.12784), {split} split, both orders",
        columns=("pair_id", "source", "question", "response_model", "response_A", "response_B", "label"),
        counts=COUNTS[split],
        read=functools.partial(_read, split=split),
        figures=_figures,
        default=Policies(OWN, "wrong"),
        published={"JudgeBench": Policies(OWN, "wrong")},
        hub={"": f"hf:ScalerLab/JudgeBench:{split}"},
        games=2,
    )


JUDGEBENCH = _split("judgebench", "gpt")
"""`ScalerLab/JudgeBench`, split `gpt`; accuracy over all pairs."""

JUDGEBENCH_CLAUDE = _split("judgebench_claude", "claude")
"""The same, split `claude`."""
