import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.data.records import Judgement, Sample
from grm_jax.errors import UserError
from grm_jax.judge.orders import unshuffle
from grm_jax.judge.tally import POLICIES
from grm_jax.judge.voting import decide, rank, vote

laws = settings(max_examples=80, deadline=None, derandomize=True)


def sample(index, scores, meta_score=None, outcome="ok"):
    n = 2 if scores is None else len(scores)
    return Sample(
        index=index,
        order=tuple(range(n)),
        text="",
        scores=None if scores is None else tuple(scores),
        outcome=outcome,
        tokens=1,
        logprob=-1.0,
        meta_score=meta_score,
        seed=0,
    )


def failed(index):
    return sample(index, None, outcome="no_block")


def unvoted(samples, outcomes=None):
    return Judgement(
        id="item",
        scores=None,
        best=None,
        ranking=(),
        k=0,
        vote="",
        samples=tuple(samples),
        outcomes=outcomes or {},
        model="m",
        template="t",
        seed=0,
    )


def scores_of(samples, policy, **more):
    return decide(samples, policy=policy, seed=0, item_id="item", **more).scores


ballots = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 10), min_size=n, max_size=n), min_size=1, max_size=12)
)

# Table 17 of arXiv 2504.02495: the last two samples saw the responses reversed.
TABLE_17 = [
    sample(0, unshuffle((8, 8), (0, 1)), -15.78),
    sample(1, unshuffle((9, 5), (1, 0)), 1.31),
    sample(2, unshuffle((10, 7), (1, 0)), 1.67),
]


def test_the_papers_example():
    judgement = vote(unvoted(TABLE_17))
    assert judgement.scores == (20, 27)
    assert judgement.ranking == (1, 0)
    assert (judgement.best, judgement.k, judgement.vote, judgement.outcomes) == (1, 3, "sum", {"ok": 3})
    guided = vote(unvoted(TABLE_17), policy="meta_topk")
    assert guided.scores == (12, 19)  # default keeps 2 of 3: those with meta scores 1.31 and 1.67
    assert vote(unvoted(TABLE_17), policy="meta_topk", k_meta=1).scores == (7, 10)


@laws
@given(ballots)
def test_policies_against_brute_force(rows):
    samples = [sample(i, row) for i, row in enumerate(rows)]
    n, m = len(rows[0]), len(rows)
    assert scores_of(samples, "sum") == tuple(sum(row[i] for row in rows) for i in range(n))
    assert scores_of(samples, "mean") == tuple(sum(row[i] for row in rows) / m for i in range(n))
    majority, borda = [Fraction(0)] * n, [Fraction(0)] * n
    for row in rows:
        winners = [i for i in range(n) if row[i] == max(row)]
        for i in winners:
            majority[i] += Fraction(1, len(winners))
        for i in range(n):
            others = [row[j] for j in range(n) if j != i]
            borda[i] += sum(Fraction(o < row[i]) + Fraction(o == row[i], 2) for o in others)
    assert scores_of(samples, "majority") == tuple(float(total) for total in majority)
    assert scores_of(samples, "rank") == tuple(float(total) for total in borda)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_sum_of_k_votes_takes_9k_plus_1_values(k):
    grid = np.stack(np.meshgrid(*[np.arange(1, 11)] * k), axis=-1).reshape(-1, k)
    sums = {scores_of([sample(i, (int(s),)) for i, s in enumerate(row)], "sum")[0] for row in grid}
    assert sums == set(range(k, 10 * k + 1))
    assert len(sums) == 9 * k + 1


@laws
@given(ballots, st.data())
def test_meta_policies_against_brute_force(rows, data):
    meta = data.draw(st.lists(st.floats(-30, 30), min_size=len(rows), max_size=len(rows)))
    samples = [sample(i, row, score) for i, (row, score) in enumerate(zip(rows, meta, strict=True))]
    k_meta = data.draw(st.integers(1, len(rows)))
    kept = sorted(range(len(rows)), key=lambda i: (-meta[i], i))[:k_meta]
    assert scores_of(samples, "meta_topk", k_meta=k_meta) == tuple(np.array(rows)[kept].sum(axis=0))
    if k_meta < len(rows):  # a share is a count of the voters, rounded up
        for share in (k_meta / len(rows), (k_meta - 0.5) / len(rows)):
            assert scores_of(samples, "meta_topk", k_meta=share) == scores_of(samples, "meta_topk", k_meta=k_meta)
    half = scores_of(samples, "meta_topk", k_meta=math.ceil(len(rows) / 2))
    assert scores_of(samples, "meta_topk") == half
    chance = 1 / (1 + np.exp(-np.array(meta)))
    np.testing.assert_allclose(scores_of(samples, "meta_soft"), np.average(rows, axis=0, weights=chance), rtol=1e-9)


def test_of_equal_meta_scores_the_earlier_sample_is_kept():
    samples = [sample(2, (1, 2), 0.5), sample(0, (3, 4), 0.5), sample(1, (5, 6), 0.5)]
    assert scores_of(samples, "meta_topk", k_meta=1) == (3, 4)


