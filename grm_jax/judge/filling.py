"""Filling a store with samples: what is there is kept, what is missing is drawn.

On several hosts each one that has a mesh of its own draws its share; on one mesh of all of them all draw together, and process 0
stores.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from grm_jax.data.records import Item, Sample
from grm_jax.judge.anytime import Stopping, check_stopping, progress
from grm_jax.judge.rounds import in_rounds
from grm_jax.judge.run_folder import RunFolder
from grm_jax.judge.run_times import CRITIQUES, META_SCORES, Spent
from grm_jax.parallel import hosts
from grm_jax.text.template import PromptTooLong

if TYPE_CHECKING:
    from grm_jax.judge.judge import Judge
    from grm_jax.judge.meta import MetaModel

Bar = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Shows progress: bar(what, total) is entered for advance(done, note)."""


def fill(
    judge: "Judge",
    folder: RunFolder,
    items: Sequence[Item],
    k: int,
    seed: int,
    *,
    hint: bool = False,
    stop: Stopping | None = None,
    vote: str = "sum",
    bar: Bar,
) -> None:
    """Draws those of the first k samples of each item that the folder lacks; each is on disk before the next is awaited.

    With a rule to stop by, an item gets no more than its verdict needs (`anytime`).

    Args:
        judge: draws them.
        folder: opened with the judge's identity for this seed and hint; it may hold other items too.
        items: to be sampled.
        k: samples an item.
        seed: of orders and samples.
        hint: tell the judge each item's label.
        stop: when an item has enough; None draws all.
        vote: the vote that `stop` is about.
        bar: shows how many samples of those missing, at most, are drawn or not needed.

    Raises:
        UserError: an item was stored otherwise, or cannot be shown; then nothing is sampled. A vote that cannot stop early.
    """
    check_stopping(stop, vote)
    folder.add_items(items)
    if stop:
        folder.keep_stop(stop, k, vote)

    def needs(samples: Mapping[int, Sample]) -> tuple[int, ...]:
        return progress(samples, k, vote, stop).missing

    wanted = [item for item in items if not folder.is_too_long(item.id) and needs(folder.done(item.id))]
    mine, stores = (hosts.share(wanted), True) if judge.sampler.is_local else (wanted, hosts.is_leader())
    samples = [folder.done(item.id) for item in mine]
    left = [sum(index not in there for index in range(k)) for there in samples]
    done = drawn = tokens = 0
    start = time.monotonic()
    try:
        with bar("hinted critiques" if hint else "critiques", sum(left)) as advance:
            for place, result in in_rounds(judge, mine, samples, seed, needs, hint=hint):
                item, before, left[place] = mine[place], left[place], 0
                if isinstance(result, PromptTooLong):
                    if stores:
                        folder.append_too_long(item.id, result.tokens, result.limit)
                else:
                    if stores:
                        folder.append(item.id, result)
                    drawn += len(result)
                    tokens += sum(sample.tokens for sample in result)
                    if needs(samples[place]):
                        left[place] = before - len(result)
                done += before - left[place]
                advance(done, "")
    finally:
        if stores:
            folder.append_time(CRITIQUES, Spent(drawn, tokens, time.monotonic() - start))
    folder.gather()


def fill_meta_scores(
    load: Callable[[], "MetaModel"], folder: RunFolder, items: Sequence[Item], name: str, *, bar: Bar
) -> int:
    """Scores the samples of items that can vote and have no score; each score is on disk before the next is awaited.

    Args:
        load: gives the meta model; called only when there is something to score.
        folder: of the samples; its scores, if it has any, are of the same meta model.
        items: whose samples are scored.
        name: of the meta model (`meta_name`).
        bar: shows how many samples of those without a score are scored.

    Returns:
        How many were scored.

    Raises:
        UserError: the scores there are of another meta model, or a sample does not fit into its context.
    """
    folder.check_meta_model(name)
    wanted = [(item, missing) for item in items if (missing := folder.unscored(item.id))]
    total = sum(len(missing) for _, missing in wanted)
    if not wanted:
        return 0
    meta, done = load(), 0
    mine, stores = (hosts.share(wanted), True) if meta.is_local else (wanted, hosts.is_leader())
    start = time.monotonic()
    try:
        with bar("meta scores", sum(len(missing) for _, missing in mine)) as advance:
            for place, samples in meta.score(mine):
                if stores:
                    folder.append_meta_scores(mine[place][0].id, samples, name)
                done += len(samples)
                advance(done, "")
    finally:
        if stores:
            folder.append_time(META_SCORES, Spent(done, 0, time.monotonic() - start))
    folder.gather()
    return total
