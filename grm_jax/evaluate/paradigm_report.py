"""Paradigms beside each other: accuracy at every k, and the paired difference to the pointwise GRM; no model loaded.

A report is a JSON object:

    items      how many there are
    protocol   ks, subsets, ties, failures, seed, and `less`, the row that all others are compared with
    rows       one for each paradigm and size: what it is, tokens it writes for one judgement of an item at k = 1, the share of its
               critiques that could not be read, `points` (k, mean, low, high, count of the accuracy, shares tied and failed) and
               `differences` (k, mean, low, high of this row less the compared one of the same size at the same k)

Letters: N items, K samples, R subsets, n responses.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grm_jax.errors import UserError
from grm_jax.evaluate.intervals import bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol, subsets, worth
from grm_jax.judge.reductions import Reduced

Reduce = Callable[[np.ndarray], Reduced]
"""From bool [R, K], which samples vote, to totals [R, n]; what has one verdict only gives one row whatever votes."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A paradigm at a size.

    Attributes:
        name: of the paradigm.
        title: for people.
        kind: "scalar", "semi-scalar", "generative" or "baseline".
        mode: "pointwise" or "pairwise"; "" for a baseline.
        vote: how samples become a verdict; "" where there is one only.
        size: of the model; "" for a baseline.
        samples: K; 1 where there is one verdict only.
        ballots: of the items, in their order.
        tokens: generated for one judgement of an item at k = 1, on average.
        unread: share of the critiques that could not be read.
    """

    name: str
    title: str
    kind: str
    mode: str
    vote: str
    size: str
    samples: int
    ballots: Sequence[Reduce]
    tokens: float = 0.0
    unread: float = 0.0


def paradigm_report(
    rows: Sequence[Row],
    ids: Sequence[str],
    labels: Sequence[int],
    ks: Sequence[int],
    *,
    less: str,
    subset_count: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Makes the report of the module.

    Args:
        rows: the paradigms, each with a ballot for every item.
        ids: of the items; they name the subsets, which are the same for all rows.
        labels: the best response of each.
        ks: rising; a row with one verdict only has it at every k.
        less: name of the row that the others of its size (baselines: of any) are compared with; of several sizes the last.
        subset_count: each k below K is averaged over so many random subsets.
        seed: of subsets and intervals.

    Raises:
        UserError: a row has fewer samples than a k.
    """
    protocol = Protocol(subsets=subset_count, seed=seed)
    values = [[row_values(row, ids, labels, k, protocol) for k in ks] for row in rows]
    found, columns, compared = [], [], []
    for row, mine in zip(rows, values, strict=True):
        others = [i for i, other in enumerate(rows) if other.name == less and row.size in ("", other.size)]
        theirs = values[others[-1]] if others and rows[others[-1]] is not row else None
        compared.append(theirs is not None)
        columns += [each[0] for each in mine]
        columns += [a[0] - b[0] for a, b in zip(mine, theirs, strict=True)] if theirs else []
    estimates = iter(bootstrap_intervals(np.stack(columns, axis=1), seed=seed))
    for row, mine, has_difference in zip(rows, values, compared, strict=True):
        points = [
            {
                "k": k,
                **dataclasses.asdict(next(estimates)),
                "tied": float(each[1].mean()),
                "failed": float(each[2].mean()),
            }
            for k, each in zip(ks, mine, strict=True)
        ]
        differences = [{"k": k, **dataclasses.asdict(next(estimates))} for k in ks] if has_difference else []
        about = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "ballots"}
        found.append({**about, "points": points, "differences": differences})
    return {
        "items": len(ids),
        "protocol": {
            "ks": list(ks), "subsets": subset_count, "ties": protocol.ties, "failures": protocol.failures, "seed": seed,
            "less": less,
        },
        "rows": found,
    }  # fmt: skip


def row_values(row: Row, ids: Sequence[str], labels: Sequence[int], k: int, protocol: Protocol) -> np.ndarray:
    """Returns float64 [3, N]: of each item what the verdicts at k are worth, the share tied, the share of no verdict, over subsets.

    Raises:
        UserError: the row has fewer samples than k.
    """
    if row.samples > 1 and k > row.samples:
        raise UserError(f"{row.title}: has {row.samples} samples an item, k = {k} is asked; sample more")
    found = np.zeros((3, len(ids)))
    for place, (item_id, label, reduce) in enumerate(zip(ids, labels, row.ballots, strict=True)):
        picks = subsets(item_id, row.samples, min(k, row.samples), protocol)
        members = np.zeros((len(picks), row.samples), bool)
        np.put_along_axis(members, picks, True, axis=1)
        totals, failed = reduce(members)
        tied = ((totals == totals.max(axis=1, keepdims=True)).sum(axis=1) > 1) & ~failed
        worths = worth(totals, failed, np.full(len(totals), label), protocol)
        found[:, place] = worths.mean(), tied.mean(), failed.mean()
    return found
