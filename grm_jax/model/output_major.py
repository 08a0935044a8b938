"""Weights with a line for each output: a leaf of the parameter tree that a CPU multiplies faster than [inputs, outputs].

XLA for CPU multiplies few rows, as in decoding, faster with the weight on the left of the product (`scripts/bench_layouts`).

Letters: R rows, I inputs, O outputs.
"""

import functools
import math

import jax
from flax import struct

from grm_jax.model.projections import Form, FormedWeight


@struct.dataclass
class OutputMajorWeight(FormedWeight):
    """A projection, turned.

    Attributes:
        matrix: [..., O, I].
        axes: of the weight, those that I and O stand for.
    """

    matrix: jax.Array
    axes: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return (*self.matrix.shape[:-2], *self.axes)

    def product(self, rows: jax.Array) -> jax.Array:
        """By `product`."""
        return product(rows, self.matrix)


def product(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """rows [R, I] times the transpose of matrix [O, I] -> [R, O], all of one dtype."""
    # XLA would turn the product around but for the barrier.
    return jax.lax.optimization_barrier(matrix @ rows.T).T


@functools.partial(jax.jit, static_argnames="summed")
def output_major(weight: jax.Array, summed: tuple[int, ...]) -> OutputMajorWeight:
    """Turns a weight (a `projections.Form`)."""
    first = weight.ndim + min(summed)
    stack, axes = weight.shape[:first], weight.shape[first:]
    inputs = math.prod(axes[: len(summed)])  # which come first
    return OutputMajorWeight(weight.reshape(*stack, inputs, -1).swapaxes(-1, -2), axes)


def native_form(backend: str, *, divided: bool) -> Form | None:
    """The form in which a backend of jax ("cpu", "gpu", "tpu") multiplies projections fastest; None for arrays as they are, which
    those must be that a mesh divides."""
    return output_major if backend == "cpu" and not divided else None
