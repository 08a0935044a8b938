"""How likely the model found a piece of the text that it wrote."""

import bisect
from collections.abc import Callable

import numpy as np

from grm_jax.text.tokenizer import Tokenizer


def text_logprob(tokenizer: Tokenizer, ids: np.ndarray, logprobs: np.ndarray, place: tuple[int, int]) -> float:
    """Adds up the log-probabilities of the tokens that hold some of a piece of text.

    Args:
        tokenizer: decodes the tokens.
        ids: int [t], what was generated.
        logprobs: float32, of each token; may be longer.
        place: start and stop of the piece in the text that `ids` decode to, start below stop.
    """

    def needed(is_enough: Callable[[int], bool]) -> int:
        """How many tokens it takes for the text to be long enough."""
        counts = range(len(ids) + 1)
        return bisect.bisect_left(
            counts, True, key=lambda count: is_enough(len(tokenizer.decode(ids[:count].tolist())))
        )

    start, stop = place
    tokens = slice(needed(lambda length: length > start) - 1, needed(lambda length: length >= stop))
    return float(np.sum(logprobs[tokens], dtype=np.float64))
