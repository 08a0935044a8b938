"""Laws of the curves over several judges: the figures of `evaluate.accuracy`, only faster, and honest differences."""

import dataclasses
import itertools

import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.evaluate.curve_plots import curve_figure, save_curve_plot
from grm_jax.evaluate.curve_report import Run, curve_report
from grm_jax.evaluate.curve_tables import summary, to_markdown
from grm_jax.evaluate.curves import SampleTable, draw
from grm_jax.evaluate.intervals import bootstrap_interval, bootstrap_intervals
from grm_jax.evaluate.protocol import FAILURES, TIES, Protocol, subsets
from grm_jax.judge.tally import POLICIES
from grm_jax.keys import generator
from tests.evaluate.slow_values import slow_values
from tests.evaluate.stored_items import judged

SAMPLES = 6


def is_right(scores, label, n):
    if n == 1:
        return scores[0] == label
    return scores[label] > max(score for i, score in enumerate(scores) if i != label)


def coarse(count, seed=0, skill=0.0, scored=True):
    """Items of 1 to 4 responses with scores so coarse that ties are frequent, some unreadable, some meta scores equal."""
    rng = generator("test", "curves", seed)
    entries = []
    for i in range(count):
        n = int(rng.integers(1, 5))
        label = int(rng.integers(n))
        rows, meta = [], []
        for _ in range(SAMPLES):
            scores = rng.integers(4, 7, n)
            scores[label] += rng.random() < skill
            rows.append(None if rng.random() < 0.25 else scores.tolist())
            meta.append(float(rng.integers(0, 3)) if scored and rows[-1] else None)
        entries.append(judged(f"i{i}", rows, label if n > 1 else 5, n=n, meta=meta))
    entries.append(judged("unlabelled", [(5, 6)] * SAMPLES, None, meta=[0.0] * SAMPLES))
    entries.append(judged("too long", [], 1, outcomes={"prompt_too_long": 1}))
    return entries


@pytest.fixture(scope="module")
def entries():
    return coarse(60)


def counted(entries):
    return [entry for entry in entries if entry.n > 1 and entry.label is not None]


@pytest.mark.parametrize("k", range(1, SAMPLES + 1))
@pytest.mark.parametrize(
    ("vote", "k_meta"), [*((vote, None) for vote in POLICIES), ("meta_topk", 1), ("meta_topk", 2), ("meta_topk", 0.7)]
)
@pytest.mark.parametrize("count", [0, 4, 50])
def test_values_are_those_of_a_vote_on_each_subset(entries, k, vote, k_meta, count):
    if k_meta and k < k_meta:
        return
    protocol = Protocol(vote=vote, k_meta=k_meta, subsets=count, seed=3)
    labelled = counted(entries)
    slow = slow_values(labelled, k, protocol)
    table = SampleTable(labelled)
    fast = table.values(k, protocol)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    assert table.ids == [entry.judgement.id for entry in labelled]
    if vote != "meta_soft":
        assert slow[1].sum() > 0
    assert slow[2].sum() > 0
    shared = table.values(k, protocol, drawn=draw(table.counts, k, protocol))
    np.testing.assert_array_equal(shared, fast)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("failures", FAILURES)
def test_ties_and_failures_are_worth_what_they_are_in_each_vote(entries, ties, failures):
    for vote in ("sum", "majority"):
        protocol = Protocol(vote=vote, ties=ties, failures=failures, subsets=6, seed=1)
        fast = SampleTable(counted(entries)).values(3, protocol)
        np.testing.assert_allclose(fast, slow_values(counted(entries), 3, protocol), rtol=0, atol=1e-12)


def test_items_may_have_different_numbers_of_samples(entries):
    mixed = [*counted(entries), judged("short", [(5, 6), (6, 5), (4, 4)], 0, meta=[0.1, 0.2, 0.3])]
    protocol = Protocol(subsets=20)
    np.testing.assert_allclose(SampleTable(mixed).values(2, protocol), slow_values(mixed, 2, protocol), atol=1e-12)
    with pytest.raises(UserError, match="item 'short': has 3 samples, k = 4 is asked"):
        SampleTable(mixed).values(4, protocol)


def test_one_sample_is_the_mean_over_all_samples(entries):
    for protocol in (Protocol(subsets=1), Protocol(subsets=500)):
        values = SampleTable(entries).values(1, protocol)
        for item_id, value in zip(SampleTable(entries).ids, values.accuracy, strict=True):
            if item_id == "unlabelled":
                continue
            (entry,) = (entry for entry in entries if entry.judgement.id == item_id)
            worth = []
            for sample in entry.judgement.samples:
                top = [] if sample.scores is None else [s == max(sample.scores) for s in sample.scores]
                worth.append(top[entry.label] / sum(top) if top else 0.0)
            assert value == pytest.approx(np.mean(worth) if worth else 0.0)


