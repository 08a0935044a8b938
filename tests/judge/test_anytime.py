"""Anytime voting: what the exact rule promises, by every completion there is, and how sure the confident rule may be."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.data.records import judgement_from_json, judgement_to_json
from grm_jax.errors import UserError
from grm_jax.judge import anytime, tally
from grm_jax.judge.anytime import Stopping, probability, progress, read_stop_record, stop_record, vote_in_time
from grm_jax.judge.posterior import PRIOR, chance_ahead
from grm_jax.judge.voting import decide
from tests.judge.test_voting import failed, sample, unvoted

PLAIN = ("sum", "mean", "majority", "rank")
EXACT = Stopping("exact", round=1)
laws = settings(max_examples=150, deadline=None, derandomize=True)


def samples_of(rows):
    """A row of None is a critique that cannot be read."""
    return [failed(i) if row is None else sample(i, row) for i, row in enumerate(rows)]


def verdict(rows, policy, item_id="item"):
    """(best, whether its top is tied) of all rows; (None, False) where none can be read."""
    found = decide(samples_of(rows), policy=policy, seed=0, item_id=item_id)
    tied = found.scores is not None and sum(score == max(found.scores) for score in found.scores) > 1
    return found.best, tied


def is_certain(rows, k, policy):
    return probability(samples_of(rows), k, policy) == 1.0


@pytest.mark.parametrize("policy", PLAIN)
@pytest.mark.parametrize(("n", "values", "drawn", "left"), [(2, (1, 2, 3), 2, 2), (2, (1, 3), 2, 3), (3, (1, 2), 2, 2)])
def test_exact_is_just_what_every_completion_agrees_on(monkeypatch, policy, n, values, drawn, left):
    """On a small scale of scores: certain if and only if all completions have the same best, alone at the top."""
    monkeypatch.setattr(tally, "LOWEST", min(values))
    monkeypatch.setattr(tally, "HIGHEST", max(values))
    critiques = [None, *itertools.product(values, repeat=n)]
    certain = 0
    for rows in itertools.combinations_with_replacement(critiques, drawn):
        ends = {verdict([*rows, *rest], policy) for rest in itertools.combinations_with_replacement(critiques, left)}
        agreed = len(ends) == 1 and ends == {(verdict(rows, policy)[0], False)} and ends != {(None, False)}
        assert is_certain(rows, drawn + left, policy) == agreed, rows
        certain += agreed
    # What one critique can do, another can undo: with as many left as drawn nothing is certain.
    assert (certain == 0) == (left >= drawn)
    more = [rows for rows in itertools.combinations_with_replacement(critiques, 3) if is_certain(rows, 4, policy)]
    assert more  # and with fewer left something is
    for rows in more:
        assert {verdict([*rows, rest], policy) for rest in critiques} == {(verdict(rows, policy)[0], False)}


@laws
@given(st.data())
def test_the_exact_rule_never_changes_the_winner_that_full_k_would_give(data):
    """On the real scale: with critiques of one mind, of two, and the worst that can follow."""
    n, k = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 24))
    policy, round_ = data.draw(st.sampled_from(PLAIN)), data.draw(st.integers(1, 5))
    likely = data.draw(st.lists(st.integers(1, 10), min_size=n, max_size=n))
    critique = st.none() | st.just(likely) | st.lists(st.integers(1, 10), min_size=n, max_size=n)
    rows = data.draw(st.lists(critique, min_size=k, max_size=k))
    stop = Stopping("exact", round=round_)
    judgement = vote_in_time(unvoted(samples_of(rows)), k, policy, stop)
    assert judgement.k == k or judgement.k % round_ == 0
    best, tied = verdict(rows, policy)
    assert judgement.best == best
    if judgement.k < k:
        assert not tied and max(judgement.scores) > sorted(judgement.scores)[-2]
        for rival in set(range(n)) - {best}:  # the worst that can follow
            worst = [10 if i == rival else 1 if i == best else 5 for i in range(n)]
            assert verdict([*rows[: judgement.k], *[worst] * (k - judgement.k)], policy) == (best, False)


@pytest.mark.parametrize("policy", PLAIN)
def test_exact_stops_at_the_first_critique_that_decides(policy):
    """A lead of w points a critique cannot be levelled once more than half are drawn, and not a critique before."""
    rows = [(10, 1)] * 8
    most = {"sum": 9, "mean": 9}.get(policy, 1)
    assert most == tally.widest(policy, 2)
    assert [is_certain(rows[:j], 8, policy) for j in range(1, 9)] == [False] * 4 + [True] * 4
    assert vote_in_time(unvoted(samples_of(rows)), 8, policy, EXACT).k == 5
    assert vote_in_time(unvoted(samples_of(rows)), 8, policy, Stopping("exact", round=3)).k == 6


def test_what_cannot_be_decided_draws_all():
    for rows in ([None] * 6, [(5, 5)] * 6, [(7,)] * 6):
        for stop in (EXACT, Stopping("confident", 1, 0.51)):
            assert vote_in_time(unvoted(samples_of(rows)), 6, "sum", stop).k == 6
    assert vote_in_time(unvoted([], {"prompt_too_long": 1}), 6, "sum", EXACT).outcomes == {"prompt_too_long": 1}


def urn(weights, left):
    """Polya's urn, draw by draw: the exact probability of each sum."""
    if not left:
        return {0: Fraction(1)}
    found, whole = {}, sum(weights.values())
    for value, weight in weights.items():
        for rest, chance in urn({**weights, value: weight + 1}, left - 1).items():
            found[value + rest] = found.get(value + rest, 0) + weight / whole * chance
    return found


