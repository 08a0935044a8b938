"""What a question is worth: votes by game, ties and failures by name, and which critiques `resample` asks for."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest

from grm_jax.benchmarks.benchmark import PAPER, Case
from grm_jax.benchmarks.evaluation import chosen, evaluate, still_wanted, to_json
from grm_jax.benchmarks.policies import DRAWS, FAILURES, RESAMPLE, Policies, credit, item_votes, missing_draws
from grm_jax.benchmarks.registry import BENCHMARKS
from grm_jax.benchmarks.table import lines, notes
from grm_jax.data.records import Item, Sample, Turn
from grm_jax.errors import UserError
from grm_jax.evaluate.protocol import TIES
from grm_jax.judge.orders import order


def sample(index, scores, shown=(0, 1)):
    return Sample(
        index=index, order=shown, text="", scores=scores, outcome="no_block" if scores is None else "ok", tokens=1,
        logprob=None, seed=0,
    )  # fmt: skip


def samples(*scores, item_id="i"):
    return [sample(index, each, order(0, item_id, 2, index)) for index, each in enumerate(scores)]


def votes(given, k, failures="wrong", n=2, count=1, vote="sum"):
    return item_votes(given, n, k, Policies("strict", failures, vote), count=count, seed=0, item_id="i")


@pytest.mark.parametrize(("ties", "worth"), [("expected", 1 / 3), ("half", 0.5), ("strict", 0.0)])
def test_a_tie_is_worth_what_its_policy_says(ties, worth):
    assert credit((7, 7, 3, 7), 0, 4, Policies(ties), seed=0, item_id="i") == worth
    assert credit((7, 6, 3, 6), 0, 4, Policies(ties), seed=0, item_id="i") == 1
    assert credit((7, 7, 3, 7), 2, 4, Policies(ties), seed=0, item_id="i") == 0


def test_shuffle_argmax_is_right_as_often_as_expected_says_and_always_the_same():
    def worth(best, item):
        return credit((7, 7, 3, 7), best, 4, Policies("shuffle_argmax"), seed=0, item_id=str(item))

    for item in range(50):
        assert sorted(worth(best, item) for best in (0, 1, 3)) == [0, 0, 1]
        assert worth(0, item) == worth(0, item)
    assert np.mean([worth(0, item) for item in range(2000)]) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize(("failures", "worth"), [("wrong", 0.0), ("chance", 0.25), ("resample", 0.0)])
def test_an_item_without_verdict_is_worth_what_its_policy_says(failures, worth):
    assert credit(None, 0, 4, Policies("half", failures), seed=0, item_id="i") == worth


def test_every_policy_is_known_by_name_and_no_other():
    assert FAILURES == ("wrong", "chance", "resample")
    assert [Policies(ties, failures) for ties, failures in itertools.product(TIES, FAILURES)]
    for wrong in ({"ties": "coin"}, {"failures": "skip"}, {"vote": "loudest"}):
        with pytest.raises(UserError, match="is not known here; use one of"):
            Policies(**{"ties": "half", **wrong})
    with pytest.raises(UserError, match="the vote 'sum' does not use it"):
        Policies("half", k_meta=2)


def test_k_critiques_vote_and_those_that_cannot_be_read_abstain():
    given = samples((9, 1), None, (2, 3), (1, 9))
    assert votes(given, 1) == ((9, 1),)
    assert votes(given, 2) == ((9, 1),)
    assert votes(given, 4) == ((12, 13),)
    assert votes(samples(None, None), 2) == (None,)
    assert votes([], 2) == (None,) and votes([], 2, count=2) == (None, None)
    with pytest.raises(UserError, match="has 4 samples, k = 5 is asked"):
        votes(given, 5)


def test_resample_lets_the_first_k_readable_ones_of_4k_vote():
    given = samples(None, (9, 1), None, (2, 3), (1, 9))
    assert votes(given, 1, RESAMPLE) == ((9, 1),)
    assert votes(given, 2, RESAMPLE) == ((11, 4),)
    assert votes(samples(None, None, None, None, (9, 1)), 1, RESAMPLE) == (None,)
    assert DRAWS == 4


@pytest.mark.parametrize(("read", "k", "more"), [("1", 1, 0), ("0", 1, 1), ("0101", 2, 0), ("0100", 2, 1), ("0000", 1, 0),
                                                 ("00000000", 2, 0), ("0000000", 2, 1), ("000", 4, 4)])  # fmt: skip
def test_resample_draws_what_is_lacking_until_4k(read, k, more):
    assert missing_draws(samples(*[(9, 1) if each == "1" else None for each in read]), k, 1) == more


def test_resampling_ends_and_depends_on_what_is_stored_alone():
    rng = np.random.default_rng(0)
    benchmark = BENCHMARKS["judgebench"]
    items = [Item(f"i{i}", (Turn("user", "q"),), ("a", "b"), 0) for i in range(30)]
    truth = {item.id: [None if rng.random() < 0.6 else (9, 1) for _ in range(200)] for item in items}
    for k in (1, 3):
        drawn = {item.id: 2 * k for item in items}

        def stored(item_id, drawn=drawn):
            return samples(*truth[item_id][: drawn[item_id]], item_id=item_id)

        while wanted := still_wanted(items, stored, k, benchmark):
            for total, some in wanted.items():
                for item in some:
                    assert total > drawn[item.id]
                    drawn[item.id] = total
        for item in items:
            assert drawn[item.id] <= 2 * DRAWS * k
            decided = item_votes(stored(item.id), 2, k, Policies("own", RESAMPLE), count=2, seed=0, item_id=item.id)
            assert all(decided) or drawn[item.id] == 2 * DRAWS * k


def test_two_games_hold_the_samples_of_one_order_each():
    given = samples(*[(first, 5) for first in range(1, 9)])
    by_order = [[s.scores[0] for s in given if s.order == shown] for shown in ((0, 1), (1, 0))]
    for k in (1, 2, 4):
        assert votes(given[: 2 * k], k, count=2) == tuple((sum(found[:k]), 5 * k) for found in by_order)


def test_a_single_response_has_its_mean_score():
    given = [sample(0, (8,), (0,)), sample(1, None, (0,)), sample(2, (5,), (0,))]
    assert votes(given, 3, n=1) == ((6.5,),)
    assert votes(given, 3, n=1, vote="majority") == ((6.5,),)


def scored(*pairs, n=2):
    """Samples with (scores, meta score) each."""
    given = [sample(i, scores, tuple(range(n))) for i, (scores, _) in enumerate(pairs)]
    return [dataclasses.replace(each, meta_score=meta) for each, (_, meta) in zip(given, pairs, strict=True)]


def guided(given, k, n=2, failures="wrong", vote="meta_topk", k_meta=None, count=1):
    return item_votes(given, n, k, Policies("strict", failures, vote, k_meta), count=count, seed=0, item_id="i")


def test_a_guided_vote_keeps_the_critiques_the_meta_model_ranks_highest():
    given = scored(((9, 1), -2.0), ((2, 8), 3.0), ((4, 6), 1.0), (None, None))
    assert guided(given, 3, k_meta=1) == ((2, 8),)
    assert guided(given, 3) == guided(given, 4) == ((6, 14),)  # half of three, rounded up
    assert guided(given, 3, k_meta=3) == votes(given, 3)
    weights = 1 / (1 + np.exp(-np.array([-2.0, 3.0, 1.0])))
    soft = guided(given, 3, vote="meta_soft")[0]
    assert soft == pytest.approx(weights @ np.array([[9, 1], [2, 8], [4, 6]]) / weights.sum())
    with pytest.raises(UserError, match="has no meta score"):
        guided(samples((9, 1)), 1)


def test_a_guided_single_response_has_the_mean_of_what_is_kept():
    given = scored(((9,), -2.0), ((2,), 3.0), ((5,), 1.0), n=1)
    assert guided(given, 3, n=1, k_meta=2) == ((3.5,),) and guided(given, 3, n=1, k_meta=1) == ((2.0,),)
    assert guided(given, 3, n=1, k_meta=3) == votes(given, 3, n=1)


def test_where_resample_finds_fewer_critiques_than_are_kept_all_of_them_are():
    given = scored((None, None), ((9, 1), 0.5), (None, None), (None, None))
    assert guided(given, 1, failures=RESAMPLE, k_meta=1) == ((9, 1),)
    assert guided(scored(*[(None, None)] * 8), 2, failures=RESAMPLE, k_meta=2) == (None,)
    assert guided(scored(((9, 1), 0.5), *[(None, None)] * 7), 2, failures=RESAMPLE, k_meta=2) == ((9, 1),)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_names_the_policies_of_published_figures(name):
    benchmark = BENCHMARKS[name]
    if name != "arena":
        assert benchmark.published
    if name in ("rewardbench", "ppe_preference", "ppe_correctness", "rmb"):
        assert benchmark.published[PAPER] == Policies("shuffle_argmax", "wrong")


def evaluation(**changes):
    """Ten pairs of the arena, two critiques each: seven right, two tied, one unreadable."""
    benchmark = BENCHMARKS["arena"]
    cases = [Case(str(i), "seen", (Item(str(i), (Turn("user", "q"),), ("a", "b"), 0),)) for i in range(10)]
    scores = [[(9, 1), (8, 2)]] * 7 + [[(5, 5), (6, 6)]] * 2 + [[None, None]]
    stored = {case.id: samples(*each, item_id=case.id) for case, each in zip(cases, scores, strict=True)}
    policies = Policies(**{"ties": "expected", "failures": "wrong", **changes})
    about = {"run": {"model": "m"}, "data": "d", "absent": (), "cases_there": 12}
    return evaluate(benchmark, cases, stored.__getitem__, [2, 1], policies, seed=0, **about)


def test_an_evaluation_tells_figures_rates_and_how_they_came_about():
    found = evaluation()
    assert [row.k for row in found.rows] == [1, 2]
    for row in found.rows:
        assert row.figures["overall"].mean == pytest.approx(float(Fraction(7 + 1, 10)))
        assert (row.tied, row.failed) == (0.2, 0.1)
    assert evaluation(ties="strict", failures="chance").rows[0].figures["overall"].mean == pytest.approx(0.75)
    record = to_json(found)
    assert record["policies"] == {"ties": "expected", "failures": "wrong", "vote": "sum", "k_meta": None}
    assert record["run"] == {"model": "m"}
    assert record["outcomes"] == {"ok": 18, "no_block": 2}
    assert (record["cases"], record["cases_there"]) == (10, 12)


def test_the_first_place_rate_is_that_of_the_response_shown_first():
    rows = evaluation().rows
    for row in rows:
        shown = [order(0, str(i), 2, index) for i in range(7) for index in range(row.k)]
        ties = 2 * row.k
        expected = (sum(each[0] == 0 for each in shown) + ties / 2) / (len(shown) + ties)
        assert row.first_place == pytest.approx(expected)


def test_the_table_names_policies_and_calls_a_part_a_part():
    found = evaluation()
    assert dict(lines(found))["overall"] == ["80.0", "80.0"]
    text = "\n".join(notes(found))
    assert "vote sum, ties expected, failures wrong, as in no published figure" in text
    assert "PARTIAL: 10 of 12 questions, by --limit" in text


def test_a_larger_limit_keeps_the_questions_of_a_smaller_one():
    cases = [Case(str(i), "g", ()) for i in range(100)]
    for few, more in ((1, 2), (10, 60), (60, 100)):
        assert {case.id for case in chosen(cases, few)} < {case.id for case in chosen(cases, more)}
        assert len(chosen(cases, few)) == few
    assert chosen(cases, None) == chosen(cases, 500) == cases
    assert max(int(case.id) for case in chosen(cases, 10)) > 50  # spread, not the first ones
