"""The noisy oracle: critiques written from the truth, with errors at known rates."""

from dataclasses import dataclass, fields

import numpy as np

from grm_jax.data.arena.faults import Response, content_kinds, diagnose, quality
from grm_jax.data.arena.tasks import Task, apply_step, write
from grm_jax.data.arena.words import LARGEST_NUMBER, WORDS, chance, pick
from grm_jax.data.arena.world import Example

_PRINCIPLES = {
    "copy": "same words",
    "reverse": "reverse order",
    "sort": "alphabetical order",
    "first": "right length",
    "drop": "no forbidden word",
    "count": "exact count",
    "add": "exact sum",
}

_SUBTLETY = {"swapped words": 1.5, "off by one": 1.5, "wrong word": 1.2, "wrong order": 0.6, "several wrong words": 0.5}
"""How much more often than other faults a kind is missed: errors depend on the item, as a model's do."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Error rates of the oracle, each a probability.

    `spurious`: a critique goes by length or by place and derives nothing. `wrong_symbol`: a word or number of the
    derivation goes wrong; the responses are then judged against the wrong answer. `missed`, `mislabelled`: a fault seen
    is left out (times the subtlety of its kind), or given another name. `false_fault`: a response is charged with a
    fault that it has not. `jitter`: a score moves by one. `malformed`: the score block is broken.
    """

    spurious: float = 0.18
    wrong_symbol: float = 0.06
    missed: float = 0.22
    mislabelled: float = 0.1
    false_fault: float = 0.15
    jitter: float = 0.25
    malformed: float = 0.03

    @classmethod
    def none(cls) -> "Noise":
        """Returns the noise of an oracle that never errs."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


def critique(example: Example, order: tuple[int, ...], rng: np.random.Generator, noise: Noise) -> str:
    """Returns a critique of the responses shown in `order` (order[j] = index of the response at place j).

    Its lines: principles with weights, the derivation (a `Step:` line if there are two operations, then `Answer:`), one
    line a response, and the score block, in the order shown. A spurious critique has no derivation.
    """
    shown = [example.responses[index] for index in order]
    if chance(rng, noise.spurious):
        lines, scores = _spurious(shown, rng)
    else:
        lines, answer = _derivation(example.task, rng, noise)
        scores = []
        for place, response in enumerate(shown):
            found = _seen_faults(example.task, answer, response, rng, noise)
            lines.append(f"Response {place + 1}: {', '.join(found) or 'correct'}.")
            scores.append(quality(found))
    scores = [_jitter(score, rng, noise) for score in scores]
    lines.append(_malformed_block(scores, rng) if chance(rng, noise.malformed) else _block(scores))
    return "\n".join(lines)


def _derivation(task: Task, rng: np.random.Generator, noise: Noise) -> tuple[list[str], tuple[str, ...]]:
    principles = [_PRINCIPLES[step.operation] for step in task.steps]
    if len(principles) == 1 and task.form != "plain":
        principles.append("right form")
    weighed = "; ".join(f"{text} ({4 - place})" for place, text in enumerate(principles))
    lines = [f"Principles: {weighed}"]
    words = task.given
    for place, step in enumerate(task.steps):
        if place > 0:
            lines.append(f"Step: {' '.join(words)}")
        words = _slip(apply_step(step, words), task, rng, noise)
    lines.append(f"Answer: {write(words, task.form)}")
    return lines, words


def _slip(words: tuple[str, ...], task: Task, rng: np.random.Generator, noise: Noise) -> tuple[str, ...]:
    """Returns the words with each one wrong at the rate of `wrong_symbol`."""
    return tuple(_wrong_symbol(word, task, rng) if chance(rng, noise.wrong_symbol) else word for word in words)


def _wrong_symbol(word: str, task: Task, rng: np.random.Generator) -> str:
    if task.numeric:
        return str(min(LARGEST_NUMBER, max(0, int(word) + pick(rng, (-2, -1, 1, 2)))))
    return pick(rng, task.given) if chance(rng, 0.5) else pick(rng, WORDS)


def _seen_faults(
    task: Task, answer: tuple[str, ...], response: Response, rng: np.random.Generator, noise: Noise
) -> tuple[str, ...]:
    content = content_kinds(task)
    found = []
    for fault in diagnose(task, answer, response):
        if chance(rng, noise.missed * _SUBTLETY.get(fault, 1.0)):
            continue
        if fault in content and chance(rng, noise.mislabelled):
            fault = pick(rng, [kind for kind in content if kind != fault])
        found.append(fault)
    if chance(rng, noise.false_fault):
        absent = [kind for kind in ("wrong form", "chatter") if kind not in found]
        if not found or found[0] not in content:
            absent.extend(content)
        if absent:
            found.append(pick(rng, absent))
    # The order of naming is fixed, so that a reader learns one way to write a set of faults.
    return tuple(sorted(found, key=(*content, "wrong form", "chatter").index))


def _spurious(shown: list[Response], rng: np.random.Generator) -> tuple[list[str], list[int]]:
    if chance(rng, 0.5):
        lengths = [len(response.text) for response in shown]
        ranks = [sum(other > length for other in lengths) for length in lengths]
        principle, names = "longer is better", ("longest", "shorter")
    else:
        ranks = list(range(len(shown)))
        principle, names = "first is better", ("first", "later")
    lines = [f"Principles: {principle} (5)"]
    lines += [f"Response {place + 1}: {names[rank > 0]}." for place, rank in enumerate(ranks)]
    return lines, [8 - 2 * rank for rank in ranks]


def _jitter(score: int, rng: np.random.Generator, noise: Noise) -> int:
    if not chance(rng, noise.jitter):
        return score
    return min(10, max(1, score + pick(rng, (-1, 1))))


def _block(scores: list[int]) -> str:
    return f"Scores: \\boxed{{{', '.join(map(str, scores))}}}"


def _malformed_block(scores: list[int], rng: np.random.Generator) -> str:
    """Returns a block that no strict parser accepts: none, one score too few or too many, or one out of range."""
    return pick(rng, ("Scores:", _block(scores[1:]), _block([*scores, 5]), _block([*scores[1:], 0])))
