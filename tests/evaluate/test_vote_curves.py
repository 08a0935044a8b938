"""Laws of inference-time scaling from one store: what no vote and no subset may change, and what a baseline is."""

import dataclasses
import itertools

import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.evaluate.cost import cost
from grm_jax.evaluate.curves import SampleTable
from grm_jax.evaluate.intervals import bootstrap_intervals
from grm_jax.evaluate.plots import scaling_figure
from grm_jax.evaluate.protocol import Protocol
from grm_jax.evaluate.vote_curves import check_greedy, vote_curves, votes
from grm_jax.evaluate.vote_tables import accuracy_table, cost_notes, cost_table, gain_table, to_text
from grm_jax.judge.run_times import CRITIQUES, META_SCORES, Spent
from grm_jax.judge.voting import decide
from grm_jax.keys import generator
from tests.evaluate.stored_items import judged

SAMPLES = 8
KS = (1, 2, 4, 8)


def drawn(count, seed=0, samples=SAMPLES, unread=0.2):
    """Items of 2 to 4 responses whose scores tie often, some unreadable; meta scores all differ."""
    rng = generator("test", "vote curves", seed)
    entries = []
    for i in range(count):
        n = int(rng.integers(2, 5))
        rows = [None if rng.random() < unread else rng.integers(3, 8, n).tolist() for _ in range(samples)]
        meta = [float(rng.normal()) if row else None for row in rows]
        entries.append(judged(f"i{i}", rows, int(rng.integers(n)), n=n, meta=meta))
    return entries


@pytest.fixture(scope="module")
def entries():
    return drawn(40)


@pytest.fixture(scope="module")
def curves(entries):
    return vote_curves(entries, KS, Protocol(subsets=30))


def means(curves):
    return {(c["vote"], c["k_meta"], p["k"]): p["mean"] for c in curves["curves"] for p in c["points"]}


def exact(entry, k, vote, k_meta):
    """The expectation over every k-subset, each voted on alone."""
    worths = []
    for picked in itertools.combinations(entry.judgement.samples, k):
        scores = decide(picked, policy=vote, k_meta=k_meta, seed=0, item_id=entry.judgement.id).scores
        best = [] if scores is None else [i for i, score in enumerate(scores) if score == max(scores)]
        worths.append((entry.label in best) / len(best) if best else 0.0)
    return np.mean(worths)


@pytest.mark.parametrize(("vote", "k_meta"), votes(4, True))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_all_subsets_give_the_exact_expectation_and_random_ones_come_close(vote, k_meta, k):
    if k_meta is not None and k_meta > k:
        return
    few = drawn(12, seed=5)
    wanted = [exact(entry, k, vote, k_meta) for entry in few]
    everything = SampleTable(few).values(k, Protocol(vote=vote, k_meta=k_meta, subsets=70))
    np.testing.assert_allclose(everything.accuracy, wanted, rtol=0, atol=1e-12)
    some = SampleTable(few).values(k, Protocol(vote=vote, k_meta=k_meta, subsets=27))
    assert abs(some.accuracy.mean() - np.mean(wanted)) < 0.04


def test_at_all_samples_nothing_is_drawn(entries):
    at_all = [
        means(vote_curves(entries, (SAMPLES,), Protocol(subsets=r, seed=s))) for r, s in ((0, 0), (5, 1), (64, 2))
    ]
    assert at_all[0] == at_all[1] == at_all[2]


def test_one_critique_is_the_same_under_every_vote(curves):
    at_one = {name: mean for name, mean in means(curves).items() if name[2] == 1}
    assert {vote for vote, _, _ in at_one} == {"sum", "mean", "majority", "rank", "meta_topk", "meta_soft"}
    assert set(at_one.values()) == {curves["one"]["mean"]}


def test_mean_is_sum_and_keeping_all_critiques_is_no_guidance(curves):
    found = means(curves)
    for k in KS:
        assert found["mean", None, k] == found["sum", None, k] == found["meta_topk", float(k), k]
    assert found["meta_topk", 0.5, 8] != found["sum", None, 8] != found["majority", None, 8]


