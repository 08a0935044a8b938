"""When an item has critiques enough: anytime voting. Numpy only, nothing is sampled here.

Critiques are drawn in rounds. After each an item is asked whether its verdict stands: whether the one response that leads now would
lead alone after all k critiques. Two rules answer:

    exact      it is certain: no critiques, readable or not, can take the lead away or level it. `best` is that of the full k,
               neither is tied, and so the item is worth the same under every policy for ties.
    confident  the probability of that, `probability`, has reached a level.

A tied top is never certain while a critique is left, for that one can break it. What is certain is who is best: the scores, and the
ranks behind the best, are those of the critiques drawn. An item of one response, whose score is the verdict, draws all.

Decisions depend on the samples of the item alone, those of lowest index first, so a run that goes on decides as it did before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from grm_jax.data import fields
from grm_jax.data.records import Judgement, Sample
from grm_jax.errors import UserError
from grm_jax.judge.posterior import chance_ahead
from grm_jax.judge.tally import GUIDED, given, widest
from grm_jax.judge.voting import check_vote, vote

EXACT, CONFIDENT = "exact", "confident"
RULES = (EXACT, CONFIDENT)


@dataclass(frozen=True)
class Stopping:
    """When an item has critiques enough.

    Attributes:
        rule: "exact" or "confident".
        round: critiques drawn between two decisions; a multiple of n lets every response stand at every place as often.
        confidence: of the rule "confident": the probability that is enough, above 0.5 and below 1; 0.95 if not given.
    """

    rule: str
    round: int = 4
    confidence: float | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise UserError(f"stop: {self.rule!r} is not known; use {' or '.join(RULES)}")
        if self.round < 1:
            raise UserError(f"round is {self.round}; draw at least one critique between decisions")
        if self.rule == EXACT and self.confidence is not None:
            raise UserError("confidence: the exact rule is always certain; leave it out or stop 'confident'")
        if self.rule == CONFIDENT:
            object.__setattr__(self, "confidence", 0.95 if self.confidence is None else self.confidence)
            if not 0.5 < float(self.confidence or 0) < 1:
                raise UserError(f"confidence is {self.confidence:g}; it must be above 0.5 and below 1")


@dataclass(frozen=True)
class Progress:
    """How far an item is: the first `count` critiques vote; `missing` are to be drawn before more can be said, none when done."""

    count: int
    missing: tuple[int, ...]


def check_stopping(stop: Stopping | None, policy: str) -> None:
    """Refuses a vote that cannot stop early.

    Raises:
        UserError: an unknown vote, or a guided one.
    """
    check_vote(policy, None)
    if stop and policy in GUIDED:
        raise UserError(
            f"vote: '{policy}' cannot stop early, for critiques get their meta scores after all are drawn; "
            "vote sum, mean, majority or rank, or draw all"
        )


def progress(samples: Mapping[int, Sample], k: int, policy: str, stop: Stopping | None) -> Progress:
    """Tells which of the first k critiques of an item are needed beside those there are, `samples` by index.

    Without a rule all are. With one it is what the first round, the first two, ... say, however many critiques there are.
    """
    for count in (*(range(stop.round, k, stop.round) if stop else ()), k):
        missing = tuple(index for index in range(count) if index not in samples)
        first = [samples[index] for index in range(count) if index in samples]
        if missing or count == k or (stop and is_enough(first, k, policy, stop)):
            return Progress(len(first), missing)
    raise AssertionError("k ends the rounds")


def is_enough(samples: Sequence[Sample], k: int, policy: str, stop: Stopping) -> bool:
    """Tells whether the verdict on the samples drawn so far stands."""
    if stop.confidence is None:
        return is_certain(samples, k, policy)
    return probability(samples, k, policy) >= stop.confidence


def is_certain(samples: Sequence[Sample], k: int, policy: str) -> bool:
    """Tells whether the response that leads now leads alone after k critiques, whatever those to come say.

    It does if and only if it is further ahead of each rival than all of them together can put between two.
    """
    ahead, most = _ahead(samples, policy)
    return bool(ahead.size) and bool((ahead.sum(axis=0) > most * (k - len(samples))).all())


def probability(samples: Sequence[Sample], k: int, policy: str) -> float:
    """Returns the probability, at least, that the response that leads now leads alone after k critiques; 1 just if it is certain.

    It is 1 less the sum over rivals of the probability that they draw level or ahead (`posterior.chance_ahead`).

    Args:
        samples: those drawn so far, in any order.
        k: critiques in all, at least as many.
        policy: the vote, one of those that `check_stopping` lets pass.
    """
    if is_certain(samples, k, policy):
        return 1.0
    ahead, most = _ahead(samples, policy)
    left = k - len(samples)
    if not left or not ahead.size:
        return 0.0
    doubt = sum(1 - chance_ahead(each, most, left) for each in ahead.T)
    return float(np.clip(1 - doubt, 0.0, np.nextafter(1.0, 0.0)))  # what rounds to 1 is not certain


def _ahead(samples: Sequence[Sample], policy: str) -> tuple[np.ndarray, int]:
    """What each critique puts between the leader and each rival, whole numbers [j, n - 1], and the most that one can.

    A critique that cannot be read puts nothing between any two. Of size 0 where none can be read, or nobody is a rival.
    """
    readable = [sample.scores for sample in samples if sample.scores is not None]
    if not readable:
        return np.zeros((len(samples), 0), np.int64), 0
    points, unit = given(np.array(readable, np.int64), policy)
    leader = int(np.argmax(points.sum(axis=0)))
    ahead = points[:, [leader]] - np.delete(points, leader, axis=1)
    unread = np.zeros((len(samples) - len(readable), ahead.shape[1]), ahead.dtype)
    return np.concatenate([ahead, unread]), widest(policy, points.shape[1]) * unit


def vote_in_time(judgement: Judgement, k: int, policy: str, stop: Stopping) -> Judgement:
    """Votes on as many of the samples as the rule asks for; with fewer than that on the first k of those there are.

    Raises:
        UserError: k below 1, or a vote that cannot stop early.
    """
    check_stopping(stop, policy)
    if not judgement.samples:
        return vote(judgement, policy=policy)
    found = progress({sample.index: sample for sample in judgement.samples}, k, policy, stop)
    if found.missing:
        return vote(judgement, policy=policy, k=min(k, len(judgement.samples)))
    return replace(vote(judgement, policy=policy, k=found.count), stop=stop_record(stop, k, policy))


def stop_record(stop: Stopping, k: int, policy: str) -> dict[str, Any]:
    """Returns the rule as run folders and judgements keep it: rule, round, confidence (or null), k at most, vote."""
    return {**asdict(stop), "k": k, "vote": policy}


def read_stop_record(obj: Any, where: str) -> tuple[Stopping, int, str]:
    """Returns the rule, k and the vote of a `stop_record`.

    Raises:
        UserError: "WHERE: field: what is wrong; what to do".
    """
    obj = fields.read_object(obj, where, "stop")
    keys = ("rule", "round", "confidence", "k", "vote")
    fields.check_keys(obj, keys, keys, where, "remove the file and judge again")
    confidence = fields.read_optional(fields.read_number, obj["confidence"], where, "confidence")
    rule = fields.read_choice(obj["rule"], RULES, where, "rule")
    stop = Stopping(rule, fields.read_integer(obj["round"], where, "round", 1, 2**63), confidence)
    return stop, fields.read_integer(obj["k"], where, "k", 1, 2**63), fields.read_name(obj["vote"], where, "vote")
