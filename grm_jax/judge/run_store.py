"""What a run has stored, in memory: facts of its items, their samples, and judgements made from them.

`items.jsonl` has one line an item: {"id", "n", "label", "domain", "digest"}. `samples.jsonl` has one line a sample,
{"id", ...Sample}, or {"id", "outcome": "prompt_too_long", "tokens", "limit"} for an item that was never sampled.
`meta_scores.jsonl` has one line a scored sample, {"id", "index", "model", "score"}: scores may come long after the samples.
What process I > 0 of a run on several hosts drew or scored stands in files of the same names in `hosts/I/`; a store is all of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from grm_jax.data import fields
from grm_jax.data.jsonl import dump_line
from grm_jax.data.records import PROMPT_TOO_LONG, Item, Judgement, Sample, item_to_json, read_label, sample_from_json
from grm_jax.judge.anytime import Stopping, vote_in_time
from grm_jax.judge.append_log import read_log
from grm_jax.judge.voting import unvoted, vote
from grm_jax.keys import digest

ITEMS = "items.jsonl"
SAMPLES = "samples.jsonl"
META_SCORES = "meta_scores.jsonl"
HOSTS = "hosts"
_REMEDY = "restore the file, or remove the line to have it made again"


@dataclass(frozen=True)
class ItemFacts:
    """What a report needs of an item: response count, label, domain; `digest` tells whether its texts changed."""

    n: int
    label: int | float | None
    domain: str | None
    digest: str


@dataclass(frozen=True)
class Judged:
    """A judgement beside the facts it is held against: n responses, label (or None), domain (or None)."""

    judgement: Judgement
    n: int
    label: int | float | None
    domain: str | None


@dataclass
class RunStore:
    """Items by id in the order first given, their samples by index, and the items whose prompt was too long.

    `meta_model` names the meta model whose scores the samples have; None when there are none.
    """

    items: dict[str, ItemFacts] = field(default_factory=dict)
    samples: dict[str, dict[int, Sample]] = field(default_factory=dict)
    too_long: set[str] = field(default_factory=set)
    meta_model: str | None = None

    def judged(
        self,
        identity: Mapping[str, Any],
        *,
        policy: str = "sum",
        k: int | None = None,
        k_meta: float | None = None,
        stop: Stopping | None = None,
    ) -> list[Judged]:
        """Votes on every item that has an outcome, in the order of the items; one with fewer than k samples on all it has.

        With k and a rule to stop by, on as many as the rule asks for.
        """
        judged = []
        for item_id, facts in self.items.items():
            samples = self.samples.get(item_id, {}).values()
            if not samples and item_id not in self.too_long:
                continue
            judgement = unvoted(
                item_id, tuple(samples), model=identity["model"], template=identity["template"], seed=identity["seed"]
            )
            if stop and k:
                judgement = vote_in_time(judgement, k, policy, stop)
            else:
                first = min(k, len(samples)) if k and samples else None
                kept = min(k_meta, first) if k_meta and first else k_meta  # a share is below any k
                judgement = vote(judgement, policy=policy, k=first, k_meta=kept)
            judged.append(Judged(judgement, facts.n, facts.label, facts.domain))
        return judged


def item_facts(item: Item) -> ItemFacts:
    """Returns the facts of an item; the digest covers everything that a judge reads of it."""
    read_by_judge = {key: value for key, value in item_to_json(item).items() if key not in ("label", "domain", "meta")}
    texts = dump_line(read_by_judge).decode("utf-8")
    return ItemFacts(len(item.responses), item.label, item.domain, digest(texts).hex()[:16])


def item_line(item_id: str, facts: ItemFacts) -> dict[str, Any]:
    """Returns the line of `items.jsonl` for an item."""
    return {"id": item_id, **asdict(facts)}


def parts(path: Path) -> list[Path]:
    """The folders whose files are a store together."""
    return [path, *sorted((path / HOSTS).glob("*"))]


def load_store(path: Path) -> RunStore:
    """Reads the store of a run folder; safe beside a running writer.

    Raises:
        UserError: "FILE:LINE: field: what is wrong; what to do" for any finished line that is corrupt.
    """
    # A writer stores an item before its samples, and those before their scores: read the other way round, each line finds
    # what it is about.
    scores = [line for part in parts(path) for line in read_log(part / META_SCORES)]
    lines = [line for part in parts(path) for line in read_log(part / SAMPLES)]
    store = RunStore()
    for where, obj in read_log(path / ITEMS):
        _load_item(store, obj, where)
    for where, obj in lines:
        _load_sample(store, obj, where)
    for where, obj in scores:
        _load_meta_score(store, obj, where)
    return store


def _load_item(store: RunStore, obj: Any, where: str) -> None:
    obj = fields.read_object(obj, where, "item")
    keys = ("id", "n", "label", "domain", "digest")
    fields.check_keys(obj, keys, keys, where, _REMEDY)
    n = fields.read_integer(obj["n"], where, "n", 1, 2**63)
    label = read_label(obj["label"], n, where)
    domain = fields.read_optional(fields.read_text, obj["domain"], where, "domain")
    name = fields.read_name(obj["id"], where, "id")
    if name in store.items:
        fields.fail(where, "id", f"{fields.show(name)} is stored twice", _REMEDY)
    store.items[name] = ItemFacts(n, label, domain, fields.read_text(obj["digest"], where, "digest"))


def _load_sample(store: RunStore, obj: Any, where: str) -> None:
    rest = dict(fields.read_object(obj, where, "sample"))
    name = rest.pop("id", None)
    if name not in store.items:
        fields.fail(where, "id", f"{fields.show(name)} is no item of this run", _REMEDY)
    if rest.get("outcome") == PROMPT_TOO_LONG:
        store.too_long.add(name)
        return
    sample = sample_from_json(rest, where)
    samples = store.samples.setdefault(name, {})
    if sample.index in samples:
        fields.fail(where, "index", f"sample {sample.index} of {fields.show(name)} is stored twice", _REMEDY)
    if len(sample.order) != store.items[name].n:
        problem = f"{fields.show(sample.order)} does not fit an item with {store.items[name].n} responses"
        fields.fail(where, "order", problem, _REMEDY)
    samples[sample.index] = sample


def _load_meta_score(store: RunStore, obj: Any, where: str) -> None:
    obj = fields.read_object(obj, where, "meta score")
    keys = ("id", "index", "model", "score")
    fields.check_keys(obj, keys, keys, where, _REMEDY)
    name, index = fields.read_name(obj["id"], where, "id"), fields.read_integer(obj["index"], where, "index", 0, 2**64)
    sample = store.samples.get(name, {}).get(index)
    if sample is None:
        fields.fail(where, "index", f"there is no sample {index} of {fields.show(name)}", _REMEDY)
    if sample.meta_score is not None:
        fields.fail(where, "index", f"sample {index} of {fields.show(name)} is scored twice", _REMEDY)
    model = fields.read_name(obj["model"], where, "model")
    if store.meta_model not in (None, model):
        fields.fail(where, "model", f"{fields.show(model)} is not {fields.show(store.meta_model)}", _REMEDY)
    store.meta_model = model
    store.samples[name][index] = replace(sample, meta_score=fields.read_number(obj["score"], where, "score"))
