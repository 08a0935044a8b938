"""The folder of a run: its identity, and a store of samples that survives crashes and is never sampled twice.

    run.json          what the samples depend on; a folder opened with anything else is refused
    items.jsonl       facts of the items, appended as they come
    samples.jsonl     every sample, appended and synced batch by batch
    meta_scores.jsonl scores of the samples by one meta model, appended likewise; there once a sample is scored
    times.jsonl       what drawing and scoring took, a line a command
    stop.json         by which rule items stopped early, where a command had one
    judgements.jsonl  the verdicts, rewritten whole from the store
    hosts/I/          the samples and scores that process I > 0 of a run on several hosts has made

One run writes at a time, and each of its processes its own files; `read_run` reads beside it.
"""

import fcntl
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from grm_jax.data import fields
from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.records import PROMPT_TOO_LONG, Item, Judgement, Sample, judgement_to_json, sample_to_json
from grm_jax.errors import UserError
from grm_jax.judge.anytime import Stopping
from grm_jax.judge.append_log import AppendLog
from grm_jax.judge.run_identity import checked_identity, has_identity, read_identity, settle_identity
from grm_jax.judge.run_stop import keep_stop
from grm_jax.judge.run_store import (
    HOSTS,
    ITEMS,
    META_SCORES,
    SAMPLES,
    ItemFacts,
    Judged,
    item_facts,
    item_line,
    load_store,
)
from grm_jax.judge.run_times import TIMES, Spent, time_line
from grm_jax.parallel import hosts

_LOG = logging.getLogger(__name__)
_JUDGEMENTS = "judgements.jsonl"
_CONFIG = "config.gin"
_LOCK = ".lock"


