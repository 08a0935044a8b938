"""The arena's vocabulary and the small draws that the other modules share."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

# fmt: off
WORDS: tuple[str, ...] = (
    "apple", "ball", "bell", "bird", "boat", "book", "bread", "cake", "cat", "chair",
    "cloud", "coin", "corn", "cup", "dog", "door", "drum", "egg", "fish", "flag",
    "fork", "frog", "gold", "hand", "hat", "horse", "house", "key", "king", "lake",
    "lamp", "leaf", "lion", "milk", "moon", "nest", "nut", "owl", "pen", "pig",
    "queen", "rain", "ring", "river", "road", "rose", "salt", "sand", "ship", "snow",
    "star", "stone", "sun", "tree", "wind", "wolf",
)
# fmt: on
"""The words that lists are made of: lower case, distinct, in alphabetical order."""

LARGEST_NUMBER = 12
"""Every number of the world lies in 0..LARGEST_NUMBER."""


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Returns one of `options`, uniformly."""
    # Scalar rng.choice and rng.integers cost ten times as much, and an example takes some fifty draws.
    return options[int(rng.random() * len(options))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Returns True with the given probability."""
    return bool(rng.random() < probability)


def weighted(rng: np.random.Generator, weights: dict[T, float]) -> T:
    """Returns one of the keys, in proportion to its weight."""
    threshold = rng.random() * sum(weights.values())
    for option, weight in weights.items():
        threshold -= weight
        if threshold < 0:
            return option
    return option


def distinct_words(rng: np.random.Generator, count: int) -> list[str]:
    """Returns `count` distinct words in random order."""
    chosen: list[str] = []
    while len(chosen) < count:
        word = pick(rng, WORDS)
        if word not in chosen:
            chosen.append(word)
    return chosen
