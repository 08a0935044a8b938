"""RMB (arXiv 2410.09893): helpfulness and harmlessness, each in pairs and as best of n; four cells.

A best-of-n question is judged with all its responses at once (`rmb`, as DeepSeek-GRM does), or as pairs of the best with each
loser, which all have to be won (`rmb_pairs`, the benchmark's own rule).
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from grm_jax.benchmarks.benchmark import PAPER, PAPER_POLICIES, Benchmark, Case, Votes, case_id, credits, one_item
from grm_jax.benchmarks.figures import accuracies, mean, weighted
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields
from grm_jax.data.records import Item, read_messages

COUNTS = {
    "Pairwise/Helpfulness": 10_067,
    "Pairwise/Harmlessness": 7_064,
    "BoN/Helpfulness": 2_109,
    "BoN/Harmlessness": 1_677,
}
_SETS = {"Pairwise_set": "Pairwise", "BoN_set": "BoN"}


def _read(row: dict[str, Any], where: str, part: str, *, as_pairs: bool) -> tuple[str, list[Case]]:
    kind, goal, *scenario = fields.read_name(row["category_path"], where, "category_path").split("/")
    kind = _SETS[fields.read_choice(kind, _SETS, where, "category_path")]
    cell = fields.read_choice(f"{kind}/{goal}", COUNTS, where, "category_path")
    conversation = read_messages(row["conversation_input"], where, "conversation_input")
    uid, best, losers = (
        ("pair_uid", "chosen", "reject") if kind == "Pairwise" else ("bon_uid", "bon_best", "loser_list")
    )
    fields.check_keys(row, row, (uid, best, losers), where, "")
    rejected = [row[losers]] if kind == "Pairwise" else fields.read_array(row[losers], where, losers)
    if not rejected:
        fields.fail(where, losers, "is empty", "fetch the data set again")
    right, *wrong = (
        _answer(value, where, name) for value, name in [(row[best], best), *((each, losers) for each in rejected)]
    )
    group = "/".join([cell, *scenario])
    if not as_pairs:
        return cell, [one_item(row[uid], group, conversation, [right, *wrong], 0)]
    identity = case_id(group, row[uid])
    items = (Item(f"{identity}/{i}", conversation, (right, text), 0, domain=group) for i, text in enumerate(wrong))
    return cell, [Case(identity, group, tuple(items))]


def _answer(value: Any, where: str, name: str) -> str:
    value = fields.read_object(value, where, name)
    fields.check_keys(value, value, ("answer",), f"{where}: {name}", "")
    return fields.read_text(value["answer"], where, f"{name}.answer")


def cell_scores(figures: dict[str, np.ndarray], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Returns the overall figure and that of each cell from those of scenarios "set/goal/scenario": cells are means over
    their questions, the overall figure is the mean of the cells."""
    cells = {}
    for cell in COUNTS:
        there = {name: figure for name, figure in figures.items() if name.startswith(f"{cell}/") or name == cell}
        if there:
            cells[cell.replace("/", " ")] = weighted(there, sizes)
    return {"overall": mean(cells.values()), **cells}


def _figures(cases: Sequence[Case], votes: Votes, policies: Policies, seed: int) -> dict[str, np.ndarray]:
    # A question of several pairs is right when all of them are.
    values = np.array([float(np.prod(row)) for row in credits(cases, votes, policies, seed)])
    groups = [case.group for case in cases]
    scenarios = accuracies(groups, values, seed)
    sizes = {group: groups.count(group) for group in scenarios}
    return {**cell_scores(scenarios, sizes), **scenarios}


_COMMON: dict[str, Any] = {
    "columns": ("conversation_input", "category_path"),
    "counts": COUNTS,
    "figures": _figures,
    "default": Policies("strict", "wrong"),
}

RMB = Benchmark(
    name="rmb",
    title="RMB (arXiv 2410.09893), best of n judged as a list",
    read=functools.partial(_read, as_pairs=False),
    published={PAPER: PAPER_POLICIES},
    **_COMMON,
)
"""The folder `RMB_dataset` of the benchmark's repository."""

RMB_PAIRS = Benchmark(
    name="rmb_pairs",
    title="RMB (arXiv 2410.09893), best of n judged as pairs",
    read=functools.partial(_read, as_pairs=True),
    published={"RMB": Policies("strict", "wrong")},
    **_COMMON,
)
"""The same folder."""
