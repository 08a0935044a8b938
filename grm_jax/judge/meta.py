"""The meta reward model in use: how likely each critique of a judge is right, as a logit.

Its folder is a Hugging Face folder of the trunk with tokenizer and template.toml, and `scalar_head.safetensors` beside it:
{"w": [D], "b": []} float32.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from grm_jax.checkpoints.files import first_line, inside, replacing
from grm_jax.checkpoints.folder import fingerprint, leaves, save_trained
from grm_jax.data.critique_groups import CritiqueGroup, encode_group, pad_groups
from grm_jax.data.records import Item, Sample
from grm_jax.errors import UserError
from grm_jax.judge.loading import JudgeModel, load_model, model_folder
from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import HEAD, critique_logits, parameter_axes
from grm_jax.model.gemma2 import native
from grm_jax.parallel.layout import fetch, layouts
from grm_jax.sampling.sampler import bucket

HEAD_FILE = f"{HEAD}.safetensors"
_TOKENS = 8192  # computed at once, at most, unless one critique alone is longer
_GROUP = 16  # critiques of one prompt computed at once, at most


class MetaModel:
    """Scores critiques. Load one with `MetaModel.load`.

    Attributes:
        name: folder and fingerprint, as stores name it.
    """

    def __init__(self, model: JudgeModel):
        """Prepares a scorer of a model whose parameters hold `scalar_head`."""
        self.name, self._config = model.name, model.config
        self._template, self._tokenizer = model.template, model.tokenizer
        self._layout = layout = layouts().decode
        where = layout.tree(parameter_axes(model.config, model.params), model.params) if layout.mesh else None
        self._params = jax.device_put(model.params, where)
        self._logits = jax.jit(functools.partial(critique_logits, native(model.config)))

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str | None = None) -> "MetaModel":
        """Loads a meta model; arguments and errors as `load_meta`."""
        return cls(load_meta(folder, dtype=dtype))

    @property
    def is_local(self) -> bool:
        """No other process takes part."""
        return self._layout.is_local

    def score(self, wanted: Sequence[tuple[Item, Sequence[Sample]]]) -> Iterator[tuple[int, list[Sample]]]:
        """Gives samples their meta scores; a sample's score does not depend on its company.

        Samples without readable scores never vote; they are passed over.

        Args:
            wanted: items, each with samples of it.

        Yields:
            (place in `wanted`, some of its samples with `meta_score`), as batches are done.

        Raises:
            UserError: the template cannot show an item, or a critique does not fit into the context; before any compute.
        """
        groups: list[CritiqueGroup] = []
        owners: list[tuple[int, list[Sample]]] = []
        for place, (item, samples) in enumerate(wanted):
            by_order: dict[tuple[int, ...], list[Sample]] = {}
            for sample in samples:
                if sample.outcome == "ok":
                    by_order.setdefault(sample.order, []).append(sample)
            for order, members in by_order.items():
                for start in range(0, len(members), _GROUP):
                    chunk = members[start : start + _GROUP]
                    group = encode_group(self._template, self._tokenizer, item, order, [s.text for s in chunk])
                    check_length(group, self._config, item, [s.index for s in chunk])
                    groups.append(group)
                    owners.append((place, chunk))
        for i, logits in self.logits(groups):
            place, chunk = owners[i]
            scored = zip(chunk, logits.tolist(), strict=True)
            yield place, [dataclasses.replace(sample, meta_score=score) for sample, score in scored]

    def logits(self, groups: Sequence[CritiqueGroup]) -> Iterator[tuple[int, np.ndarray]]:
        """Computes prompts with critiques of them.

        Args:
            groups: at most `_GROUP` critiques each; all fit into the context (`check_length`).

        Yields:
            (place in `groups`, float32 [G], a logit a critique), as batches are done.
        """
        shapes: dict[tuple[int, int, int], list[int]] = {}
        for i, group in enumerate(groups):
            shape = (bucket(len(group.prompt)), completion_bucket(group.longest), _power_of_two(len(group.critiques)))
            shapes.setdefault(shape, []).append(i)
        for (S, T, G), members in sorted(shapes.items()):
            size = 1 << (max(1, _TOKENS // (S + G * T)).bit_length() - 1)
            for begin in range(0, len(members), size):
                batch = members[begin : begin + size]
                P = _power_of_two(len(batch))
                P += -P % self._layout.parts
                padded = self._layout.place(pad_groups([groups[i] for i in batch], P, G, S, T))
                with self._layout.active():
                    logits = fetch(self._logits(self._params, padded))
                for i, row in zip(batch, logits, strict=False):
                    yield i, row[: len(groups[i].critiques)]

    def rewards(self, shown: Sequence[tuple[Item, tuple[int, ...]]]) -> np.ndarray:
        """Rewards of what is shown, without a critique: of a model that was trained so (`train.reward_models`).

        Args:
            shown: items, each with the order of its responses.

        Returns:
            float64 [items].

        Raises:
            UserError: as `score`.
        """
        groups = [encode_group(self._template, self._tokenizer, item, order, [""]) for item, order in shown]
        for group, (item, _) in zip(groups, shown, strict=True):
            check_length(group, self._config, item, [0])
        found = np.zeros(len(groups))
        for i, logits in self.logits(groups):
            found[i] = logits[0]
        return found


def meta_scores(meta: MetaModel, wanted: Sequence[tuple[Item, Sequence[Sample]]]) -> list[list[Sample]]:
    """Returns the samples of each item, in the order given, with the meta scores of all that can vote."""
    found: list[dict[int, Sample]] = [{} for _ in wanted]
    for place, samples in meta.score(wanted):
        found[place].update({sample.index: sample for sample in samples})
    return [
        [by_index.get(sample.index, sample) for sample in samples]
        for (_, samples), by_index in zip(wanted, found, strict=True)
    ]


def check_length(group: CritiqueGroup, config: Gemma2Config, item: Item, indices: Sequence[int]) -> None:
    """Refuses a critique that does not fit into the context together with its prompt; none is ever cut."""
    for index, critique in zip(indices, group.critiques, strict=True):
        tokens = len(group.prompt) + len(critique)
        if tokens > config.max_length:
            problem = f"takes {tokens} tokens with its prompt, the meta model's context holds {config.max_length}"
            raise UserError(f"item {item.id!r}: sample {index} {problem}; leave the item out or use another meta model")


def load_meta(folder: str | Path, *, dtype: str | None = None) -> JudgeModel:
    """Loads a meta model: what a judge is made of, with `scalar_head` in the parameters, and the head in the name too.

    Args:
        folder: as `save_meta` writes it, or "tiny_meta".
        dtype: of the trunk, as for `load_model`; the head stays float32.

    Raises:
        UserError: a folder without a head, or what `load_model` refuses.
    """
    name, head = meta_name(folder), load_head(folder)
    model = load_model(folder, dtype=dtype)
    return dataclasses.replace(model, name=name, params=model.params | {HEAD: head})


def meta_name(folder: str | Path) -> str:
    """Names a meta model: folder, and a fingerprint of trunk, head and template. No weights but the head's are loaded.

    Raises:
        UserError: as `load_meta`.
    """
    path, head = model_folder(folder), load_head(folder)
    template = path / "template.toml"
    hasher = hashlib.blake2b(fingerprint(path).encode(), digest_size=16)
    for data in (head["w"].tobytes(), head["b"].tobytes(), template.read_bytes() if template.is_file() else b""):
        hasher.update(data)
    return f"{path.resolve().name}@{hasher.hexdigest()}"


def has_head(folder: str | Path) -> bool:
    """Tells whether a model folder is one of a meta model."""
    return (Path(folder) / HEAD_FILE).exists()


def load_head(folder: str | Path) -> dict[str, np.ndarray]:
    """Reads {"w": [D], "b": []} float32 of a meta model's folder.

    Raises:
        UserError: there is no such folder or no head in it, or the head does not fit the model.
    """
    path = model_folder(folder)
    if not has_head(path):
        raise UserError(f"{folder}: has no {HEAD_FILE}, so it is no meta model; give a folder of `grm train meta_rm`")
    config, _ = leaves(path)
    try:
        head = load_file(inside(path, HEAD_FILE))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path / HEAD_FILE}: damaged ({first_line(error)}); copy it again") from error
    found = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in head.items()}
    if found != {"w": ((config.model_dim,), "float32"), "b": ((), "float32")}:
        wanted = f"float32 w [{config.model_dim}] and b []"
        raise UserError(f"{path / HEAD_FILE}: does not hold {wanted}; use the head that was trained with this model")
    return head


def save_meta(
    folder: Path, config: Gemma2Config, params: Mapping[str, Any], source: Path, template: str, *, dtype: Any = None
) -> Path:
    """Saves a meta model as `save_trained` saves a judge, with its head; `params` holds trunk and `scalar_head`."""
    trunk = {name: leaf for name, leaf in params.items() if name != HEAD}
    head = {name: np.array(leaf, np.float32) for name, leaf in fetch(params[HEAD]).items()}

    def save_head(partial: Path) -> None:
        with replacing(partial / HEAD_FILE) as temporary:
            save_file(head, temporary)

    return save_trained(folder, config, trunk, source, template, dtype=dtype, also=save_head)


def completion_bucket(length: int) -> int:
    """The padded length of critiques; that of an empty one, which is its end of turn alone, is 1."""
    return 1 if length == 1 else bucket(length)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
