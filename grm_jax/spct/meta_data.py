"""What the meta reward model learns from: critiques with the truth about them, put together by prompt.

Letters: P prompts, G critiques a prompt, S prompt positions, T critique positions.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grm_jax.data.critique_groups import CritiqueGroup, encode_group, pad_groups
from grm_jax.data.epochs import SortedEpochs
from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.run_identity import read_identity
from grm_jax.judge.run_store import item_facts, load_store
from grm_jax.sampling.sampler import bucket
from grm_jax.spct.trajectories import Trajectory, read_trajectories, trajectory
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class LabelledGroup:
    """A prompt with critiques of it, and for each critique whether it is right."""

    group: CritiqueGroup
    right: tuple[bool, ...]


def read_critiques(
    sources: Sequence[str | Path], items: Mapping[str, Item], *, unreadable: bool = False
) -> list[Trajectory]:
    """Reads critiques of labelled items from trajectory files and from run folders of `grm judge`, in the order given.

    Args:
        sources: `trajectories.jsonl` files and run folders.
        items: by id: the texts, and for run folders the labels. Critiques of items without a label are passed over.
        unreadable: keep critiques whose outcome is not "ok" as well; they are wrong.

    Raises:
        UserError: a source cannot be read, its samples were drawn with hints, or an item is missing or has changed.
    """
    found: list[Trajectory] = []
    for source in sources:
        read = _of_run(Path(source), items) if Path(source).is_dir() else read_trajectories(source)
        for each in read:
            item = _item(items, each.id, source)
            if len(item.responses) != len(each.order):
                n, m = len(each.order), len(item.responses)
                raise UserError(
                    f"{source}: item {each.id!r} had {n} responses and now has {m}; give the items as they were"
                )
            if unreadable or each.outcome == "ok":
                found.append(each)
    if not found:
        names = ", ".join(map(str, sources))
        raise UserError(f"{names}: hold no critique that can be learnt from; sample labelled items first")
    return found


def group_critiques(
    critiques: Iterable[Trajectory],
    items: Mapping[str, Item],
    template: Template,
    tokenizer: Tokenizer,
    *,
    size: int,
    max_tokens: int,
) -> tuple[list[LabelledGroup], int]:
    """Encodes critiques, those of one item in one order together, at most `size` to a group.

    Returns:
        The groups, and how many critiques were left out because they take more than `max_tokens` with their prompt.

    Raises:
        UserError: the template cannot show an item.
    """
    by_prompt: dict[tuple[str, tuple[int, ...]], list[Trajectory]] = {}
    for critique in critiques:
        by_prompt.setdefault((critique.id, critique.order), []).append(critique)
    groups, too_long = [], 0
    for (item_id, order), members in by_prompt.items():
        whole = encode_group(template, tokenizer, items[item_id], order, [member.text for member in members])
        pairs = zip(whole.critiques, (member.accepted for member in members), strict=True)
        fitting = [(ids, right) for ids, right in pairs if len(whole.prompt) + len(ids) <= max_tokens]
        too_long += len(members) - len(fitting)
        for start in range(0, len(fitting), size):
            ids, right = zip(*fitting[start : start + size], strict=True)
            groups.append(LabelledGroup(CritiqueGroup(whole.prompt, ids), right))
    return groups, too_long


class MetaBatches:
    """An endless source of batches (`train.loop.BatchSource`).

    Groups come in the order of `data.epochs`. A batch has what `train.meta_rm.meta_loss` reads, for P prompts. G, S and T are those
    of its largest group, rounded up, so that few shapes are compiled.
    """

    def __init__(self, groups: Sequence[LabelledGroup], *, prompts: int, seed: int):
        """`prompts` is P; there must be a group."""
        self._groups, self._prompts = groups, prompts
        self._order = SortedEpochs("meta batches", seed, [each.group.longest for each in groups], prompts)
        self._next = 0  # batch

    def next(self, params: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Returns the next batch; `params` plays no part."""
        chosen = [self._groups[place] for place in self._order.batch(self._next)]
        epoch = self._order.epoch(self._next)
        self._next += 1
        G = 1 << (max(len(each.right) for each in chosen) - 1).bit_length()
        S = bucket(max(len(each.group.prompt) for each in chosen))
        T = bucket(max(each.group.longest for each in chosen))
        batch = pad_groups([each.group for each in chosen], self._prompts, G, S, T)
        batch["labels"] = np.zeros((self._prompts, G), np.float32)
        for p, each in enumerate(chosen):
            batch["labels"][p, : len(each.right)] = each.right
        return batch, {"epoch": epoch}

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch."""
        return {"next": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._next = int(state["next"])


def _of_run(path: Path, items: Mapping[str, Item]) -> Iterator[Trajectory]:
    if read_identity(path).get("hint"):
        raise UserError(f"{path}: its critiques were drawn with hints, which no judge has later; give a run without")
    store = load_store(path)
    for item_id, samples in store.samples.items():
        item = _item(items, item_id, path)
        if item_facts(item).digest != store.items[item_id].digest:
            raise UserError(f"{path}: item {item_id!r} had other texts when it was judged; give the items as they were")
        if item.label is not None:
            yield from (trajectory(item, sample) for _, sample in sorted(samples.items()))


def _item(items: Mapping[str, Item], item_id: str, source: str | Path) -> Item:
    if item_id not in items:
        raise UserError(f"{source}: is about item {item_id!r}, which was not given; give all items that were judged")
    return items[item_id]


def describe(critiques: Sequence[Trajectory]) -> str:
    """One line on what there is to learn from."""
    right = Counter(critique.accepted for critique in critiques)[True]
    return f"{len(critiques)} critiques of {len({each.id for each in critiques})} items, {right} right"
