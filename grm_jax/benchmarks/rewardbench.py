"""RewardBench (arXiv 2403.13787): prompt, chosen, rejected; four sections of weighted subsets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import PAPER, PAPER_POLICIES, Benchmark, Case, Votes, asked, credits, one_item
from grm_jax.benchmarks.figures import accuracies, mean, weighted
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields

SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154, "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164, "hep-rust": 164,
    },
}  # fmt: skip
"""Subsets of each section with their weights: the number of rows, but math-prm counts as much as all the code."""

_SECTION_OF = {subset: section for section, subsets in SECTIONS.items() for subset in subsets}
_ROWS = {subset: rows for subsets in SECTIONS.values() for subset, rows in subsets.items()} | {"math-prm": 447}


def section_scores(accuracy: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the score of each section of which subsets are there: their accuracies averaged by weight, numbers or figures."""
    scores = {}
    for section, weights in SECTIONS.items():
        there = {subset: accuracy[subset] for subset in weights if subset in accuracy}
        if there:
            scores[section] = weighted(there, weights)
    return scores


def _read(row: dict[str, Any], where: str, part: str) -> tuple[str, list[Case]]:
    subset = fields.read_choice(row["subset"], _SECTION_OF, where, "subset")
    prompt = fields.read_text(row["prompt"], where, "prompt")
    responses = [fields.read_text(row[name], where, name) for name in ("chosen", "rejected")]
    group = f"{_SECTION_OF[subset]}/{subset}"
    return subset, [one_item(row["id"], group, asked(prompt), responses, 0)]


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    values = np.array(credits(cases, votes, policies, seed))
    by_group = accuracies([c.group for c in cases], values, seed)
    sections = section_scores({group.partition("/")[2]: figure for group, figure in by_group.items()})
    return {"overall": mean(sections.values()), **sections, **by_group}


REWARDBENCH = Benchmark(
    name="rewardbench",
    title="RewardBench (arXiv 2403.13787)",
    columns=("prompt", "chosen", "rejected", "subset", "id", "chosen_model"),
    counts=_ROWS,
    read=_read,
    figures=_figures,
    default=Policies("half", "chance"),
    published={
        "RewardBench, generative judges": Policies("half", "chance"),
        "RewardBench, scalar reward models": Policies("strict", "wrong"),
        PAPER: PAPER_POLICIES,
    },
    hub={"": "hf:allenai/reward-bench@168d848cdbbea9764fae4a544dc9ca1e6cca4931:filtered"},
)
"""`allenai/reward-bench`, split `filtered`; the overall score is the mean of the four sections."""
