"""In which order each sample sees the responses: keyed, prefix-stable and balanced.

Samples come in blocks of n: the n cyclic shifts of one base permutation, so each block shows every response at every
place once. For n <= 4 the bases run through all (n - 1)! classes of permutations up to shift, in a keyed order drawn
anew for each cycle, so every n! consecutive samples from a multiple of n! on show all n! orders once. For n > 4 each
block has a fresh keyed base.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

from grm_jax.keys import generator

_EXHAUSTIVE_UP_TO = 4
Score = TypeVar("Score")


def order(seed: int, item_id: str, n: int, index: int) -> tuple[int, ...]:
    """Returns the order of sample `index`: entry j is the index of the response shown at place j.

    It depends on the arguments alone, never on how many samples are taken: more samples keep the orders of the first.
    """
    if n < 1 or index < 0:
        raise ValueError(f"n = {n} responses, sample {index}: n must be at least 1 and the index at least 0")
    block, shift = divmod(index, n)
    if n <= _EXHAUSTIVE_UP_TO:
        cycle, step = divmod(block, math.factorial(n - 1))
        draw = generator("order", seed, item_id, n, "cycle", cycle).permutation(math.factorial(n - 1))[step]
        base = (0, *list(itertools.permutations(range(1, n)))[draw])
        # One start for all blocks keeps response 0 moving one place a sample, so with n = 2 the two orders alternate.
        shift += int(generator("order", seed, item_id, n, "start").integers(n))
    else:
        base = tuple(generator("order", seed, item_id, n, "block", block).permutation(n).tolist())
    return tuple(base[(place + shift) % n] for place in range(n))


def unshuffle(shown: Sequence[Score], order: Sequence[int]) -> tuple[Score, ...]:
    """Returns scores given in the order shown, in the item's own order: entry order[j] of the result is shown[j]."""
    by_response = dict(zip(order, shown, strict=True))
    return tuple(by_response[response] for response in range(len(order)))
