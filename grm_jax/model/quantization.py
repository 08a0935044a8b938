"""Weights in 8 bits: a leaf of the parameter tree that `layers.project` multiplies like any other.

A decoded token reads every weight once, so a step takes as long as the bytes that it reads. Int8 is a quarter of float32 and half
of bfloat16; each output channel has its own scale, which multiplies the product and never the weights.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from grm_jax.model.projections import FormedWeight, formed, is_formed

_LARGEST = 127  # symmetric: -128 is not used


@struct.dataclass
class QuantizedWeight(FormedWeight):
    """A matrix as values times scales.

    Attributes:
        values: int8 of the weight's shape, within -127 ... 127.
        scales: float32 of the same shape, but 1 along the axes that a product sums over. So a stack of layers is taken apart, and
            divided among devices, by the axes of the weight.
    """

    values: jax.Array
    scales: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return self.values.shape

    def product(self, rows: jax.Array) -> jax.Array:
        """rows [R, I] -> [R, O]."""
        # Whole numbers up to 127 are exact in bfloat16 too. Sums in float32 would be exchanged on a mesh as such, twice the bytes.
        sums = rows @ self.values.reshape(rows.shape[1], -1).astype(rows.dtype)
        return (sums * self.scales.reshape(1, -1)).astype(rows.dtype)

    def dequantized(self) -> jax.Array:
        """The weight, float32."""
        return self.values * self.scales


@functools.partial(jax.jit, static_argnames="summed")
def quantize(weight: jax.Array, summed: tuple[int, ...]) -> QuantizedWeight:
    """Rounds a weight to 255 levels an output channel: the nearest multiple of max |w| / 127. A channel of zeros stays so.

    The channels of keys and values are the tokens of each head (`attention.KeyValues`).
    """
    wide = weight.astype(jnp.float32)
    scales = jnp.max(jnp.abs(wide), axis=summed, keepdims=True) / _LARGEST
    levels = jnp.round(wide / jnp.where(scales > 0, scales, 1.0))
    return QuantizedWeight(values=levels.astype(jnp.int8), scales=scales)


def quantized(params: dict[str, Any]) -> dict[str, Any]:
    """Quantizes all projections of a parameter tree (`projections.formed`)."""
    return formed(quantize, params)


def dequantized(params: dict[str, Any]) -> dict[str, Any]:
    """The float tree that a quantized one stands for."""
    return jax.tree.map(lambda leaf: leaf.dequantized() if _is_quantized(leaf) else leaf, params, is_leaf=is_formed)


def numeric_type(params: dict[str, Any], *, int8_cache: bool = False) -> str:
    """What a model computes in, in words: the type of its embedding, and what of it is in 8 bits."""
    narrow = [name for name, is_so in (("weights", is_quantized(params)), ("cache", int8_cache)) if is_so]
    return str(params["embedding"].dtype) + (" with int8 " + " and ".join(narrow) if narrow else "")


def is_quantized(params: Any) -> bool:
    """Whether a tree, or a part of one, has quantized weights."""
    return any(map(_is_quantized, jax.tree.leaves(params, is_leaf=is_formed)))


def _is_quantized(leaf: Any) -> bool:
    return isinstance(leaf, QuantizedWeight)
