"""RM-Bench (arXiv 2410.16184): three right and three wrong responses of growing style, so nine pairs a prompt.

The styles are concise, detailed, and detailed with Markdown. M[i, j] is whether the right response of style i beats the wrong
one of style j. Hard is i < j (the wrong one looks better), normal i = j, easy i > j.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import Benchmark, Case, Votes, asked, case_id, credits
from grm_jax.benchmarks.figures import group_means, mean
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields
from grm_jax.data.records import Item

COUNTS = {"chat": 129, "math": 529, "code": 228, "safety-refuse": 284, "safety-response": 157}
_STYLES = 3


def difficulties(pairs: np.ndarray) -> np.ndarray:
    """Returns (hard, normal, easy), each the mean of three of the pairs M [..., 3, 3]; their mean is that of all nine."""
    styles = np.arange(_STYLES)
    gap = styles[None, :] - styles[:, None]
    return np.stack([pairs[..., where].mean(axis=-1) for where in (gap > 0, gap == 0, gap < 0)], axis=-1)


def _read(row: dict[str, Any], where: str, part: str) -> tuple[str, list[Case]]:
    # only the file of all domains names them in its rows
    subset = fields.read_choice(row.get("domain", part or None), COUNTS, where, "domain")
    prompt = asked(fields.read_text(row["prompt"], where, "prompt"))
    chosen, rejected = (fields.read_texts(row[name], where, name) for name in ("chosen", "rejected"))
    if len(chosen) != _STYLES or len(rejected) != _STYLES:
        fields.fail(where, "chosen, rejected", f"must be {_STYLES} each", "fetch the data set again")
    domain = subset.partition("-")[0]
    identity = case_id(subset, row["id"])
    items = (
        Item(f"{identity}/{i}{j}", prompt, (right, wrong), 0, domain=domain)
        for i, right in enumerate(chosen)
        for j, wrong in enumerate(rejected)
    )
    return subset, [Case(identity, domain, tuple(items))]


def _part_of(path: str) -> str:
    """The domain of a file that is named as its publishers do, "chat_filtered.json"; "" for a file of all domains."""
    found = re.search(rf"(?:^|/)({'|'.join(COUNTS)})_filtered\.[^/]*$", path)
    return found[1] if found else ""


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    pairs = np.array(credits(cases, votes, policies, seed)).reshape(-1, _STYLES, _STYLES)
    by_domain = group_means([case.group for case in cases], difficulties(pairs), seed)
    levels = mean(by_domain.values())
    figures = {"overall": levels.mean(axis=1), **dict(zip(("hard", "normal", "easy"), levels.T, strict=True))}
    return figures | {domain: figure.mean(axis=1) for domain, figure in by_domain.items()}


RM_BENCH = Benchmark(
    name="rm_bench",
    title="RM-Bench (arXiv 2410.16184), nine pairs a prompt",
    columns=("id", "prompt", "chosen", "rejected"),
    counts=COUNTS,
    read=_read,
    figures=_figures,
    default=Policies("strict", "wrong"),
    published={"RM-Bench": Policies("strict", "wrong")},
    hub={"": "hf:THU-KEG/RM-Bench:train"},
    part_of=_part_of,
)
"""`total_dataset.json` or the five files of one domain each; the overall score is the mean of the four domains."""