class RunFolder:
    """A run folder open for writing; made by `RunFolder.open`, best used as a context manager."""

    def __init__(self, path: Path, identity: Mapping[str, Any], lock: BinaryIO, report: Callable[[str], None]):
        self.path = path
        self._identity = identity
        self._part = _part(path)
        self._item_log = AppendLog(path / ITEMS, report) if hosts.is_leader() else None
        self._sample_log = AppendLog(self._part / SAMPLES, report)
        self._meta_log: AppendLog | None = None
        self._lock = lock
        self._report = report
        hosts.wait("the files of a run")  # none is cut any more
        self._store = load_store(path)

    @classmethod
    def open(
        cls, path: str | Path, identity: Mapping[str, Any], *, report: Callable[[str], None] = _LOG.warning
    ) -> "RunFolder":
        """Creates the folder, or reopens it where it was left.

        `identity` is a JSON object of all that a sample depends on besides its item, with at least `model` and
        `template` (strings) and `seed` (integer). A last line torn by a crash is cut off, and `report` told. All processes of a
        run on several hosts open it together.

        Raises:
            UserError: the folder was made with another identity, is in use, holds a corrupt line or cannot be written, or the hosts
                do not share it.
        """
        path = Path(path)
        identity = checked_identity(identity)
        try:
            _part(path).mkdir(parents=True, exist_ok=True)
            lock = open(_part(path) / _LOCK, "ab")  # noqa: SIM115 (its life is the lock's)
        except OSError as error:
            raise UserError(f"{path}: cannot be used ({error.strerror}); choose another output folder") from None
        try:
            _acquire(lock, path)
            if hosts.is_leader():
                settle_identity(path, identity)
            hosts.wait("the identity of a run")
            if not has_identity(path):
                raise UserError(
                    f"{path}: is not the folder that process 0 writes to; give --output a folder all hosts share"
                )
            return cls(path, identity, lock, report)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def reopen(cls, path: str | Path, *, report: Callable[[str], None] = _LOG.warning) -> "RunFolder":
        """Opens a run as it was made, to add to what its samples are known for.

        Raises:
            UserError: it is no run folder, or what `open` refuses.
        """
        return cls.open(path, read_identity(path), report=report)

    def has_item(self, item_id: str) -> bool:
        """Tells whether the item is stored."""
        return item_id in self._store.items

    def add_items(self, items: Iterable[Item]) -> None:
        """Stores the facts of items; one that is already there must be unchanged.

        Raises:
            UserError: an item was stored with other responses, texts, label or domain.
        """
        new: dict[str, ItemFacts] = {}
        for item in items:
            facts = item_facts(item)
            stored = self._store.items.get(item.id) or new.setdefault(item.id, facts)
            if stored != facts:
                was, now = _first_difference(stored, facts)
                raise UserError(
                    f"{self.path}: item {item.id!r} was stored with {was} and now has {now}; "
                    "give the changed item another id or use another output folder"
                )
        if self._item_log:
            self._item_log.append(item_line(item_id, facts) for item_id, facts in new.items())
        self._store.items.update(new)
        hosts.wait("items")  # no sample is stored before its item

    def gather(self) -> None:
        """Waits for the other processes, and takes up what they have stored."""
        if hosts.count() > 1:
            hosts.wait("samples")
            self._store = load_store(self.path)

    def done(self, item_id: str) -> dict[int, Sample]:
        """Returns the stored samples of an item by index."""
        return dict(self._store.samples.get(item_id, {}))

    def is_too_long(self, item_id: str) -> bool:
        """Tells whether the item is stored as one whose prompt does not fit."""
        return item_id in self._store.too_long

    def append(self, item_id: str, samples: Iterable[Sample]) -> None:
        """Stores new samples of an item that `add_items` knows; they are on disk when this returns."""
        samples = list(samples)
        stored = self._store.samples.get(item_id, {})
        new = {sample.index: sample for sample in samples}
        if item_id not in self._store.items or len(new) < len(samples) or new.keys() & stored.keys():
            raise ValueError(f"item {item_id!r}: unknown, or samples {[s.index for s in samples]} are not all new")
        self._sample_log.append({"id": item_id, **sample_to_json(sample)} for sample in samples)
        self._store.samples.setdefault(item_id, {}).update(new)

    def append_too_long(self, item_id: str, tokens: int, limit: int) -> None:
        """Stores that the prompt of an item takes `tokens` tokens where `limit` fit, so it is not sampled."""
        if item_id not in self._store.items:
            raise ValueError(f"item {item_id!r}: unknown")
        if item_id not in self._store.too_long:
            line = {"id": item_id, "outcome": PROMPT_TOO_LONG, "tokens": tokens, "limit": limit}
            self._sample_log.append([line])
            self._store.too_long.add(item_id)

    def check_meta_model(self, meta_model: str) -> None:
        """Refuses a meta model other than the one whose scores the run has: a store never mixes two.

        Raises:
            UserError: it is another.
        """
        stored = self._store.meta_model
        if stored not in (None, meta_model):
            raise UserError(
                f"{self.path}: its samples were scored by {stored}, now {meta_model} is asked; use that one, or remove "
                f"{META_SCORES} to have them scored anew"
            )

    def unscored(self, item_id: str) -> list[Sample]:
        """Returns the samples of an item that can vote and have no meta score yet, by index."""
        samples = sorted(self._store.samples.get(item_id, {}).items())
        return [sample for _, sample in samples if sample.outcome == "ok" and sample.meta_score is None]

    def append_meta_scores(self, item_id: str, samples: Iterable[Sample], meta_model: str) -> None:
        """Stores the meta scores of stored samples; they are on disk when this returns."""
        self.check_meta_model(meta_model)
        samples, stored = list(samples), self._store.samples.get(item_id, {})
        unscored = {sample.index for sample in self.unscored(item_id)}
        if any(s.meta_score is None or s.index not in unscored for s in samples):
            raise ValueError(
                f"item {item_id!r}: samples {[s.index for s in samples]} are not all stored and now scored"
            )
        if self._meta_log is None:
            self._meta_log = AppendLog(self._part / META_SCORES, self._report)
        lines = [{"id": item_id, "index": s.index, "model": meta_model, "score": s.meta_score} for s in samples]
        self._meta_log.append(lines)
        self._store.meta_model = meta_model
        stored.update({sample.index: sample for sample in samples})

    def append_time(self, what: str, spent: Spent) -> None:
        """Stores what a command spent on critiques or on scores of them; nothing where it made none."""
        if spent.count:
            log = AppendLog(self._part / TIMES, self._report)
            log.append([time_line(what, spent)])
            log.close()

    def judged(self, **how: Any) -> list[Judged]:
        """Votes on every item that has an outcome; arguments: `RunStore.judged`."""
        return self._store.judged(self._identity, **how)

    def write_judgements(self, **how: Any) -> list[Judgement]:
        """Writes `judgements.jsonl` from the store, all or nothing, and returns the judgements; arguments as for `judged`."""
        judgements = [entry.judgement for entry in self.judged(**how)]
        if hosts.is_leader():
            write_jsonl(self.path / _JUDGEMENTS, map(judgement_to_json, judgements))
        return judgements

    def keep_stop(self, stop: Stopping, k: int, policy: str) -> None:
        """Writes `stop.json`."""
        if hosts.is_leader():
            keep_stop(self.path, stop, k, policy)

    def keep_configuration(self, text: str) -> None:
        """Writes `config.gin`."""
        if hosts.is_leader():
            (self.path / _CONFIG).write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Closes the files and lets another process in."""
        if self._item_log:
            self._item_log.close()
        self._sample_log.close()
        if self._meta_log:
            self._meta_log.close()
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_run(path: str | Path, *, report: Callable[[str], None] = _LOG.warning) -> list[Judged]:
    """Reads a run for a report: every judged item, voted by sum over all its samples; `voting.vote` votes otherwise.

    Takes no lock. Items without any outcome yet are left out, and `report` told how many.

    Raises:
        UserError: the folder is no run folder or holds a corrupt line.
    """
    path = Path(path)
    identity = read_identity(path)
    store = load_store(path)
    judged = store.judged(identity)
    if len(judged) < len(store.items):
        report(f"{path}: {len(store.items) - len(judged)} of {len(store.items)} items are not judged yet: left out")
    return judged


def _part(path: Path) -> Path:
    """Where this process writes."""
    return path if hosts.is_leader() else path / HOSTS / str(hosts.index())


def _acquire(lock: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another process is writing this run; wait for it or use another folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be locked ({error.strerror}); use a folder on a local disk") from None


def _first_difference(was: ItemFacts, now: ItemFacts) -> tuple[str, str]:
    if was.n != now.n:
        return f"{was.n} responses", f"{now.n}"
    for name in ("label", "domain"):
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            return f"{name} {fields.show(before)}", fields.show(after)
    return "other texts", "changed ones"
