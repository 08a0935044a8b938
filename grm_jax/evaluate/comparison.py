"""Two judges on the same items, item by item: the difference has an interval of its own, narrower than those of the two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import item_values
from grm_jax.evaluate.intervals import Estimate, bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.run_store import Judged


@dataclass(frozen=True)
class Comparison:
    """At one k: the accuracy of the first judge, of the second, and second less first, over the items of both."""

    k: int
    first: Estimate
    second: Estimate
    difference: Estimate


def compare(
    first: Sequence[Judged], second: Sequence[Judged], ks: Sequence[int], protocol: Protocol
) -> list[Comparison]:
    """Compares two runs on the labelled items of several responses that both have judged.

    Raises:
        UserError: there is no such item, one has another label or another number of responses there, or k is too large.
    """
    others = {entry.judgement.id: entry for entry in second}
    pairs = [
        (entry, others[entry.judgement.id]) for entry in first
        if entry.label is not None and entry.n > 1 and entry.judgement.id in others
    ]  # fmt: skip
    if not pairs:
        raise UserError("the runs share no labelled item of several responses; judge the same items with both")
    for one, other in pairs:
        if (one.label, one.n) != (other.label, other.n):
            problem = f"item {one.judgement.id!r} has another label or other responses in the second run"
            raise UserError(f"{problem}; judge the same items")
    found = []
    for k in ks:
        a, b = (item_values([pair[side] for pair in pairs], k, protocol).accuracy for side in (0, 1))
        found.append(Comparison(k, *bootstrap_intervals(np.stack([a, b, b - a], axis=1), seed=protocol.seed)))
    return found
