"""Which leaves of the parameter tree are projections, and forms of them that are made to be multiplied alone, not to be trained.

Letters: R rows, I inputs, O outputs.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax

_SUMMED = {
    "query": (-3,), "key": (-3,), "value": (-3,), "output": (-3, -2), "gate": (-2,), "up": (-2,), "down": (-2,),
}  # fmt: skip
"""Axes that a product sums over, counted from the end, by the name of the leaf; other leaves are no projections."""


class FormedWeight(abc.ABC):
    """A projection in another form than its array, as a leaf of the parameter tree."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the array."""

    @abc.abstractmethod
    def product(self, rows: jax.Array) -> jax.Array:
        """rows [R, I] times the array, as [I, O] -> [R, O] of `rows`' type."""


Form = Callable[[Any, tuple[int, ...]], FormedWeight]
"""Makes it of an array and the axes that a product sums over, counted from the end; those before them are of a stack."""


def formed_leaf(form: Form, path: str, leaf: Any) -> Any:
    """A leaf of the parameter tree (its path with slashes): formed if it is a projection and not formed yet, else as it is."""
    summed = _SUMMED.get(path.rpartition("/")[2])
    return leaf if summed is None or isinstance(leaf, FormedWeight) else form(leaf, summed)


def formed(form: Form, params: dict[str, Any]) -> dict[str, Any]:
    """Forms all projections of a parameter tree, stacked or unrolled; embedding and norms stay as they are."""
    return jax.tree.map_with_path(
        lambda path, leaf: formed_leaf(form, jax.tree_util.keystr(path, simple=True, separator="/"), leaf),
        params,
        is_leaf=is_formed,
    )


def is_formed(leaf: Any) -> bool:
    """Whether a leaf is a formed weight."""
    return isinstance(leaf, FormedWeight)