def test_where_there_are_few_subsets_all_are_taken():
    protocol = Protocol(subsets=15, seed=1)
    assert [tuple(pick) for pick in subsets("i", 6, 2, protocol)] == list(itertools.combinations(range(6), 2))
    some = subsets("i", 6, 3, protocol)
    assert some.shape == (15, 3) and (np.diff(some) > 0).all()
    assert subsets("i", 6, 1, Protocol(subsets=2)).tolist() == [[i] for i in range(6)]


def test_random_subsets_hold_every_sample_and_every_pair_equally_often():
    """Of 300 items' 40 subsets of 3 of 8 samples: each pair is in 3/28 of them, within five standard deviations."""
    pairs = np.zeros((8, 8))
    for item in range(300):
        picks = subsets(f"i{item}", 8, 3, Protocol(subsets=40))
        assert picks.shape == (40, 3) and (np.diff(picks) > 0).all()
        for first, second in ((0, 1), (0, 2), (1, 2)):
            np.add.at(pairs, (picks[:, first], picks[:, second]), 1)
    counts = pairs[np.triu_indices(8, 1)]
    expected = 300 * 40 * 3 / 28
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_what_cannot_be_voted_is_refused(entries):
    table = SampleTable(entries)
    for k, protocol, message in (
        (7, Protocol(), "has 6 samples, k = 7 is asked"), (0, Protocol(), "k = 0 is asked"),
        (2, Protocol(vote="loudest"), "'loudest' is not known; use one of sum, mean"),
        (2, Protocol(k_meta=2), "the vote 'sum' does not use it"),
        (2, Protocol(vote="meta_topk", k_meta=3), "k_meta = 3 does not fit k = 2"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            table.values(k, protocol)
    for vote in ("meta_topk", "meta_soft"):
        with pytest.raises(UserError, match=f"has no meta score, which the vote '{vote}' needs"):
            SampleTable(coarse(9, scored=False)).values(2, Protocol(vote=vote))


def test_judges_are_compared_where_all_items_have_the_same_number_of_samples(entries):
    short = judged("short", [(5, 6), (6, 5)], 0, meta=[0.0, 0.0])
    with pytest.raises(UserError, match="items have 2 to 6 samples"):
        curve_report([Run("base", 0.5, [*entries, short])], (1,), {}, is_right)
    with pytest.raises(UserError, match="no labelled item has samples"):
        curve_report([Run("base", 0.5, entries[-1:])], (1,), {}, is_right)


def test_unread_critiques_are_counted_with_items_that_were_never_sampled():
    entries = [judged("a", [(5, 6), None], 1), judged("b", [], 1, outcomes={"prompt_too_long": 1})]
    assert SampleTable(entries).unread == 0.75


def test_intervals_of_columns_are_those_of_each_and_pairs_are_paired():
    rng = generator("test", "columns")
    first = rng.random(300)
    noise = rng.normal(0, 0.3, 300)
    values = np.stack([first, first + 0.1, first + noise], axis=1)
    together = bootstrap_intervals(np.column_stack([values, values[:, 1] - values[:, 0]]), seed=1)
    for column, found in zip(values.T, together, strict=False):
        alone = bootstrap_interval(column, seed=1)
        assert found.mean == pytest.approx(alone.mean, abs=1e-12) and found.count == 300
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    assert (together[3].low, together[3].high) == pytest.approx((0.1, 0.1))  # a difference that is the same everywhere
    assert bootstrap_intervals(values, seed=1) == together[:3] and bootstrap_intervals(values, seed=2) != together[:3]
    with pytest.raises(ValueError, match="at least one item"):
        bootstrap_intervals(np.zeros((0, 2)), seed=0)


def greedy(entries):
    """The first sample of each item alone."""
    return [
        dataclasses.replace(entry, judgement=dataclasses.replace(entry.judgement, samples=entry.judgement.samples[:1]))
        for entry in entries
    ]


@pytest.fixture(scope="module")
def report():
    """A judge, one that is better, and the better one's scores; the better one knows half of the items well."""
    runs = []
    for name, skill in (("base", 0.1), ("rft", 0.6)):
        for temperature in (0.0, 0.5, 1.0):
            entries = coarse(200, skill=skill)
            runs.append(Run(name, temperature, entries if temperature else greedy(entries)))
    held_out = frozenset(f"i{i}" for i in range(0, 200, 2))
    return curve_report(iter(runs), (1, 2, 6, 32), {"held_out": held_out, "none": frozenset({"x"})}, is_right, seed=4)


def rows(report, part, **wanted):
    return [row for row in report[part] if all(row[name] == value for name, value in wanted.items())]


def test_a_report_has_every_point_once_with_the_figures_of_its_run(report):
    points = [(row["judge"], row["temperature"], row["vote"], row["k"], row["group"]) for row in report["points"]]
    assert len(set(points)) == len(points) == 2 * (1 + 2 * 2 * 3) * 2
    assert report["items"].keys() == {"all", "held_out"}
    (row,) = rows(report, "points", judge="rft", temperature=1.0, vote="meta", k=2, group="held_out")
    entries = [e for e in coarse(200, skill=0.6) if e.judgement.id[1:].isdecimal() and not int(e.judgement.id[1:]) % 2]
    slow = slow_values(counted(entries), 2, Protocol(vote="meta_topk", subsets=64, seed=4)).mean(axis=1)
    assert (row["mean"], row["tied"], row["failed"]) == pytest.approx(tuple(slow), abs=1e-12)
    assert row["count"] == len(counted(entries)) == report["items"]["held_out"]
    assert row["low"] < row["mean"] < row["high"]
    (first,) = rows(report, "points", judge="rft", temperature=0.0, group="all")
    assert (first["vote"], first["k"]) == ("greedy", 1)


def test_differences_are_those_of_the_points_and_narrower_than_their_intervals(report):
    by_point = {(r["judge"], r["temperature"], r["vote"], r["k"], r["group"]): r for r in report["points"]}
    for row in report["differences"]:
        a, b = (by_point[(*row[side].values(), row["group"])] for side in ("what", "less"))
        assert row["mean"] == pytest.approx(a["mean"] - b["mean"], abs=1e-12)
    kinds = {kind: rows(report, "differences", kind=kind, group="all") for kind in ("stage", "voting", "meta")}
    assert [len(found) for found in kinds.values()] == [1 + 2 * 3, 2 * 2, 2 * 2 * 2]
    stages = {(row["what"]["vote"], row["what"]["k"]) for row in kinds["stage"]}
    assert stages == {("greedy", 1), ("voting", 1), ("voting", 6), ("meta", 6)}
    for row in kinds["stage"]:
        assert (row["what"]["judge"], row["less"]["judge"]) == ("rft", "base")
        assert row["low"] > 0  # the better judge is better
        wide = by_point[(*row["what"].values(), "all")]
        assert row["high"] - row["low"] < 1.2 * (wide["high"] - wide["low"])
    assert {(row["what"]["k"], row["less"]["k"]) for row in kinds["voting"]} == {(6, 1)}
    assert {(row["what"]["vote"], row["less"]["vote"]) for row in kinds["meta"]} == {("meta", "voting")}


def test_runs_say_what_was_not_read_and_how_good_meta_scores_are(report):
    run = next(run for run in report["runs"] if (run["judge"], run["temperature"]) == ("rft", 0.5))
    assert run["unread"] == pytest.approx(SampleTable(counted(coarse(200, skill=0.6))).unread)
    assert run["meta"].keys() == {"all", "held_out"}
    assert run["meta"]["all"]["within_item_auc"]["mean"] == pytest.approx(0.5, abs=0.1)  # drawn without regard to truth


def test_without_meta_scores_no_vote_is_guided():
    found = curve_report([Run("base", 0.5, coarse(30, scored=False))], (1, 6), {}, is_right)
    assert {row["vote"] for row in found["points"]} == {"voting"} and found["runs"][0]["meta"] == {}
    assert "MetaRM |" not in to_markdown(found) and "## Meta scores" not in to_markdown(found)


def test_k_meta_is_kept_and_smaller_k_have_no_guided_vote():
    entries = coarse(30)
    found = curve_report([Run("base", 0.5, entries)], (1, 2, 6), {}, is_right, k_meta=2)
    assert [row["k"] for row in found["points"] if row["vote"] == "meta"] == [2, 6]
    slow = slow_values(counted(entries), 6, Protocol("meta_topk", 2))
    assert found["points"][-1]["mean"] == pytest.approx(slow[0].mean())


def test_judges_are_compared_on_the_same_items_or_not_at_all():
    runs = [Run("base", 0.5, coarse(30)), Run("rft", 0.5, coarse(31))]
    with pytest.raises(UserError, match=r"rft at 0.5 was judged on other items"):
        curve_report(runs, (1,), {}, is_right)
    with pytest.raises(UserError, match="no run"):
        curve_report([], (1,), {}, is_right)


def test_the_text_has_the_figures_and_the_plot_every_curve(report, tmp_path):
    text = to_markdown(report | {"minutes": {"base": 12.34}}, ["curve.png"])
    (row,) = rows(report, "points", judge="rft", temperature=0.5, vote="voting", k=6, group="all")
    assert f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" in text
    assert "| base | 12.3 |" in text and "![curve](curve.png)" in text
    assert f"## Held out: {report['items']['held_out']} items" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    blocks = [list(lines) for _, lines in itertools.groupby(tables, lambda line: line.count("|"))]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    assert f"{100 * row['mean']:.1f}" in next(
        line for line in summary(report).splitlines() if line.split()[:3] == ["rft", "0.5", "Voting"]
    )
    figure = curve_figure(report, "all")
    assert [axes.get_title() for axes in figure.axes] == ["temperature 0.5", "temperature 1"]
    line = next(line for line in figure.axes[0].lines if 100 * row["mean"] in line.get_ydata())
    assert list(line.get_xdata()) == [1, 2, 6]
    save_curve_plot(tmp_path / "curve.png", report, "held_out")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no group 'x'; it has all, held_out"):
        curve_figure(report, "x")