@pytest.mark.parametrize("apart", [[], [0], [2, 2], [-2, 1], [1, 0, 1, 2, -1]])
@pytest.mark.parametrize("left", [1, 2, 3, 5])
def test_the_posterior_is_polyas_urn(apart, left):
    weights = {value: Fraction(apart.count(value)) for value in {*apart, 2, -2}}
    weights[2] += Fraction(PRIOR)
    weights[-2] += Fraction(PRIOR)
    ahead = sum(chance for total, chance in urn(weights, left).items() if sum(apart) + total > 0)
    assert chance_ahead(np.array(apart, np.int64), 2, left) == pytest.approx(float(ahead), abs=1e-12)


def test_the_posterior_is_that_of_dirichlet_weights():
    seen = np.array([5, 2, -2, 0, 5, -1, 1, 1, 9, -9])
    rng = np.random.default_rng(0)
    for k in (12, 64):
        shares = rng.dirichlet([1.0] * 8 + [PRIOR] * 2, 100_000)
        lead = seen[:8].sum() + rng.multinomial(k - 8, shares) @ seen
        assert chance_ahead(seen[:8], 9, k - 8) == pytest.approx((lead > 0).mean(), abs=0.005)


def test_a_grid_too_fine_is_rounded_for_the_rival():
    for apart in ([7, -3, 9, 2], [9, 9], [0, 1]):
        exact = chance_ahead(np.array(apart), 9, 6)
        coarse = chance_ahead(np.array([each * 2**70 for each in apart], object), 9 * 2**70, 6)
        assert exact - 0.02 < coarse < exact + 1e-9


def test_rivals_are_added_up_and_what_cannot_be_read_puts_nothing_between():
    two = probability(samples_of([(10, 1), None, (8, 4)]), 9, "sum")
    assert two == pytest.approx(chance_ahead(np.array([9, 4, 0]), 9, 6), abs=1e-12)
    third = probability(samples_of([(10, 1, 1), None, (8, 4, 4)]), 9, "sum")
    assert third == pytest.approx(1 - 2 * (1 - two), abs=1e-12)
    halves = probability(samples_of([(10, 1, 10), (3, 1, 2), (4, 5, 4)]), 9, "majority")  # 1/2, 1, -1 and 0, 1, 0
    doubts = [1 - chance_ahead(np.array(apart), 2, 6) for apart in ([1, 2, -2], [0, 2, 0])]
    assert halves == pytest.approx(1 - sum(doubts), abs=1e-12)