def test_soft_meta_weights_survive_extreme_logits():
    samples = [sample(0, (9, 1), -2000.0), sample(1, (1, 9), -2001.0)]
    first = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(scores_of(samples, "meta_soft"), [9 * first + (1 - first), first + 9 * (1 - first)])


@laws
@given(ballots, st.sampled_from(["sum", "mean", "majority", "rank"]), st.randoms(use_true_random=False))
def test_a_vote_ignores_the_order_of_samples_and_follows_a_relabelling_of_responses(rows, policy, random):
    samples = [sample(i, row) for i, row in enumerate(rows)]
    shuffled = random.sample(samples, len(samples))
    assert decide(shuffled, policy=policy, seed=3, item_id="x") == decide(samples, policy=policy, seed=3, item_id="x")
    relabelling = random.sample(range(len(rows[0])), len(rows[0]))
    moved = [sample(i, [row[r] for r in relabelling]) for i, row in enumerate(rows)]
    before = scores_of(samples, policy)
    assert scores_of(moved, policy) == tuple(before[r] for r in relabelling)


@pytest.mark.parametrize("policy", POLICIES)
def test_only_ok_samples_vote(policy):
    rows = [(3, 9), (8, 2), (4, 6)]
    clean = [sample(i, row, float(i)) for i, row in enumerate(rows)]
    mixed = [failed(3), *clean, failed(4)]
    assert decide(mixed, policy=policy, seed=0, item_id="x") == decide(clean, policy=policy, seed=0, item_id="x")
    nothing = decide([failed(0), failed(1)], policy=policy, seed=0, item_id="x")
    assert (nothing.scores, nothing.best, nothing.ranking, nothing.used) == (None, None, (), 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_single_response_is_the_best(policy):
    verdict = decide([sample(0, (4,), 0.1), sample(1, (7,), 0.3)], policy=policy, seed=0, item_id="x")
    assert (verdict.best, verdict.ranking) == (0, (0,))


@laws
@given(ballots, st.data())
def test_a_vote_on_the_first_k_equals_a_judgement_that_only_has_k(rows, data):
    samples = [sample(i, row) for i, row in enumerate(rows)]
    k = data.draw(st.integers(1, len(rows)))
    whole = vote(unvoted(data.draw(st.permutations(samples))), k=k)
    alone = vote(unvoted(samples[:k]))
    assert (whole.scores, whole.best, whole.ranking, whole.k, whole.outcomes) == (
        alone.scores,
        alone.best,
        alone.ranking,
        alone.k,
        alone.outcomes,
    )
    assert vote(whole, k=len(rows)).scores == vote(unvoted(samples)).scores


@laws
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_a_ranking_is_best_first_and_of_all_responses(scores, seed):
    ranking = rank(scores, seed=seed, item_id="x")
    assert sorted(ranking) == list(range(len(scores)))
    assert [scores[response] for response in ranking] == sorted(scores, reverse=True)
    assert ranking == rank(scores, seed=seed, item_id="x")


def test_ties_fall_evenly_over_items():
    """Each of three tied of four responses wins a third of 900 items, within four standard deviations."""
    best = Counter(rank((5, 5, 3, 5), seed=0, item_id=f"item {i}")[0] for i in range(900))
    assert set(best) == {0, 1, 3}
    assert all(abs(count - 300) < 4 * math.sqrt(200) for count in best.values())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"policy": "max"}, "vote: 'max' is not known; use one of sum, mean, majority, rank, meta_topk, meta_soft"),
        ({"k": 4}, "item 'item': has 3 samples, k = 4 is asked; use 1..3"),
        ({"k": 0}, "k = 0 is asked; use 1..3"),
        ({"policy": "meta_topk", "k": 2, "k_meta": 3}, "k_meta = 3 does not fit k = 2; use 1..2"),
        ({"policy": "meta_topk", "k_meta": 0}, "k_meta = 0 does not fit k = 3"),
        ({"policy": "meta_topk", "k_meta": math.nan}, "k_meta = nan does not fit k = 3"),
        ({"policy": "meta_topk", "k_meta": math.inf}, "k_meta = inf does not fit k = 3"),
        (
            {"policy": "meta_topk", "k_meta": 1.5},
            "k_meta = 1.5 does not fit k = 3; use 1..3, or a share between 0 and 1",
        ),
        ({"k_meta": 2}, "k_meta: the vote 'sum' does not use it"),
    ],
)
def test_an_impossible_vote_is_refused(request_, message):
    with pytest.raises(UserError, match=message):
        vote(unvoted(TABLE_17), **request_)


@pytest.mark.parametrize("policy", ["meta_topk", "meta_soft"])
def test_a_meta_vote_without_meta_scores_is_refused(policy):
    samples = [sample(0, (1, 2), 0.5), sample(1, (3, 4))]
    with pytest.raises(UserError, match="item 'item': sample 1 has no meta score"):
        vote(unvoted(samples), policy=policy)


def test_an_item_that_was_never_sampled_stays_without_a_verdict():
    judgement = vote(unvoted((), {"prompt_too_long": 1}), k=8)
    assert (judgement.scores, judgement.best, judgement.k, judgement.outcomes) == (
        None,
        None,
        0,
        {"prompt_too_long": 1},
    )
