"""Where every tensor of a Hugging Face Gemma-2 folder lives in our parameter tree: one table, read in both directions.

Axes are written in letters: D model width, F feed-forward width, H head width, K key/value heads, N query heads,
V vocabulary. Letters written together are one merged axis: a Hugging Face query weight "NH D" has N * H rows.
A row with `{layer}` exists once per layer; our leaves stack them by pair of layers, so that Hugging Face layer 2p is
entry p of the `local` leaf and layer 2p + 1 entry p of the `global` one.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config

Shape = tuple[int, ...]
Index = tuple[slice, ...]  # one slice an axis, start and stop given


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of tensor.

    Attributes:
        name: Hugging Face name, with `{layer}` if every layer has one.
        path: path in our tree, with `{kind}` (local or global) for the same rows.
        stored: axes in the Hugging Face file.
        held: axes in our tree, one letter each, without the leading axis of pairs.
    """

    name: str
    path: str
    stored: str
    held: str

    def stored_shape(self, config: Gemma2Config) -> Shape:
        """Shape in the Hugging Face file."""
        sizes = _sizes(config)
        return tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in self.stored.split())

    def held_shape(self, config: Gemma2Config) -> Shape:
        """Shape of one layer's entry in our leaf."""
        sizes = _sizes(config)
        return tuple(sizes[letter] for letter in self.held.split())

    @property
    def cut(self) -> int:
        """The axis of ours along which the Hugging Face file lies: a slice of it is read in one piece."""
        return self.held.split().index(self.stored[0])

    def part(self, tensor: Any, index: Index, config: Gemma2Config) -> np.ndarray:
        """Gives a part of a Hugging Face tensor our axes; nothing but that part is read, and of a numpy array it is a view.

        Args:
            tensor: a numpy array, or what gives slices of a stored one.
            index: the part, along our axes; inside a merged axis only the first letter may be cut ("NH": whole heads).
            config: the model's shape.
        """
        cut = dict(zip(self.held.split(), index, strict=True))
        lengths = {letter: where.stop - where.start for letter, where in cut.items()}
        stored = []
        for axis in self.stored.split():
            assert all(lengths[letter] == _sizes(config)[letter] for letter in axis[1:]), f"{self.name}: {index}"
            width = math.prod(lengths[letter] for letter in axis[1:])
            stored.append(slice(cut[axis[0]].start * width, cut[axis[0]].stop * width))
        letters = self.stored.replace(" ", "")
        part = tensor[tuple(stored)].reshape([lengths[letter] for letter in letters])
        return part.transpose([letters.index(letter) for letter in self.held.split()])


_LAYER, _OURS = "model.layers.{layer}.", "layers/{kind}/"

TABLE = (
    Row("model.embed_tokens.weight", "embedding", "V D", "V D"),
    Row(_LAYER + "input_layernorm.weight", _OURS + "pre_attention_norm", "D", "D"),
    Row(_LAYER + "self_attn.q_proj.weight", _OURS + "attention/query", "NH D", "D N H"),
    Row(_LAYER + "self_attn.k_proj.weight", _OURS + "attention/key", "KH D", "D K H"),
    Row(_LAYER + "self_attn.v_proj.weight", _OURS + "attention/value", "KH D", "D K H"),
    Row(_LAYER + "self_attn.o_proj.weight", _OURS + "attention/output", "D NH", "N H D"),
    Row(_LAYER + "post_attention_layernorm.weight", _OURS + "post_attention_norm", "D", "D"),
    Row(_LAYER + "pre_feedforward_layernorm.weight", _OURS + "pre_mlp_norm", "D", "D"),
    Row(_LAYER + "mlp.gate_proj.weight", _OURS + "mlp/gate", "F D", "D F"),
    Row(_LAYER + "mlp.up_proj.weight", _OURS + "mlp/up", "F D", "D F"),
    Row(_LAYER + "mlp.down_proj.weight", _OURS + "mlp/down", "D F", "F D"),
    Row(_LAYER + "post_feedforward_layernorm.weight", _OURS + "post_mlp_norm", "D", "D"),
    Row("model.norm.weight", "final_norm", "D", "D"),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one Hugging Face tensor lives: entry `pair` of our leaf `path` (the whole leaf if `pair` is None)."""

    name: str
    path: str
    pair: int | None
    row: Row


@functools.lru_cache(maxsize=8)
def places(config: Gemma2Config) -> tuple[Place, ...]:
    """Lists all tensors of a model in the order of the network: embedding, layers from first to last, final norm."""
    per_layer = [row for row in TABLE if "{layer}" in row.name]
    layers = [
        Place(row.name.format(layer=layer), row.path.format(kind="global" if layer % 2 else "local"), layer // 2, row)
        for layer in range(config.num_layers)
        for row in per_layer
    ]
    first, last = TABLE[0], TABLE[-1]
    return (Place(first.name, first.path, None, first), *layers, Place(last.name, last.path, None, last))


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf of our tree: the tensors it is made of, in order, and whether it stacks them."""

    places: tuple[Place, ...]
    stacked: bool

    def shape(self, config: Gemma2Config) -> Shape:
        """Its shape; stacked leaves lead with the number of pairs."""
        entry = self.places[0].row.held_shape(config)
        return (len(self.places), *entry) if self.stacked else entry


@functools.lru_cache(maxsize=8)
def tree_leaves(config: Gemma2Config, *, unrolled: bool = False) -> Mapping[str, Leaf]:
    """Every leaf of our parameter tree by path; of the tree of an unrolled model, `model.gemma2.unroll` names the layers."""
    found: dict[str, list[Place]] = {}
    for place in places(config):
        path = place.path
        if unrolled and place.pair is not None:
            path = path.replace("layers", f"layers_{place.pair}", 1)
        found.setdefault(path, []).append(place)
    return {path: Leaf(tuple(held), held[0].pair is not None and not unrolled) for path, held in found.items()}


def leaf_shapes(config: Gemma2Config) -> Mapping[str, Shape]:
    """Shape of every leaf of our parameter tree, by path."""
    return {path: leaf.shape(config) for path, leaf in tree_leaves(config).items()}


def check_shapes(
    found: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    folder: Path,
    what: str,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Checks that exactly the expected names are there, with their shapes; `files` says which file holds a name.

    Raises:
        UserError: names are missing or unknown, or one has another shape.
    """
    files = files or {}
    if missing := [name for name in expected if name not in found]:
        raise UserError(f"{folder}: {len(missing)} {what} missing: {some(missing)}; the model is incomplete")
    if unknown := [name for name in found if name not in expected]:
        raise UserError(
            f"{files.get(unknown[0], folder)}: {len(unknown)} {what} that this model does not have: {some(unknown)}; "
            "is this a Gemma-2 model, and config.json its own?"
        )
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise UserError(
                f"{files.get(name, folder)}: {name} has shape {list(found[name])}, but config.json says {list(shape)}; "
                "give the config.json that belongs to these weights"
            )


def some(names: Collection[str], most: int = 10) -> str:
    """Joins at most ten names; the rest is a count."""
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _sizes(config: Gemma2Config) -> dict[str, int]:
    return {
        "D": config.model_dim,
        "F": config.mlp_dim,
        "H": config.head_dim,
        "K": config.num_kv_heads,
        "N": config.num_heads,
        "V": config.vocab_size,
    }
