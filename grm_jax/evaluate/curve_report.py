"""The scaling report over several judges: accuracy at every k, paired differences, and how good the meta scores are.

From stored runs alone. A report is a JSON object:

    items         how many items each group has: "all", and the groups given
    protocol      votes, subsets, ties, failures, seed
    points        one for each judge, temperature, vote ("greedy", "voting", "meta"), k and group: mean, low, high, count of
                  the accuracy, and the shares tied and failed
    differences   one for each pair of points that is compared: kind ("stage", "voting", "meta"), what is less what, and mean,
                  low, high of the paired difference
    runs          one for each judge and temperature: unread share, and with meta scores their AUC and calibration by group
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grm_jax.errors import UserError
from grm_jax.evaluate.calibration import calibration, scored_critiques
from grm_jax.evaluate.curves import CurveValues, SampleTable, draw
from grm_jax.evaluate.intervals import bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.run_store import Judged

GREEDY, VOTING, META = "greedy", "voting", "meta"
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Run:
    """A stored run: critiques of a judge at a temperature, 0 for greedy ones; every run has the same items in the same order."""

    judge: str
    temperature: float
    judged: Sequence[Judged]


class Point(NamedTuple):
    """What is measured: a judge's critiques at a temperature, voted on in one way, k at a time."""

    judge: str
    temperature: float
    vote: str
    k: int


def curve_report(
    runs: Iterable[Run],
    ks: Sequence[int],
    groups: Mapping[str, frozenset[str]],
    is_right: Callable[..., bool],
    *,
    k_meta: float | None = None,
    subsets: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Makes the report of the module.

    Args:
        runs: the judges one after another, in the order in which they were trained; taken one at a time.
        ks: rising; those above the samples of a run are left out. Guided votes are taken where all critiques have scores.
        groups: ids of the items of each group, which need not be disjoint; one without items is left out.
        is_right: (scores, label, n) -> whether a critique is right, Eq 10 of arXiv 2504.02495.
        k_meta: of guided votes, as for `voting.decide`; a k below it has none. None is half.
        subsets: as for `Protocol`; k = 1 is the mean over all samples.
        seed: of subsets and intervals.

    Raises:
        UserError: the runs have different items, or none that can be measured.
    """
    plain = Protocol(subsets=subsets, seed=seed)
    guided = dataclasses.replace(plain, vote="meta_topk", k_meta=k_meta)
    values: dict[Point, CurveValues] = {}
    about: list[dict[str, Any]] = []
    drawn: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    ids: list[str] | None = None
    for run in runs:
        table = SampleTable([entry for entry in run.judged if entry.label is not None])
        samples = _samples(table)
        ids = table.ids if ids is None else ids
        if table.ids != ids:
            raise UserError(f"curve: {run.judge} at {run.temperature:g} was judged on other items than the run before")
        scored, figures = _meta_figures(run.judged, groups, is_right, seed)
        about.append({"judge": run.judge, "temperature": run.temperature, "unread": table.unread, "meta": figures})
        if not run.temperature:
            values[Point(run.judge, 0.0, GREEDY, 1)] = table.values(1, plain)
            continue
        for k in (k for k in ks if k <= samples):
            key = (samples, k)
            drawn[key] = drawn.get(key) or draw(dict.fromkeys(ids, samples), k, plain)
            values[Point(run.judge, run.temperature, VOTING, k)] = table.values(k, plain, drawn=drawn[key])
            if scored and k >= (k_meta or 1):
                values[Point(run.judge, run.temperature, META, k)] = table.values(k, guided, drawn=drawn[key])
    if ids is None:
        raise UserError("curve: there is no run to report on")
    members = {name: np.array([i in chosen for i in ids], bool) for name, chosen in groups.items()}
    masks = {ALL: np.ones(len(ids), bool), **{name: mask for name, mask in members.items() if mask.any()}}
    points, differences = _estimates(values, masks, seed)
    return {
        "items": {name: int(mask.sum()) for name, mask in masks.items()},
        "protocol": {
            "ks": list(ks), "k_meta": k_meta or 0.5, "subsets": subsets, "ties": plain.ties,
            "failures": plain.failures, "seed": seed,
        },
        "points": points, "differences": differences, "runs": about,
    }  # fmt: skip


def _samples(table: SampleTable) -> int:
    """The number of samples that all items have."""
    found = set(table.counts.values()) - {0}
    if len(found) != 1:
        problem = f"items have {min(found)} to {max(found)} samples" if found else "no labelled item has samples"
        raise UserError(f"curve: {problem}; judge all items to the same k")
    return found.pop()


def _meta_figures(
    judged: Sequence[Judged], groups: Mapping[str, frozenset[str]], is_right: Callable[..., bool], seed: int
) -> tuple[bool, dict[str, Any]]:
    """Whether all critiques that can vote are scored, and how good the scores are: by group, AUC and calibration."""
    readable = [sample for entry in judged for sample in entry.judgement.samples if sample.scores is not None]
    scored = bool(readable) and all(sample.meta_score is not None for sample in readable)
    if not scored:
        return False, {}
    figures = {}
    for name, chosen in {ALL: None, **groups}.items():
        critiques = scored_critiques(
            [entry for entry in judged if chosen is None or entry.judgement.id in chosen], is_right
        )
        if critiques.logits.size:
            figures[name] = dataclasses.asdict(calibration(critiques, seed=seed))
    return True, figures


def _pairs(points: Sequence[Point]) -> list[tuple[str, Point, Point]]:
    """(kind, minuend, subtrahend) of all that is compared, where both are there."""
    there, pairs = set(points), []
    judges = list(dict.fromkeys(point.judge for point in points))
    before = dict(zip(judges[1:], judges, strict=False))
    most = max(point.k for point in points)
    for point in points:
        previous = point._replace(judge=before.get(point.judge, ""))
        if point.k in (1, most) and not (point.vote == META and point.k == 1):
            pairs.append(("stage", point, previous))
        if point.vote == VOTING and point.k == most > 1:
            pairs.append(("voting", point, point._replace(k=1)))
        if point.vote == META and point.k > 1:
            pairs.append(("meta", point, point._replace(vote=VOTING)))
    return sorted(
        (pair for pair in pairs if pair[2] in there), key=lambda pair: ("stage", "voting", "meta").index(pair[0])
    )


def _estimates(
    values: Mapping[Point, CurveValues], masks: Mapping[str, np.ndarray], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    points = list(values)
    pairs = _pairs(points)
    columns = [values[point].accuracy for point in points]
    columns += [values[a].accuracy - values[b].accuracy for _, a, b in pairs]
    matrix = np.stack(columns, axis=1)
    levels, differences = [], []
    for group, mask in masks.items():
        estimates = [dataclasses.asdict(each) for each in bootstrap_intervals(matrix[mask], seed=seed)]
        for point, estimate in zip(points, estimates, strict=False):
            rates = {name: float(getattr(values[point], name)[mask].mean()) for name in ("tied", "failed")}
            levels.append({**point._asdict(), "group": group, **estimate, **rates})
        for (kind, a, b), estimate in zip(pairs, estimates[len(points) :], strict=True):
            compared = {"kind": kind, "what": a._asdict(), "less": b._asdict(), "group": group}
            differences.append({**compared, **estimate})
    return levels, differences