@laws
@given(st.data())
def test_laws_of_the_probability(data):
    n, k = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 30))
    policy = data.draw(st.sampled_from(PLAIN))
    critique = st.none() | st.lists(st.integers(1, 10), min_size=n, max_size=n).map(tuple)
    rows = data.draw(st.lists(critique, min_size=1, max_size=k))
    found = probability(samples_of(rows), k, policy)
    assert 0 <= found <= 1
    assert probability(samples_of(rows[::-1]), k, policy) == pytest.approx(found, abs=1e-12)
    renamed = [None if row is None else row[::-1] for row in rows]
    if not verdict(rows, policy)[1]:
        assert probability(samples_of(renamed), k, policy) == pytest.approx(found, abs=1e-12)
    if len(rows) == k:
        assert found == (verdict(rows, policy) not in [(None, False)] and not verdict(rows, policy)[1])


def test_a_judge_that_is_as_the_prior_supposes_is_as_sure_as_it_says():
    """Items whose critiques follow a Dirichlet draw: of verdicts called 90% sure, about as many stand, and not fewer."""
    rng = np.random.default_rng(1)
    stop, k, kept, stated = Stopping("confident", 2, 0.9), 16, [], []
    for _ in range(400):
        share = rng.beta(0.5, 0.5)
        rows = [(10, 1) if won else (1, 10) for won in rng.random(k) < share]
        judgement = vote_in_time(unvoted(samples_of(rows)), k, "sum", stop)
        if judgement.k < k:
            stated.append(probability(samples_of(rows[: judgement.k]), k, "sum"))
            kept.append((judgement.best, False) == verdict(rows, "sum"))
    assert len(kept) > 300 and np.mean(stated) > 0.9
    assert np.mean(kept) > np.mean(stated) - 3 * math.sqrt(0.1 / len(kept))


def test_decisions_are_those_of_the_first_critiques_however_many_there_are():
    rows = [(9, 2), (8, 3), (9, 1), (8, 2), (1, 10), (1, 10), (1, 10), (1, 10)]
    stop = Stopping("confident", 2, 0.6)
    there = {sample.index: sample for sample in samples_of(rows)}
    whole = progress(there, 8, "sum", stop)
    assert whole.count < 8 and not whole.missing
    for j in range(9):
        found = progress({i: there[i] for i in range(j)}, 8, "sum", stop)
        assert found.missing == tuple(range(j, 2 * math.ceil((j + 1) / 2))) if j < whole.count else found == whole
    gap = {i: there[i] for i in (0, 3)}
    assert progress(gap, 8, "sum", stop).missing == (1,)
    assert progress(gap, 8, "sum", None) == anytime.Progress(2, (1, 2, 4, 5, 6, 7))


def test_a_judgement_says_by_which_rule_it_stopped():
    judgement = vote_in_time(unvoted(samples_of([(10, 1)] * 8)), 8, "rank", Stopping("confident"))
    assert judgement.stop == {"rule": "confident", "round": 4, "confidence": 0.95, "k": 8, "vote": "rank"}
    assert judgement_from_json(judgement_to_json(judgement), "here") == judgement
    assert read_stop_record(judgement.stop, "here") == (Stopping("confident"), 8, "rank")
    assert stop_record(EXACT, 3, "sum")["confidence"] is None
    old = {key: value for key, value in judgement_to_json(judgement).items() if key != "stop"}
    assert judgement_from_json(old, "here") == dataclasses.replace(judgement, stop=None)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Stopping("soon"), "use exact or confident"),
        (lambda: Stopping("exact", round=0), "at least one critique"),
        (lambda: Stopping("exact", confidence=0.9), "always certain"),
        (lambda: Stopping("confident", confidence=0.5), "above 0.5 and below 1"),
        (lambda: Stopping("confident", confidence=1.0), "above 0.5 and below 1"),
        (lambda: Stopping("confident", confidence=math.nan), "above 0.5 and below 1"),
        (lambda: vote_in_time(unvoted([]), 2, "meta_topk", EXACT), "cannot stop early"),
        (lambda: vote_in_time(unvoted([]), 2, "meta_soft", EXACT), "cannot stop early"),
        (lambda: vote_in_time(unvoted([]), 2, "loudest", EXACT), "not known"),
        (lambda: read_stop_record({"rule": "exact"}, "stop.json"), "stop.json"),
    ],
)
def test_what_means_nothing_is_refused(make, problem):
    with pytest.raises(UserError, match=problem):
        make()
