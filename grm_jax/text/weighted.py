"""Scores that follow from the parts a critique states: the weights of its principles, and how each response fares on each.

A response's part begins with a line "Response 2" (marks, bullets and `#` aside) and ends where the next one or the score block
begins. In it a principle is followed, in one clause (a line, or up to ";"), by

    its sub-score    "Accuracy: 8", "Accuracy (60%): 7.5/10": a number in 0..10. The score is the mean weighted by the weights
    a verdict        "use frog sun bad": a clause that ends in "ok" or "bad". The score is 10 less the weights of what is bad, at
                     least 1, as in the arena (docs/arena.md)

Every principle must have a weight, and every response a part with all of them in one of the two forms; else nothing is stated.
"""

import re
from collections.abc import Sequence

from grm_jax.text.principles import Principle

_LONGEST = 2**18
_HIGHEST = 10.0
_PART = re.compile(r"[ \t#*_>\-]{0,12}Response (\d{1,3})\b", re.ASCII)
_CLAUSE = re.compile(r"[;\n]")
# Every repetition is bounded, so that no text makes the search slow.
_SUB_SCORE = re.compile(
    r" {0,3}(?:\([^()\n]{0,40}\))? {0,3}[:=–—-] {0,3}(\d{1,2}(?:\.\d{1,3})?)(?: {0,3}/ {0,3}10\b)?(?![\d/%.]\d?)",
    re.ASCII,
)
_VERDICT = re.compile(r"[ ,:].{0,200}\b(ok|bad)$")


def recomputed(text: str, principles: Sequence[Principle], n: int) -> tuple[float, ...] | None:
    """Returns the scores of the n responses in the order shown that the stated parts give; None where these are not stated."""
    weights = [principle.weight for principle in principles if principle.weight is not None]
    if not weights or len(weights) < len(principles) or sum(weights) <= 0:
        return None
    parts = _parts(text[:_LONGEST].replace("**", "").replace("__", ""))
    scores = [_score(parts.get(place, ()), principles, weights) for place in range(1, n + 1)]
    return None if None in scores else tuple(score for score in scores if score is not None)


def _parts(text: str) -> dict[int, list[str]]:
    """The clauses of each response's part, case folded, by its number; of two parts of one number the last counts."""
    parts: dict[int, list[str]] = {}
    clauses: list[str] | None = None
    for line in text.splitlines():
        if r"\boxed{" in line:
            break
        found = _PART.match(line)
        if found:
            clauses = parts[int(found[1])] = []
            line = line[found.end() :]
        if clauses is not None:
            clauses += [clause.strip(" \t.,*_").casefold() for clause in _CLAUSE.split(line)]
    return parts


def _score(clauses: Sequence[str], principles: Sequence[Principle], weights: Sequence[float]) -> float | None:
    found = [_found(clauses, principle.text.casefold()) for principle in principles]
    if all(isinstance(each, float) for each in found):
        total = sum(weight * float(each or 0.0) for weight, each in zip(weights, found, strict=True))
        return total / sum(weights)
    if all(isinstance(each, str) for each in found):
        lost = sum(weight for weight, each in zip(weights, found, strict=True) if each == "bad")
        return max(1.0, _HIGHEST - lost)
    return None


def _found(clauses: Sequence[str], principle: str) -> float | str | None:
    """The sub-score or the verdict that some clause states of a principle."""
    for clause in clauses:
        place = clause.rfind(principle)
        if place < 0 or (place and clause[place - 1].isalnum()):
            continue
        rest = clause[place + len(principle) :]
        if (number := _SUB_SCORE.match(rest)) and float(number[1]) <= _HIGHEST:
            return float(number[1])
        if verdict := _VERDICT.match(rest):
            return verdict[1]
    return None
