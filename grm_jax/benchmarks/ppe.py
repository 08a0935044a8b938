"""Preference Proxy Evaluations (arXiv 2410.14872): human preferences, and correctness on five tasks.

Correctness compares pairs of one prompt's 32 responses, one right and one wrong: those of `sampled_conflict_pairs`, which come
with the data. A pair may stand there twice; it counts twice, as upstream.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import PAPER, PAPER_POLICIES, Benchmark, Case, Votes, asked, credits, one_item
from grm_jax.benchmarks.figures import accuracies, mean
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields

_TASKS = {"mmlupro": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "ifeval": "IFEval", "mbppplus": "MBPP-Plus"}
_REVISIONS = {
    "MMLU-Pro": "d3a309b95d5a3a34efdd2b01a9e3ee10565bf0c7",
    "MATH": "c46ce3cda5417fe8d170e992d925f93856b5db40",
    "GPQA": "2f85cea6481db81daa2c8033c51b7811b7bbf648",
    "IFEval": "a4f7fae2443d96529dee6b65863a816a051b3a4d",
    "MBPP-Plus": "afa814632c1df94e76b6af2c1d282511114cd2b7",
}
_RESPONSES = 32
_ALL = "human preference"


def _read_preference(row: dict[str, Any], where: str, part: str) -> tuple[str, list[Case]]:
    winner = fields.read_name(row["winner"], where, "winner")
    prompt = fields.read_text(row["prompt"], where, "prompt")
    responses = [fields.read_text(row[name], where, name) for name in ("response_1", "response_2")]
    if winner.startswith("tie"):
        return _ALL, []
    label = ("model_a", "model_b").index(fields.read_choice(winner, ("model_a", "model_b", "tie"), where, "winner"))
    return _ALL, [one_item(row["question_id"], _ALL, asked(prompt), responses, label)]


def _read_correctness(row: dict[str, Any], where: str, task: str) -> tuple[str, list[Case]]:
    prompt = fields.read_text(row["prompt"], where, "prompt")
    right = fields.read_array(row["scores"], where, "scores")
    if len(right) != _RESPONSES or not all(isinstance(each, bool) for each in right):
        fields.fail(where, "scores", f"must be {_RESPONSES} booleans", "fetch the data set again")
    name = f"{row['question_id']}/{fields.read_text(row['model_name'], where, 'model_name')}"
    cases = []
    for number, pair in enumerate(fields.read_array(row["sampled_conflict_pairs"], where, "sampled_conflict_pairs")):
        field = f"sampled_conflict_pairs[{number}]"
        places = fields.read_integers(pair, where, field, 0, _RESPONSES - 1)
        if len(places) != 2 or right[places[0]] == right[places[1]]:
            fields.fail(where, field, f"{list(places)} is no right and a wrong response", "fetch the data set again")
        columns = [f"response_{place + 1}" for place in places]
        fields.check_keys(row, row, columns, where, "")
        responses = [fields.read_text(row[column], where, column) for column in columns]
        cases.append(one_item(f"{name}/{number}", task, asked(prompt), responses, int(right[places[1]])))
    return task, cases


def _part_of(path: str) -> str | None:
    """The task that a path's last words name: the file's, else its folders'."""
    for word in reversed(path.split("/")[-3:]):
        plain = re.sub("[^a-z]", "", word.lower())
        found = [task for name, task in _TASKS.items() if name in plain]
        if len(found) == 1:
            return found[0]
    return None


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    values = np.array(credits(cases, votes, policies, seed))
    tasks = accuracies([c.group for c in cases], values, seed)
    return {"overall": mean(tasks.values()), **(tasks if len(tasks) > 1 else {})}


_PUBLISHED: Mapping[str, Policies] = {PAPER: PAPER_POLICIES}

PPE_PREFERENCE = Benchmark(
    name="ppe_preference",
    title="PPE Human Preference V1 (arXiv 2410.14872)",
    columns=("question_id", "winner", "prompt", "response_1", "response_2", "model_a"),
    counts={_ALL: 16_038},
    read=_read_preference,
    figures=_figures,
    default=Policies("expected", "wrong"),
    published=_PUBLISHED,
    hub={"": "hf:lmarena-ai/PPE-Human-Preference-V1:test"},
)
"""`lmarena-ai/PPE-Human-Preference-V1`, split `test`; rows that people tied are left out."""

PPE_CORRECTNESS = Benchmark(
    name="ppe_correctness",
    title="PPE Correctness (arXiv 2410.14872)",
    columns=("question_id", "prompt", "model_name", "scores", "sampled_conflict_pairs", "response_1", "response_32"),
    counts={task: 507 if task == "MBPP-Plus" else 512 for task in _TASKS.values()},
    read=_read_correctness,
    figures=_figures,
    default=Policies("expected", "wrong"),
    published=_PUBLISHED,
    hub={task: f"hf:lmarena-ai/PPE-{task}-Best-of-K@{revision}:train" for task, revision in _REVISIONS.items()},
    part_of=_part_of,
)
"""Five data sets; the overall score is the mean of the five accuracies."""