def test_half_keeps_half_of_the_voters_and_further_k_meta_are_added(entries):
    whole = drawn(30, unread=0.0)
    found = means(vote_curves(whole, KS, Protocol(subsets=9, k_meta=3.0)))
    for k in (2, 4, 8):
        assert found["meta_topk", 0.5, k] == found["meta_topk", k / 2, k]
    assert {k for vote, k_meta, k in found if k_meta == 3.0} == {4, 8}


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Two responses, a critique right with probability p, p from Beta(2, 1): three of six win with E[3 p^2 - 2 p^3] = 0.7."""
    rng = generator("test", "coverage")
    covered = 0
    for _ in range(300):
        chances = rng.beta(2, 1, 60)
        entries = [
            judged(f"i{i}", [(9, 1) if right else (1, 9) for right in rng.random(6) < p], 0)
            for i, p in enumerate(chances)
        ]
        values = SampleTable(entries).values(3, Protocol(subsets=20))
        (estimate,) = bootstrap_intervals(values.accuracy[:, None], seed=0, resamples=1000)
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.91 <= covered / 300 <= 0.985


def test_without_labels_there_are_no_curves_and_without_meta_scores_none_is_guided(entries):
    assert vote_curves([dataclasses.replace(entry, label=None) for entry in entries], KS, Protocol()) is None
    assert vote_curves([judged("one", [(5,)], 5, n=1)], (1,), Protocol()) is None
    plain = vote_curves([judged("a", [(5, 6), (6, 5)], 1)], (1, 2), Protocol())
    assert [curve["vote"] for curve in plain["curves"]] == ["sum", "mean", "majority", "rank"] and not plain["guided"]
    text = to_text(plain)
    assert "not all critiques have meta scores; make them with `grm meta-score`" in text
    assert "greedy: no run at temperature 0 is given; run the command that made this run with `--temperature 0" in text
    assert "greedy: no run" not in to_text(vote_curves([judged("a", [(5, 6)], 1)], (1,), Protocol(), temperature=0.0))


def greedy_of(entries):
    return [judged(e.judgement.id, [(9, *[1] * (e.n - 1))], e.label, n=e.n) for e in entries]


def test_the_greedy_baseline_is_that_of_the_other_run_and_gains_are_paired(entries):
    greedy = greedy_of(entries)
    found = vote_curves(entries, KS, Protocol(subsets=30), greedy=greedy)
    right = np.array([float(entry.label == 0) for entry in entries])
    assert found["greedy"]["mean"] == pytest.approx(right.mean()) and found["greedy"]["tokens"] == 1
    for curve in found["curves"]:
        for point in curve["points"]:
            for name in ("one", "greedy"):
                assert point[f"over_{name}"]["mean"] == pytest.approx(point["mean"] - found[name]["mean"], abs=1e-12)
    protocol = Protocol(subsets=30)
    gaps = SampleTable(entries).values(8, protocol).accuracy - right
    (paired,) = bootstrap_intervals(gaps[:, None], seed=0)
    last = next(c for c in found["curves"] if c["vote"] == "sum")["points"][-1]
    assert last["over_greedy"]["low"] == pytest.approx(paired.low, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {"temperature": 0.5}}, "was sampled at temperature 0.5, not 0"),
        ({"policy": None}, "was sampled at temperature None, not 0"),
        ({"model": "other"}, "its model is 'other', that of the sampled run 'm'"),
        ({"template": "other"}, "its template is 'other'"),
    ],
)
def test_a_greedy_run_of_another_judge_is_refused(entries, change, message):
    identity = {"model": "m", "template": "t", "policy": {"temperature": 1.0}}
    other = {**identity, "policy": {"temperature": 0.0}, **change}
    with pytest.raises(UserError, match=message):
        check_greedy(entries, greedy_of(entries), identity, other, "run2")


def test_a_greedy_run_of_other_items_is_refused(entries):
    identity = {"model": "m", "template": "t", "policy": {"temperature": 0.0}}
    greedy = greedy_of(entries)
    assert [e.judgement.id for e in check_greedy(entries, greedy[::-1], identity, identity, "g")] == [
        e.judgement.id for e in entries
    ]
    with pytest.raises(UserError, match="g: lacks item 'i0'"):
        check_greedy(entries, greedy[1:], identity, identity, "g")
    changed = [dataclasses.replace(greedy[0], label=1 - (greedy[0].label > 0)), *greedy[1:]]
    with pytest.raises(UserError, match="item 'i0' has other responses or another label"):
        check_greedy(entries, changed, identity, identity, "g")


def test_seconds_are_measured_at_the_k_of_the_run_and_derived_below():
    entries = [judged(f"i{i}", [(5, 6)] * 4, 0, meta=[0.1] * 4) for i in range(10)]
    times = {CRITIQUES: Spent(40, 40, 20.0), META_SCORES: Spent(40, 0, 4.0)}
    rows = cost(entries, (1, 2, 4), times)["by_k"]
    assert [(row["tokens"], row["seconds"], row["measured"]) for row in rows] == [
        (1.0, 0.5, False), (2.0, 1.0, False), (4.0, 2.0, True)
    ]  # fmt: skip
    assert [row["meta_seconds"] for row in rows] == pytest.approx([0.1, 0.2, 0.4])
    assert [row["meta_measured"] for row in rows] == [False, False, True]
    found = cost(entries, (4,), {CRITIQUES: Spent(20, 20, 10.0), META_SCORES: Spent(20, 0, 4.0)})
    assert (found["timed"], found["by_k"][0]["seconds"], found["by_k"][0]["measured"]) == (0.5, 2.0, False)
    assert found["by_k"][0]["meta_seconds"] is None  # half of the scores were made elsewhere
    assert "of the 50% of critiques that were timed" in cost_notes(found)[1]
    untimed = cost(entries, (4,))
    assert untimed["by_k"][0]["seconds"] is None and cost_notes(untimed)[1] == "seconds: this run was not timed"
    assert cost([judged("a", [], 0, outcomes={"prompt_too_long": 1})], (1,)) is None
    assert [row[2] for row in cost_table({"by_k": rows})[1]] == ["~0.5", "~1", "2"]
    assert [row[3] for row in cost_table({"by_k": rows})[1]] == ["~0.1", "~0.2", "0.4"]


def test_tables_and_plots_show_every_vote_and_both_baselines(entries, curves):
    head, rows = accuracy_table(curves)
    assert head == ["vote", "k = 1", "k = 2", "k = 4", "k = 8"]
    names = [row[0] for row in rows]
    assert names[:2] == ["greedy", "one sampled critique"] and "meta_topk 0.5" in names and names[-1] == "meta_soft"
    last = means(curves)["meta_soft", None, 8]
    assert rows[-1][-1].startswith(f"{100 * last:.1f} (")
    assert [row[0] for row in gain_table(curves)[1]] == names[2:] and {row[3] for row in gain_table(curves)[1]} == {"-"}
    with_greedy = vote_curves(entries, KS, Protocol(subsets=30), greedy=greedy_of(entries))
    by_k, by_tokens = scaling_figure(with_greedy).axes
    assert [text.get_text() for text in by_k.get_legend().get_texts()] == [
        "sum", "majority", "rank", "meta_topk 0.5", "meta_soft", "greedy", "one sampled critique"
    ]  # fmt: skip
    assert list(by_k.lines[0].get_xdata()) == [1, 2, 4, 8] and list(by_tokens.lines[0].get_xdata()) == [1, 2, 4, 8]
    assert by_tokens.lines[-1].get_ydata() == pytest.approx([100 * with_greedy["greedy"]["mean"]])
    text = to_text(with_greedy)
    assert all(f"\n{name} " in text for name in names) and ["k", "=", "8", "8", "-", "-"] in map(
        str.split, text.splitlines()
    )
