"""What anytime voting saves, and what it costs: a stored run replayed under a rule to stop by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from grm_jax.data.records import Judgement
from grm_jax.errors import UserError
from grm_jax.evaluate.intervals import Estimate, bootstrap_interval, bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol, item_accuracy
from grm_jax.judge.anytime import Stopping, probability, stop_record, vote_in_time
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import first_samples, vote


@dataclass(frozen=True)
class Anytime:
    """A replay; a figure is None where nothing is there to measure it.

    Attributes:
        stop: the rule, with k and the vote (`anytime.stop_record`).
        items: items that were sampled; `mean_k` and `tokens` are means over these, for each the critiques its rule asked for.
        early: how many of them stopped before k.
        accuracy: of the verdicts, over labelled items of several responses; an item whose prompt was too long has failed.
        full: the same of all k critiques; None, as all that follows, where some item has fewer.
        difference: the first less the second, paired by item.
        full_tokens: a judgement of k critiques.
        same: share of the items of several responses with the same best at k, tied or alone as before.
        kept: the same share of those that stopped early.
        stated: mean over those of the probability for it when they stopped, which is what `kept` should reach.
    """

    stop: dict[str, Any]
    items: int
    mean_k: float
    early: int
    tokens: float
    accuracy: Estimate | None
    full: Estimate | None = None
    difference: Estimate | None = None
    full_tokens: float | None = None
    same: float | None = None
    kept: float | None = None
    stated: float | None = None


def replay(judged: Sequence[Judged], stop: Stopping, k: int, protocol: Protocol) -> Anytime:
    """Takes each item's critiques in their order, round by round, as a run with this rule draws them.

    Args:
        judged: a stored run.
        stop: the rule.
        k: critiques an item at most.
        protocol: the vote, and what ties and failures are worth; its subsets are not read, for a rule reads one order.

    Raises:
        UserError: an item has fewer critiques than the rule asks for, nothing was sampled, or the vote cannot stop early.
    """
    sampled = [entry for entry in judged if entry.judgement.samples]
    if not sampled:
        raise UserError("stop: no item of this run was sampled; judge some first")
    verdicts = {entry.judgement.id: vote_in_time(entry.judgement, k, protocol.vote, stop) for entry in judged}
    taken = [verdicts[entry.judgement.id] for entry in sampled]
    lacking = next((judgement for judgement in taken if judgement.stop is None), None)
    if lacking:
        problem = f"item {lacking.id!r} has {len(lacking.samples)} critiques, and the rule asks for more"
        raise UserError(f"stop: {problem}; run `grm judge` with this rule to the end")
    several = [entry for entry in judged if entry.n > 1]
    labelled = [entry for entry in several if entry.label is not None]
    right = np.array([_worth(verdicts[entry.judgement.id], entry, protocol) for entry in labelled])
    found = Anytime(
        stop=stop_record(stop, k, protocol.vote),
        items=len(sampled),
        mean_k=float(np.mean([judgement.k for judgement in taken])),
        early=sum(judgement.k < k for judgement in taken),
        tokens=float(np.mean([_tokens(judgement) for judgement in taken])),
        accuracy=bootstrap_interval(right, seed=protocol.seed) if right.size else None,
    )
    if any(len(entry.judgement.samples) < k for entry in sampled):
        return found
    full = {
        entry.judgement.id: vote(entry.judgement, policy=protocol.vote, k=k if entry.judgement.samples else None)
        for entry in judged
    }
    pairs = [(verdicts[entry.judgement.id], full[entry.judgement.id]) for entry in several if entry.judgement.samples]
    stands = np.array([_top(a) == _top(b) for a, b in pairs], bool)
    early = np.array([a.k < k for a, _ in pairs], bool)
    stated = [probability(a.samples[: a.k], k, protocol.vote) for a, _ in pairs if a.k < k]
    whole = np.array([_worth(full[entry.judgement.id], entry, protocol) for entry in labelled])
    estimates: list[Estimate | None] = [None, None]
    if right.size:
        estimates = [*bootstrap_intervals(np.stack([whole, right - whole], axis=1), seed=protocol.seed)]
    return replace(
        found,
        full=estimates[0],
        difference=estimates[1],
        full_tokens=float(np.mean([_tokens(full[entry.judgement.id]) for entry in sampled])),
        same=float(stands.mean()) if stands.size else None,
        kept=float(stands[early].mean()) if early.any() else None,
        stated=float(np.mean(stated)) if stated else None,
    )


def first_in_common(judged: Sequence[Judged]) -> list[Judged]:
    """Returns the items with so many of their first critiques as each has that was sampled.

    A curve needs that where items stopped early: those that went on did so because of what their first critiques said, so what they
    have beyond these is of harder items than the average.
    """
    least = min((len(entry.judgement.samples) for entry in judged if entry.judgement.samples), default=0)
    return [
        replace(entry, judgement=vote(_first(entry.judgement, least))) if entry.judgement.samples else entry
        for entry in judged
    ]


def lines(found: Anytime) -> list[str]:
    """Says the replay in words, a line each."""
    stop = found.stop
    level = f" at {100 * stop['confidence']:g}%" if stop["confidence"] is not None else ""
    said = [
        f"anytime ({stop['rule']}{level}, rounds of {stop['round']}, vote {stop['vote']}): {found.mean_k:.1f} of {stop['k']} "
        f"critiques an item, {found.tokens:.0f} tokens a judgement; {found.early} of {found.items} items stopped early"
    ]
    if found.accuracy:
        said.append(f"  accuracy {_percent(found.accuracy)}%")
    if found.full and found.difference:
        low, high = (f"{100 * end:+.1f}" for end in (found.difference.low, found.difference.high))
        less = f"{100 * found.difference.mean:+.1f} ({low} to {high})"
        said[-1] += (
            f"; of all {stop['k']} {_percent(found.full)}%, {found.full_tokens:.0f} tokens; difference {less} points"
        )
    if found.same is not None:
        said.append(f"  the verdict of all {stop['k']}: {100 * found.same:.1f}% of the items")
        if found.kept is not None and found.stated is not None:
            said[-1] += (
                f"; of those that stopped early {100 * found.kept:.1f}%, where the rule was {100 * found.stated:.1f}% sure"
            )
    return said


def _first(judgement: Judgement, count: int) -> Judgement:
    return replace(judgement, samples=first_samples(judgement.samples, count, ""))


def _worth(judgement: Judgement, entry: Judged, protocol: Protocol) -> float:
    label = int(entry.label or 0)
    return item_accuracy(judgement.scores, label, entry.n, protocol, seed=judgement.seed, item_id=judgement.id)


def _tokens(judgement: Judgement) -> int:
    return sum(sample.tokens for sample in judgement.samples[: judgement.k])


def _top(judgement: Judgement) -> tuple[int, ...] | None:
    """The responses that share the top."""
    if judgement.scores is None:
        return None
    return tuple(i for i, score in enumerate(judgement.scores) if score == max(judgement.scores))


def _percent(estimate: Estimate) -> str:
    return " ".join([f"{100 * estimate.mean:.1f}", f"({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"])
