"""The noisy oracle: critiques written from the truth, each of which looks at a part of it, with errors at known rates."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from grm_jax.data.arena.requirements import FORMS, KINDS, MISSING, Requirement, Response, quality
from grm_jax.data.arena.tasks import Task
from grm_jax.data.arena.words import WORDS, chance, pick, weighted
from grm_jax.data.arena.world import Example

SALIENCE: dict[str, float] = {
    "use": 1.0,
    "avoid": 0.7,
    "start": 1.2,
    "end": 0.8,
    "length": 1.6,
    "form": 1.6,
    "after": 0.5,
    "double": 0.6,
}
"""How readily a requirement comes to the oracle's mind as a principle. What is easily seen weighs little, and what weighs
much is easily overlooked: a bias that no number of critiques removes."""

_KNOWING_ATTENTION = 6.0
_LONGER = "longer is better (5)"
_GUESSED = range(2, 7)  # points between what is guessed to be the best and what is level with it
BREADTH: tuple[float, ...] = (0.3, 0.5, 0.2)
"""Probabilities that a critique looks at 1, 2, 3, ... requirements."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Error rates of the oracle, each a probability.

    `spurious`: a critique goes by length alone, the longer the better. `irrelevant`: a principle is one that the task does
    not ask for. `careless`: a look at a response finds the wrong thing. `illogical`: the verdict contradicts what was
    found. `malformed`: the score block is broken. `guess`: a critique that finds several responses equally good prefers one of
    them all the same, in a line of its own, such as "Best: Response 2."; without it, its scores are level.
    """

    spurious: float = 0.3
    irrelevant: float = 0.1
    careless: float = 0.08
    illogical: float = 0.04
    malformed: float = 0.02
    guess: float = 0.0

    @classmethod
    def none(cls) -> "Noise":
        """Returns the noise of an oracle that never errs; it still sees a part of the truth only."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


def critique(
    example: Example,
    order: tuple[int, ...],
    rng: np.random.Generator,
    noise: Noise,
    *,
    breadth: Sequence[float] = BREADTH,
    principles: bool = True,
    hinted: bool = False,
    given: Sequence[Requirement] = (),
    compared: bool = False,
    verdict: bool = False,
) -> str:
    """Returns a critique of the responses shown in `order` (order[j] = index of the response at place j), all of them or some.

    Its lines: a few principles with their weights (`breadth`: the probabilities of 1, 2, 3, ...), drawn by salience from what
    the task asks for; for each response the response itself, what is found on each principle, and whether that is ok or bad;
    and the score block, in the order shown: 10 minus the weights of what is bad, and less if the best was guessed.

    With `principles=False` the first line is missing, and each response is looked at under aspects of its own. An oracle that
    was told the label (`hinted`) does not go by length, thinks first of what speaks for it, and guesses it. One that is `given`
    principles looks at these and at no others. One that has a reference answer to compare with (`compared`) does not go by length,
    and thinks first of what some response shown breaks. With `verdict` the block names the place of the best response, counted
    from 1, instead of scores; where several are equally good, one of them, without a line that says so.
    """
    shown = [example.responses[index] for index in order]
    if chance(rng, noise.spurious) and not (hinted or given or compared):
        stated, lines, scores = _LONGER, *_spurious(shown)
    else:
        attention = _attention(example, order, hinted=hinted, compared=compared)
        chosen = tuple(given) or _choose(example.task, attention, breadth, rng, noise)
        stated = "; ".join(f"{requirement.text} ({requirement.weight})" for requirement in chosen)
        lines, scores = [], []
        for place, response in enumerate(shown):
            aspects = chosen if principles else _choose(example.task, attention, breadth, rng, noise)
            findings, bad = _examine(aspects, response, rng, noise)
            lines.append(f"Response {place + 1}: {response.text}: {'; '.join(findings)}.")
            scores.append(quality(bad))
        level = [place for place, score in enumerate(scores) if score == max(scores)]
        if len(level) > 1 and noise.guess and not verdict and chance(rng, noise.guess):
            told = order.index(int(example.item["label"])) if hinted else -1
            best = told if told in level else pick(rng, level)
            margin = pick(rng, _GUESSED)
            scores = [
                max(1, score - margin) if place in level and place != best else score
                for place, score in enumerate(scores)
            ]
            lines.append(f"Best: Response {best + 1}.")
    if principles:
        lines.insert(0, f"Principles: {stated}")
    malformed = chance(rng, noise.malformed)
    if verdict:
        best = pick(rng, [place for place, score in enumerate(scores, 1) if score == max(scores)])
        lines.append(_malformed_verdict(len(scores), rng) if malformed else _verdict(best))
    else:
        lines.append(_malformed_block(scores, rng) if malformed else _block(scores))
    return "\n".join(lines)


