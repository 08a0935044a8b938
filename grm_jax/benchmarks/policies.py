"""From stored critiques to what a question is worth: the vote of an item, with ties and failures by named policy."""

from collections.abc import Sequence
from dataclasses import dataclass

from grm_jax.data.records import Sample
from grm_jax.errors import UserError
from grm_jax.evaluate.protocol import FAILURES as WORTHS
from grm_jax.evaluate.protocol import TIES, Protocol, item_accuracy
from grm_jax.judge.tally import GUIDED, POLICIES
from grm_jax.judge.voting import check_vote, decide, first_samples

RESAMPLE = "resample"
FAILURES = (*WORTHS, RESAMPLE)
OWN = "own"
"""The tie policy of a benchmark whose scoring rule says itself what a tie is."""
DRAWS = 4
"""With `resample`, k votes are taken from at most DRAWS * k critiques."""

Scores = tuple[int | float, ...] | None
"""One total a response, in item order; None where no critique could be read."""


@dataclass(frozen=True)
class Policies:
    """How critiques become figures.

    Attributes:
        ties: what an item is worth whose best response shares the top with others, as in `evaluate.accuracy.Protocol`; or
            `OWN`.
        failures: an item without a verdict: "wrong" 0, "chance" 1/n; "resample" lets the first k critiques vote that can be
            read, among the first 4 k, and is "wrong" where none can.
        vote: voting policy.
        k_meta: of meta_topk, as for `voting.decide`.
    """

    ties: str
    failures: str = "wrong"
    vote: str = "sum"
    k_meta: float | None = None

    def __post_init__(self):
        for name, known in (("ties", (*TIES, OWN)), ("failures", FAILURES), ("vote", POLICIES)):
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(each for each in known if each != OWN)
                raise UserError(f"{name}: {value!r} is not known here; use one of {names}")
        check_vote(self.vote, self.k_meta)


def games(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """Divides the samples of an item into games by the order shown, each by rising index.

    One game holds all samples. Two, for n = 2, hold those that saw response 0 first and those that saw response 1 first;
    orders alternate, so the first 2 k samples hold k of each.
    """
    ordered = sorted(samples, key=lambda sample: sample.index)
    if count == 1:
        return [ordered]
    return [[sample for sample in ordered if sample.order[0] == first] for first in range(count)]


def item_votes(
    samples: Sequence[Sample], n: int, k: int, policies: Policies, *, count: int = 1, seed: int, item_id: str
) -> tuple[Scores, ...]:
    """Votes on an item of n responses with k critiques in each of `count` games; no samples: its prompt did not fit.

    A single response gets its mean score (of the critiques that a guided vote keeps), because it is compared with those of other
    items, of which other numbers of critiques may have been read.

    Raises:
        UserError: a game has fewer than k samples, or one that votes has no meta score.
    """
    if not samples:
        return (None,) * count
    asked = (voters(game, k, policies.failures, item_id) for game in games(samples, count))
    return tuple(_scores(some, n, policies, seed, item_id) for some in asked)


def _scores(asked: Sequence[Sample], n: int, policies: Policies, seed: int, item_id: str) -> Scores:
    policy = policies.vote if n > 1 or policies.vote in GUIDED else "mean"
    # `resample` may find fewer readable critiques than are to be kept: then all of them are.
    k_meta = policies.k_meta and (min(policies.k_meta, len(asked)) or None)
    verdict = decide(asked, policy=policy, k_meta=k_meta, seed=seed, item_id=item_id)
    if n == 1 and policy == "meta_topk" and verdict.scores is not None:
        return (verdict.scores[0] / verdict.used,)
    return verdict.scores


def voters(game: Sequence[Sample], k: int, failures: str, item_id: str) -> Sequence[Sample]:
    """Returns the samples of a game that are asked at k, ordered by index.

    Raises:
        UserError: there are fewer than k.
    """
    first = first_samples(game, k, f"item {item_id!r}")
    if failures != RESAMPLE:
        return first
    return [sample for sample in game[: DRAWS * k] if sample.outcome == "ok"][:k]


def missing_draws(samples: Sequence[Sample], k: int, count: int) -> int:
    """Returns how many critiques more an item needs for k readable ones in each game, 0 once `DRAWS` times k are drawn."""
    played = games(samples, count)
    lacking = max(k - sum(sample.outcome == "ok" for sample in game) for game in played)
    return count * max(0, min(lacking, DRAWS * k - min(map(len, played))))


def credit(scores: Scores, best: int, n: int, policies: Policies, *, seed: int, item_id: str) -> float:
    """Returns what a vote is worth, 0..1, when response `best` of n >= 2 is the right one."""
    failures = "wrong" if policies.failures == RESAMPLE else policies.failures
    protocol = Protocol(ties=policies.ties, failures=failures)
    return item_accuracy(scores, best, n, protocol, seed=seed, item_id=item_id)
