"""The difficulty filter: items that a judge gets right every time teach it nothing (section 3.2.2 of arXiv 2504.02495)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.run_store import item_facts, load_store
from grm_jax.spct.rejection import is_right
from grm_jax.spct.trajectories import read_trajectories


def easy_items(sources: Sequence[str | Path], items: Sequence[Item]) -> set[str]:
    """Finds the labelled items of which all critiques in the sources are right (Eq 10 of arXiv 2504.02495).

    Args:
        sources: `trajectories.jsonl` files and run folders of `grm judge`. All critiques of an item count together, and those
            that cannot be read are wrong. Items that are in no source are not easy; others' critiques are passed over.
        items: with the texts that the critiques are about.

    Returns:
        Their ids.

    Raises:
        UserError: a source cannot be read, or an item had other responses when its critiques were drawn.
    """
    known = {item.id: item for item in items if item.label is not None}
    all_right: dict[str, bool] = {}
    for source in sources:
        read = _of_run if Path(source).is_dir() else _of_file
        for item_id, right in read(Path(source), known):
            all_right[item_id] = all_right.get(item_id, True) and right
    return {item_id for item_id, right in all_right.items() if right}


def _of_file(path: Path, items: Mapping[str, Item]) -> Iterator[tuple[str, bool]]:
    for each in read_trajectories(path):
        if each.id in items:
            if len(each.order) != len(items[each.id].responses):
                raise _changed(path, each.id)
            yield each.id, each.accepted


def _of_run(path: Path, items: Mapping[str, Item]) -> Iterator[tuple[str, bool]]:
    store = load_store(path)
    for item_id, samples in store.samples.items():
        if item_id in items:
            if item_facts(items[item_id]).digest != store.items[item_id].digest:
                raise _changed(path, item_id)
            yield from ((item_id, is_right(items[item_id], sample)) for sample in samples.values())


def _changed(path: Path, item_id: str) -> UserError:
    return UserError(f"{path}: item {item_id!r} was judged with other responses; give the items as they were")
