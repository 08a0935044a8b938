"""The stage of rejective fine-tuning that samples: from labelled items to training examples and trajectories.

    RUN/                    a run folder of the samples without a hint
    RUN/hinted/             a run folder of the hinted samples
    RUN/accepted.jsonl      training examples, one for each sample kept
    RUN/trajectories.jsonl  every sample without a hint, right or wrong
    RUN/report.json         what became of items and samples

Samples are facts and stored as they come; the last three are reductions over them, written whole at the end.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grm_jax.data.examples import example_to_json
from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.records import Item
from grm_jax.errors import UserError
from grm_jax.judge.filling import Bar, fill
from grm_jax.judge.judge import Judge
from grm_jax.judge.run_folder import RunFolder
from grm_jax.parallel import hosts
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.rejection import DECISIONS, TOO_EASY, Decision, Rft, decide, decide_hinted, is_hard
from grm_jax.spct.trajectories import critique_example, trajectory, trajectory_to_json
from grm_jax.text.template_file import Template

ACCEPTED_FILE = "accepted.jsonl"
TRAJECTORIES_FILE = "trajectories.jsonl"
REPORT_FILE = "report.json"
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class Counts:
    """What became of some items and their samples.

    Attributes:
        items: how many were given.
        unlabelled: items without a label, not sampled.
        prompt_too_long: items that do not fit in the context, not sampled.
        too_easy: items whose samples are all right.
        hard: items of which no sample without a hint is right.
        samples: how many samples without a hint were found to be what, by each of `DECISIONS`.
        hinted: the same of hinted samples.
        hinted_prompt_too_long: hard items that fit in the context only without the hint.
        kept: training examples.
    """

    items: int = 0
    unlabelled: int = 0
    prompt_too_long: int = 0
    too_easy: int = 0
    hard: int = 0
    samples: Counter[str] = dataclasses.field(default_factory=lambda: Counter(dict.fromkeys(DECISIONS, 0)))
    hinted: Counter[str] = dataclasses.field(default_factory=lambda: Counter(dict.fromkeys(DECISIONS, 0)))
    hinted_prompt_too_long: int = 0
    kept: int = 0

    @property
    def yielded(self) -> float:
        """Training examples a sample drawn; 0 when none was drawn."""
        return self.kept / max(self.samples.total() + self.hinted.total(), 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the counts, and `yield`, as a JSON object."""
        # vars, for dataclasses.asdict makes a counter of pairs out of a counter
        counts = {name: dict(count) if isinstance(count, Counter) else count for name, count in vars(self).items()}
        return {**counts, "yield": self.yielded}


@dataclasses.dataclass
class Report:
    """Counts over all items, and by domain for items that have one, in the order of their first item."""

    all: Counts = dataclasses.field(default_factory=Counts)
    domains: dict[str, Counts] = dataclasses.field(default_factory=dict)

    def of(self, item: Item) -> list[Counts]:
        """Returns all counts to which an item belongs."""
        if item.domain is None:
            return [self.all]
        return [self.all, self.domains.setdefault(item.domain, Counts())]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        domains = {name: counts.to_json() for name, counts in self.domains.items()}
        return {"all": self.all.to_json(), "domains": domains}


def load_judge(
    model: str | Path,
    settings: Rft,
    *,
    template: str | Path | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    cache: str | None = None,
) -> Judge:
    """Loads the judge that writes the critiques, set as the stage wants it; raises as `Judge.load`."""
    policy = SamplingPolicy(temperature=settings.temperature)
    max_new = settings.max_new or None
    return Judge.load(
        model, template=template, dtype=dtype, weights=weights, policy=policy, max_new=max_new, rows=settings.rows,
        cache=cache,
    )  # fmt: skip


def sample_and_reject(
    judge: Judge,
    folder: RunFolder,
    items: Sequence[Item],
    settings: Rft,
    *,
    bar: Bar,
    report: Callable[[str], None] = _LOG.warning,
) -> Report:
    """Draws the samples that the folder lacks and writes training examples, trajectories and the report.

    Run again after an interruption it goes on where it stopped, and ends with the same files. What is rejected may be
    changed without sampling anew, and `settings.samples` raised.

    Args:
        judge: as `load_judge` loads it.
        folder: opened with `judge.identity(settings.seed)`.
        items: those without a label are counted and left out.
        settings: of the stage.
        bar: shows progress.
        report: is told of a torn line in the folder of the hinted samples.

    Raises:
        UserError: no item has a label, an item changed, or one cannot be shown by the template.
    """
    labelled = [item for item in items if item.label is not None]
    if not labelled:
        raise UserError("no item has a label, so no critique can be told right or wrong; give labelled items")
    if settings.hinted:
        check_hints(judge.template, labelled)
    fill(judge, folder, labelled, settings.samples, settings.seed, bar=bar)
    plain = {item.id: _decisions(folder, item, settings) for item in labelled}
    hard = [
        item for item in labelled if plain[item.id] and is_hard(item, [decision.sample for decision in plain[item.id]])
    ]
    hinted: dict[str, Decision | None] = {}
    if settings.hinted and hard:
        identity = judge.identity(settings.seed, hint=True)
        with RunFolder.open(folder.path / "hinted", identity, report=report) as store:
            fill(judge, store, hard, 1, settings.seed, hint=True, bar=bar)
            for item in hard:
                sample = store.done(item.id).get(0)
                hinted[item.id] = None if sample is None else decide_hinted(item, sample, settings)
    result = _count(items, plain, {item.id for item in hard}, hinted)
    if hosts.is_leader():
        write_jsonl(
            folder.path / ACCEPTED_FILE,
            (
                example_to_json(critique_example(item, decision.sample, hinted=decision is hinted.get(item.id)))
                for item in labelled
                for decision in (*plain[item.id], hinted.get(item.id))
                if decision and decision.kept
            ),
        )
        write_jsonl(
            folder.path / TRAJECTORIES_FILE,
            (trajectory_to_json(trajectory(item, decision.sample)) for item in labelled for decision in plain[item.id]),
        )
        write_jsonl(folder.path / REPORT_FILE, [result.to_json()])
    return result


def check_hints(template: Template, items: Sequence[Item]) -> None:
    """Refuses a template that cannot show the hints these items may need, before time is spent on sampling.

    Raises:
        UserError: names the block that it lacks.
    """
    for item in items:
        n = len(item.responses)
        template.block("hint" if n > 1 else "hint_score", n)
        if item.strength is not None:
            template.block("hint_strength", n)


def _decisions(folder: RunFolder, item: Item, settings: Rft) -> list[Decision]:
    """Decides on the first samples of an item; of one whose prompt is too long there are none."""
    stored = folder.done(item.id)
    return decide(item, [stored[index] for index in range(settings.samples) if index in stored], settings)


def _count(
    items: Sequence[Item], plain: dict[str, list[Decision]], hard: set[str], hinted: dict[str, Decision | None]
) -> Report:
    report = Report()
    for item in items:
        decisions = plain.get(item.id, [])
        told = hinted.get(item.id)
        for counts in report.of(item):
            counts.items += 1
            counts.unlabelled += item.label is None
            counts.prompt_too_long += item.label is not None and not decisions
            counts.too_easy += any(decision.found == TOO_EASY for decision in decisions)
            counts.hard += item.id in hard
            counts.samples.update(decision.found for decision in decisions)
            counts.hinted.update([told.found] if told else [])
            counts.hinted_prompt_too_long += item.id in hinted and told is None
            counts.kept += sum(decision.kept for decision in (*decisions, told) if decision)
    return report