def _attention(example: Example, order: tuple[int, ...], *, hinted: bool, compared: bool) -> dict[Requirement, float]:
    """How readily each requirement comes to mind: by salience; with a hint, sooner if it tells the best from the others; beside
    a reference answer, sooner if a response shown breaks it."""
    attention = {requirement: SALIENCE[requirement.kind] for requirement in example.task.requirements}
    if compared:
        for requirement in attention:
            if any(requirement in example.broken[index] for index in order):
                attention[requirement] *= _KNOWING_ATTENTION
    if hinted:
        best = int(example.item["label"]) if len(example.responses) > 1 else 0
        for requirement in attention:
            broken = [requirement in found for found in example.broken]
            telling = broken[0] if len(broken) == 1 else any(broken) and not broken[best]
            attention[requirement] *= _KNOWING_ATTENTION if telling else 1.0
    return attention


def _choose(
    task: Task,
    attention: dict[Requirement, float],
    breadth: Sequence[float],
    rng: np.random.Generator,
    noise: Noise,
) -> tuple[Requirement, ...]:
    """Draws principles without repetition, those that come to mind sooner the likelier."""
    left = dict(attention)
    chosen: list[Requirement] = []
    for _ in range(weighted(rng, dict(enumerate(breadth, 1)))):
        requirement = weighted(rng, left)
        del left[requirement]
        chosen.append(_irrelevant(task, chosen, rng) if chance(rng, noise.irrelevant) else requirement)
    return tuple(chosen)


def _irrelevant(task: Task, chosen: Sequence[Requirement], rng: np.random.Generator) -> Requirement:
    """A requirement that the task does not state, on a word that neither it nor what was chosen before names."""
    kind = pick(rng, [kind for kind in KINDS if kind not in ("length", "form", "after")])
    taken = task.mentioned.union(*(requirement.arguments for requirement in chosen))
    word = pick(rng, WORDS)
    while word in taken:
        word = pick(rng, WORDS)
    return Requirement(kind, (word,))


def _examine(
    aspects: Sequence[Requirement], response: Response, rng: np.random.Generator, noise: Noise
) -> tuple[list[str], tuple[Requirement, ...]]:
    """Returns a finding for each aspect, such as "start king pig bad", and the aspects found bad."""
    findings: list[str] = []
    bad: list[Requirement] = []
    for aspect in aspects:
        evidence = aspect.evidence(response)
        if chance(rng, noise.careless):
            evidence = _wrong_evidence(aspect, evidence, response, rng)
        ok = aspect.met_by(evidence) != chance(rng, noise.illogical)
        findings.append(f"{aspect.text} {evidence} {'ok' if ok else 'bad'}")
        if not ok:
            bad.append(aspect)
    return findings, tuple(bad)


def _wrong_evidence(aspect: Requirement, evidence: str, response: Response, rng: np.random.Generator) -> str:
    match aspect.kind:
        case "length":
            return str(int(evidence) + pick(rng, (-1, 1)))
        case "form":
            return pick(rng, [form for form in FORMS if form != evidence])
        case "use" | "avoid":
            return pick(rng, response.words) if evidence == MISSING else MISSING
    return pick(rng, sorted({*response.words} - {evidence}))


def _spurious(shown: Sequence[Response]) -> tuple[list[str], list[int]]:
    lengths = [len(response.words) for response in shown]
    lines = [f"Response {place + 1}: {length} words." for place, length in enumerate(lengths)]
    return lines, [max(1, 9 - 3 * (max(lengths) - length)) for length in lengths]


def _block(scores: Sequence[int]) -> str:
    return f"Scores: \\boxed{{{', '.join(map(str, scores))}}}"


def _malformed_block(scores: Sequence[int], rng: np.random.Generator) -> str:
    """Returns a block that no strict parser accepts: none, one score too few or too many, or one out of range."""
    return pick(rng, ("Scores:", _block(scores[1:]), _block([*scores, 5]), _block([*scores[1:], 0])))


def _verdict(*places: int) -> str:
    return f"Best: \\boxed{{{', '.join(map(str, places))}}}"


def _malformed_verdict(count: int, rng: np.random.Generator) -> str:
    """Returns a verdict that no strict parser accepts: none, a place that is not there, or two places."""
    return pick(rng, ("Best:", _verdict(count + 1), _verdict(1, 2)))
