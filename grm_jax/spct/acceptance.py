"""Which critiques count as right: Eq 10 and Eq 11 of arXiv 2504.02495.

One rule for all stages: rejective fine-tuning keeps what is accepted, GRPO rewards it, the meta reward model predicts it.
"""

from collections.abc import Sequence

Label = int | float
"""The index of the best response, counted from 0; for n = 1 the right score."""


def accepted(scores: Sequence[int] | None, label: Label, n: int) -> bool:
    """Tells whether scores agree with the label (Eq 10 of arXiv 2504.02495).

    Args:
        scores: one a response, in the item's own order; None when the critique could not be read, which is never right.
        label: for n >= 2 the index of the best response, for n = 1 the right score.
        n: number of responses.

    Returns:
        For n >= 2 whether the labelled response scores strictly more than every other: a tie at the top is wrong, and
        the order of the others does not matter. For n = 1 whether the score equals the label.

    Raises:
        ValueError: there are not n scores, or the label is not one for n responses.
    """
    kind = int if n > 1 else (int, float)
    if n < 1 or isinstance(label, bool) or not isinstance(label, kind) or (n > 1 and not 0 <= label < n):
        raise ValueError(f"label {label!r} of {n} responses: an index below n is needed, for n = 1 a score")
    if scores is None:
        return False
    if len(scores) != n:
        raise ValueError(f"{len(scores)} scores for {n} responses")
    if n == 1:
        return scores[0] == label
    best = scores[int(label)]
    return all(best > score for i, score in enumerate(scores) if i != label)


def reward(scores: Sequence[int] | None, label: Label, n: int) -> float:
    """Returns +1.0 for scores that are accepted, else -1.0 (Eq 11 of arXiv 2504.02495); arguments as for `accepted`.

    What cannot be read is wrong, so there is no reward for the form apart.
    """
    return 1.0 if accepted(scores, label, n) else -1.0
