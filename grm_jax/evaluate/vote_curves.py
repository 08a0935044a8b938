"""Inference-time scaling from one store: accuracy of every vote at every k and k_meta, beside the baselines.

    items       labelled items of several responses
    samples     critiques each item has; the smallest number
    protocol    ks, subsets, ties, failures, seed, temperature of the samples (None where the run does not tell)
    curves      one for each vote and k_meta: vote, k_meta (None but for meta_topk), and points: k; mean, low, high, count of the
                accuracy; shares tied and failed; over_one and over_greedy: mean, low, high of the difference to the baselines,
                paired by item (None without a greedy run)
    one         the sampled baseline: accuracy of one critique, the mean over all samples; mean, low, high, count
    greedy      the greedy baseline: the same of the one critique of a run at temperature 0, and its tokens over all items; None
                without such a run
    guided      whether all critiques that can vote have meta scores, so that guided votes are among the curves
    cost        `cost.cost`, over all items of the run

Accuracy at k is the mean over subsets of an item's samples (`protocol.subsets`), then over items: not the first k of one order.
Intervals are 95% bootstrap intervals over items.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grm_jax.errors import UserError
from grm_jax.evaluate.cost import cost
from grm_jax.evaluate.curves import CurveValues, SampleTable, draw
from grm_jax.evaluate.intervals import bootstrap_intervals
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.run_store import Judged
from grm_jax.judge.run_times import Spent
from grm_jax.judge.tally import GUIDED, POLICIES
from grm_jax.judge.voting import fits

HALF = 0.5
Vote = tuple[str, float | None]
"""A policy, and the k_meta of meta_topk."""


def vote_curves(
    judged: Sequence[Judged],
    ks: Sequence[int],
    protocol: Protocol,
    *,
    greedy: Sequence[Judged] | None = None,
    temperature: float | None = None,
    times: Mapping[str, Spent] | None = None,
) -> dict[str, Any] | None:
    """Makes the object of the module; None where no labelled item of several responses was sampled.

    Args:
        judged: the stored run.
        ks: rising; no item that was sampled has fewer samples than the largest.
        protocol: of ties, failures, subsets and seed; its vote is not read, its k_meta is shown besides half and powers of two.
        greedy: a run of the same judge at temperature 0 (`check_greedy`).
        temperature: of the samples.
        times: of the run.

    Raises:
        UserError: an item has fewer samples than some k.
    """
    entries = _labelled(judged)
    table = SampleTable(entries)
    sampled = [samples for samples in table.counts.values() if samples]
    if not sampled:
        return None
    plain = dataclasses.replace(protocol, vote="sum", k_meta=None)
    is_guided = _is_guided(entries)
    one = table.values(1, dataclasses.replace(plain, subsets=protocol.subsets or 1))
    greedy_values = SampleTable(_labelled(greedy)).values(1, plain) if greedy is not None else None
    asked = votes(max(ks), is_guided, protocol.k_meta)
    measured: list[tuple[Vote, int, CurveValues]] = []
    for k in ks:
        drawn = draw(table.counts, k, plain)
        for vote, k_meta in asked:
            if k_meta is None or fits(k_meta, k):
                one_vote = dataclasses.replace(plain, vote=vote, k_meta=k_meta)
                measured.append(((vote, k_meta), k, table.values(k, one_vote, drawn=drawn)))
    accuracy = [values.accuracy for _, _, values in measured]
    over_one = [each - one.accuracy for each in accuracy]
    columns = [one.accuracy, *accuracy, *over_one]
    if greedy_values is not None:
        columns += [greedy_values.accuracy, *(each - greedy_values.accuracy for each in accuracy)]
    estimates = [dataclasses.asdict(each) for each in bootstrap_intervals(np.stack(columns, 1), seed=protocol.seed)]
    first, count = estimates.pop(0), len(measured)
    levels, gains, rest = estimates[:count], estimates[count : 2 * count], estimates[2 * count :]
    curves: dict[Vote, list[dict[str, Any]]] = {vote: [] for vote in asked}
    for i, (of, k, values) in enumerate(measured):
        rates = {"tied": float(values.tied.mean()), "failed": float(values.failed.mean())}
        over = {"over_one": _bounds(gains[i]), "over_greedy": _bounds(rest[1 + i]) if rest else None}
        curves[of].append({"k": k, **levels[i], **rates, **over})
    return {
        "items": len(entries),
        "samples": min(sampled),
        "protocol": {
            "ks": list(ks), "subsets": protocol.subsets, "ties": protocol.ties, "failures": protocol.failures,
            "seed": protocol.seed, "temperature": temperature,
        },
        "curves": [
            {"vote": vote, "k_meta": k_meta, "points": points} for (vote, k_meta), points in curves.items() if points
        ],
        "one": first,
        "greedy": {**rest[0], "tokens": _tokens(greedy)} if greedy is not None else None,
        "guided": is_guided,
        "cost": cost(judged, ks, times),
    }  # fmt: skip


def votes(most: int, is_guided: bool, k_meta: float | None = None) -> list[Vote]:
    """Returns the votes that are shown up to k = `most`: all policies, and for meta_topk half, powers of two and `k_meta`."""
    kept = [HALF, *(float(1 << i) for i in range(most.bit_length()))]
    kept += [k_meta] if k_meta is not None and k_meta not in kept else []
    found: list[Vote] = [(policy, None) for policy in POLICIES if policy not in GUIDED]
    if is_guided:
        found += [("meta_topk", each) for each in sorted(kept)] + [("meta_soft", None)]
    return found


def check_greedy(
    judged: Sequence[Judged],
    greedy: Sequence[Judged],
    identity: Mapping[str, Any],
    other: Mapping[str, Any],
    where: str,
) -> list[Judged]:
    """Returns the greedy judgements of the run's items, in its order.

    Args:
        judged: the sampled run, with its `identity`.
        greedy: the greedy run, with `other` as its identity.
        where: names the greedy run in messages.

    Raises:
        UserError: it is not greedy, of another judge or template, lacks an item, or has it otherwise.
    """
    policy = other.get("policy")
    temperature = policy.get("temperature") if isinstance(policy, Mapping) else None
    if temperature != 0:
        raise UserError(
            f"{where}: was sampled at temperature {temperature}, not 0; give a greedy run of the same judge"
        )
    for name in ("model", "template"):
        if other.get(name) != identity.get(name):
            problem = f"its {name} is {other.get(name)!r}, that of the sampled run {identity.get(name)!r}"
            raise UserError(f"{where}: {problem}; give a greedy run of the same judge")
    by_id = {entry.judgement.id: entry for entry in greedy}
    found = []
    for entry in judged:
        match = by_id.get(entry.judgement.id)
        if match is None:
            raise UserError(f"{where}: lacks item {entry.judgement.id!r}; judge the same items greedily")
        if (match.n, match.label) != (entry.n, entry.label):
            raise UserError(
                f"{where}: item {entry.judgement.id!r} has other responses or another label; judge the same items"
            )
        found.append(match)
    return found


def _labelled(judged: Sequence[Judged]) -> list[Judged]:
    return [entry for entry in judged if entry.n > 1 and entry.label is not None]


def _is_guided(entries: Sequence[Judged]) -> bool:
    readable = [sample for entry in entries for sample in entry.judgement.samples if sample.scores is not None]
    return bool(readable) and all(sample.meta_score is not None for sample in readable)


def _tokens(greedy: Sequence[Judged]) -> float:
    sampled = [entry.judgement.samples for entry in greedy if entry.judgement.samples]
    return float(np.mean([np.mean([sample.tokens for sample in samples]) for samples in sampled])) if sampled else 0.0


def _bounds(estimate: Mapping[str, Any]) -> dict[str, float]:
    return {name: estimate[name] for name in ("mean", "low", "high")}
