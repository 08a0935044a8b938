"""What the trained models say of the evaluation items, kept on disk.

HOME/NAME/        a run folder: of a GRM over the items; of LLM-as-a-Judge over their pairs (`data.parts`); of CLoud over
                  single responses, with the rewards beside the samples as meta scores
HOME/NAME.json    of BTRM and PairRM: by item id, the rewards of its responses, or of its pairs in both orders
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grm_jax.checkpoints.files import write_json
from grm_jax.data.parts import pairs, pairs_of, singles
from grm_jax.data.records import Item
from grm_jax.judge.filling import Bar, fill, fill_meta_scores
from grm_jax.judge.judge import Judge
from grm_jax.judge.meta import MetaModel, meta_name
from grm_jax.judge.run_folder import RunFolder
from grm_jax.sampling.policy import SamplingPolicy


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is sampled: k critiques at a temperature of at most `max_new` tokens (0: the judge's default), `rows` together."""

    k: int
    temperature: float
    max_new: int
    rows: int
    seed: int


def bare(item: Item) -> Item:
    """The item without principles and reference answer."""
    return dataclasses.replace(item, principles=(), reference=None)


def shown_items(name: str, items: Sequence[Item]) -> list[Item]:
    """The items as a paradigm's model sees them; none where some item lacks the paradigm's aid, for rows are of the same items."""
    if name == "grm_given":
        return [dataclasses.replace(i, reference=None) for i in items] if all(i.principles for i in items) else []
    if name == "grm_reference":
        aided = all(i.reference is not None for i in items)
        return [dataclasses.replace(i, principles=()) for i in items] if aided else []
    parts = {"judge": pairs, "cloud": singles}.get(name, lambda item: [item])
    return [part for item in items for part in parts(bare(item))]


def path_of(home: Path, name: str) -> Path:
    """Where the samples, or the rewards, of a paradigm are."""
    return home / (f"{name}.json" if name in ("btrm", "pairrm") else name)


def draw(
    name: str,
    models: Mapping[str, Path],
    items: Sequence[Item],
    settings: Evaluation,
    home: Path,
    *,
    bar: Bar,
    report: Callable[[str], None],
) -> None:
    """Draws what is missing of one paradigm; run again, it goes on.

    Args:
        name: a row of the table.
        models: folders of a size's models by stage.
        items: with two responses or more.
        settings: of the samples.
        home: the stage's folder.
        bar: shows progress.
        report: told of torn lines.
    """
    shown, path = shown_items(name, items), path_of(home, name)
    if not shown:
        return
    if name in ("btrm", "pairrm"):
        rewards = btrm_rewards if name == "btrm" else pairrm_rewards
        write_json(home, path.name, rewards(MetaModel.load(models[name]), shown))
        return
    writer = {"cloud": "critic", "grm_given": "grm", "grm_reference": "grm"}.get(name, name)
    judge = Judge.load(
        models[writer], policy=SamplingPolicy(temperature=settings.temperature), max_new=settings.max_new or None,
        rows=settings.rows,
    )  # fmt: skip
    with RunFolder.open(path, judge.identity(settings.seed), report=report) as store:
        fill(judge, store, shown, settings.k, settings.seed, bar=bar)
        if name == "cloud":
            folder = models["cloud"]
            fill_meta_scores(lambda: MetaModel.load(folder), store, shown, meta_name(folder), bar=bar)


def btrm_rewards(model: MetaModel, items: Sequence[Item]) -> dict[str, list[float]]:
    """By item id: the reward of each response, shown by itself."""
    shown = [(item, (i,)) for item in items for i in range(len(item.responses))]
    found = iter(model.rewards(shown).tolist())
    return {item.id: [next(found) for _ in item.responses] for item in items}


def pairrm_rewards(model: MetaModel, items: Sequence[Item]) -> dict[str, list[list[float]]]:
    """By item id: of each pair i < j the reward with i first and that with j first."""
    shown = [(item, order) for item in items for i, j in pairs_of(len(item.responses)) for order in ((i, j), (j, i))]
    found = iter(model.rewards(shown).tolist())
    return {item.id: [[next(found), next(found)] for _ in pairs_of(len(item.responses))] for item in items}
