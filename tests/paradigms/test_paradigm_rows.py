"""From stored samples to the rows of the table, by hand: what is of which response, at which k."""

import dataclasses
import json

import numpy as np
import pytest

from grm_jax.data.parts import pairs, singles
from grm_jax.data.records import Item, Sample, Turn
from grm_jax.errors import UserError
from grm_jax.evaluate.paradigm_plots import paradigm_figure, size_figure
from grm_jax.evaluate.paradigm_report import paradigm_report, row_values
from grm_jax.evaluate.paradigm_tables import summary, to_markdown
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.run_folder import RunFolder
from grm_jax.paradigms.evaluation import shown_items
from grm_jax.paradigms.recipe import ROWS
from grm_jax.paradigms.report import baselines, stored_rows

ITEM = Item("i", (Turn("user", "which?"),), ("a", "bb", "cc"), 1)
BOTH, FIRST = np.ones((1, 2), bool), np.array([[True, False]])


def sample(index, scores, n, **about):
    return Sample(
        index=index, order=tuple(range(n)), text="x", scores=scores, outcome="ok" if scores else "no_block", tokens=5,
        logprob=-1.0, seed=0, **about,
    )  # fmt: skip


def store(path, parts, samples, meta=None):
    with RunFolder.open(path, {"model": "m", "template": "t", "seed": 0}) as folder:
        folder.add_items(parts)
        for part, mine in zip(parts, samples, strict=True):
            folder.append(part.id, mine)
            if meta:
                rewards = meta[part.id]
                scored = [dataclasses.replace(each, meta_score=rewards[each.index]) for each in mine if each.scores]
                folder.append_meta_scores(part.id, scored, "meta")


def test_rewards_are_those_of_the_responses(tmp_path):
    (tmp_path / "btrm.json").write_text(json.dumps({"i": [0.5, -1.0, 2.0]}))
    (row,) = stored_rows("btrm", "large", [ITEM], tmp_path, 2)
    assert (row.samples, row.ballots[0](FIRST[:, :1]).totals.tolist()) == (1, [[0.5, -1.0, 2.0]])


def test_pairs_in_both_orders_become_wins(tmp_path):
    """0 beats 1 in both orders; of 0 and 2 the first always wins, by more when it is 2; 1 loses to 2."""
    (tmp_path / "pairrm.json").write_text(json.dumps({"i": [[1.0, -1.0], [0.5, 2.0], [-3.0, 1.0]]}))
    (row,) = stored_rows("pairrm", "large", [ITEM], tmp_path, 2)
    assert row.ballots[0](FIRST[:, :1]).totals.tolist() == [[1.0, 0.0, 2.0]]


def test_critiques_of_one_response_are_its_rewards(tmp_path):
    read = [[(7,), (3,)], [(2,), None], [(9,), (9,)]]
    samples = [[sample(index, scores, 1) for index, scores in enumerate(mine)] for mine in read]
    meta = {"i#0": {0: 1.0, 1: 2.0}, "i#1": {0: 4.0}, "i#2": {0: -1.0, 1: 0.0}}
    store(tmp_path / "cloud", singles(ITEM), samples, meta)
    (row,) = stored_rows("cloud", "large", [ITEM], tmp_path, 2)
    assert row.ballots[0](BOTH).totals.tolist() == [[1.5, 4.0, -0.5]]
    assert row.ballots[0](FIRST).totals.tolist() == [[1.0, 4.0, -1.0]]
    assert row.ballots[0](~FIRST).failed.tolist() == [True]  # response 1 has no reward there
    assert (row.tokens, row.unread) == (15.0, pytest.approx(1 / 6))


def test_verdicts_on_pairs_are_votes_and_their_probabilities_weights(tmp_path):
    """Pair 0-1 is named 0 once, surely, and 1 once, unsurely; 0-2: 2 and unread; 1-2: 1 twice."""
    sure, unsure = float(np.log(0.9)), float(np.log(0.3))
    samples = [
        [sample(0, (1, 10), 2, verdict_logprob=unsure), sample(1, (10, 1), 2, verdict_logprob=sure)],
        [sample(0, (1, 10), 2, verdict_logprob=sure), sample(1, None, 2)],
        [sample(0, (10, 1), 2, verdict_logprob=sure), sample(1, (10, 1), 2, verdict_logprob=unsure)],
    ]
    store(tmp_path / "judge", pairs(ITEM), samples)
    plain, weighted = stored_rows("judge", "large", [ITEM], tmp_path, 2)
    assert (plain.name, weighted.name) == ("judge", "token_prob")
    assert plain.ballots[0](BOTH).totals.tolist() == [[0.5, 1.5, 1.0]]
    assert weighted.ballots[0](BOTH).totals.tolist() == [[1.0, 1.0, 1.0]]
    assert plain.ballots[0](FIRST).totals.tolist() == weighted.ballots[0](FIRST).totals.tolist() == [[0.0, 2.0, 1.0]]


def test_scores_are_summed_over_what_can_be_read(tmp_path):
    store(tmp_path / "grm", [ITEM], [[sample(0, (7, 9, 2), 3), sample(1, (4, 1, 5), 3), sample(2, None, 3)]])
    (row,) = stored_rows("grm", "large", [ITEM], tmp_path, 3)
    members = np.array([[True, True, True], [False, True, True], [False, False, True]])
    found = row.ballots[0](members)
    assert found.totals[:2].tolist() == [[11, 10, 7], [4, 1, 5]] and found.failed.tolist() == [False, False, True]
    with pytest.raises(UserError, match="item 'i' is not judged yet"):
        stored_rows("grm", "large", [ITEM], tmp_path, 4)


def test_a_prompt_that_did_not_fit_is_no_verdict(tmp_path):
    longer = dataclasses.replace(ITEM, id="j")
    with RunFolder.open(tmp_path / "grm", {"model": "m", "template": "t", "seed": 0}) as folder:
        folder.add_items([ITEM, longer])
        folder.append("i", [sample(0, (7, 9, 2), 3), sample(1, (4, 1, 5), 3)])
        folder.append_too_long("j", 100, 50)
    (row,) = stored_rows("grm", "large", [ITEM, longer], tmp_path, 2)
    assert row.ballots[1](BOTH).failed.tolist() == [True] and not row.ballots[0](BOTH).failed.any()
    assert (row.tokens, row.unread) == (2.5, 0.5)


def test_what_is_shown_to_each_paradigm():
    helped = dataclasses.replace(ITEM, principles=("p",), reference="r")
    aids = {name: [(i.id, i.principles, i.reference) for i in shown_items(name, [helped])] for name in ROWS}
    assert aids["grm_given"] == [("i", ("p",), None)] and aids["grm_reference"] == [("i", (), "r")]
    assert aids["judge"] == [(f"i#{pair}", (), None) for pair in ("0-1", "0-2", "1-2")]
    assert aids["cloud"] == [(f"i#{i}", (), None) for i in range(3)]
    assert all(aids[name] == [("i", (), None)] for name in ("grm", "plain", "btrm", "pairrm"))
    for name in ("grm_given", "grm_reference"):
        assert shown_items(name, [helped, ITEM]) == []  # its row would be of other items than the rest


def test_what_was_not_judged_is_named(tmp_path):
    for name in ("btrm", "cloud", "judge"):
        with pytest.raises(UserError, match="is not judged yet; run the stage evaluation"):
            stored_rows(name, "large", [ITEM], tmp_path, 1)


def test_the_shortest_response_is_that_of_the_fewest_characters():
    items = [
        Item(name, (Turn("user", "x"),), responses, label)
        for name, responses, label in (
            ("a", ("long one", "short"), 1), ("b", ("same", "size", "longest"), 0), ("c", ("i", "iii"), 1)
        )
    ]  # fmt: skip
    ids, labels = [each.id for each in items], [each.label for each in items]
    random, shortest = (row_values(row, ids, labels, 1, Protocol(subsets=4))[0] for row in baselines(items))
    assert shortest.tolist() == [1.0, 0.5, 0.0]
    assert random.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])


@pytest.fixture
def report(tmp_path):
    """Two sizes: small critiques are right about i and wrong about j, large ones right about both half of the time."""
    items = [ITEM, dataclasses.replace(ITEM, id="j")]
    rows = baselines(items)
    for size, scores in (("small", [(1, 5, 1), (1, 5, 1)]), ("large", [(1, 9, 1), (5, 1, 1)])):
        home = tmp_path / size
        home.mkdir()
        wrong = [(9, 1, 1)] * 2 if size == "small" else scores
        store(home / "grm", items, [[sample(k, s, 3) for k, s in enumerate(mine)] for mine in (scores, wrong)])
        (home / "btrm.json").write_text(json.dumps({"i": [0, 1, 0], "j": [0, 1, 0]}))
        for name in ("btrm", "grm"):
            rows += stored_rows(name, size, items, home, 2)
    found = paradigm_report(rows, ["i", "j"], [1, 1], [1, 2], less="grm")
    shape = {"model_dim": 8, "num_layers": 2}
    sizes = {"small": {**shape, "parameters": 1000}, "large": {**shape, "parameters": 2000}}
    return found | {"largest": "large", "temperature": 0.5, "sizes": sizes, "minutes": {"large/grm": 1.25}}


def test_levels_and_differences_by_hand(report):
    rows = {(row["name"], row["size"]): row for row in report["rows"]}
    level = lambda name, size: [point["mean"] for point in rows[name, size]["points"]]  # noqa: E731
    assert level("grm", "small") == [0.5, 0.5] and level("grm", "large") == [0.5, 1.0]
    assert level("btrm", "large") == [1.0, 1.0] and level("random", "") == pytest.approx([1 / 3, 1 / 3])
    less = lambda name, size: [each["mean"] for each in rows[name, size]["differences"]]  # noqa: E731
    assert less("btrm", "small") == [0.5, 0.5] and less("btrm", "large") == [0.5, 0.0] and less("grm", "large") == []
    assert less("random", "") == pytest.approx([1 / 3 - 0.5, 1 / 3 - 1.0])  # the largest size's
    interval = rows["btrm", "large"]["differences"][0]
    assert interval["low"] == interval["high"] == 0.5  # both items differ by as much: paired, there is no doubt


def test_the_page_and_the_plots_show_every_row(report):
    page = to_markdown(report, ["a.png"])
    assert "![a](a.png)" in page and "| large/grm | 1.2 |" in page
    for title in ("random", "shortest response", "BTRM", "GRM"):
        assert f"| {title} |" in page
    assert "| GRM | generative pointwise | sum | 50.0 (50.0 to 50.0) | 100.0 (100.0 to 100.0) |" in page
    assert "| small | 1,000 | 8 | 2 | GRM |" in page
    assert len({line.count("|") for line in page.split("## At size large")[1].split("##")[0].splitlines() if line}) == 1
    assert "GRM (small)" in summary(report)
    labels = [text.get_text() for text in paradigm_figure(report).legends[0].get_texts()]
    assert labels == ["GRM", "random", "shortest response", "BTRM"]
    left, right = size_figure(report).axes
    assert [line.get_label() for line in left.lines] == ["GRM, k = 1", "GRM, k = 2", "BTRM"]
    assert [list(line.get_ydata()) for line in right.lines] == [[50.0, 50.0], [50.0, 100.0]]


def test_a_k_beyond_the_samples_is_refused(tmp_path):
    store(tmp_path / "grm", [ITEM], [[sample(0, (7, 9, 2), 3), sample(1, (4, 1, 5), 3)]])
    rows = stored_rows("grm", "large", [ITEM], tmp_path, 2)
    with pytest.raises(UserError, match="GRM: has 2 samples an item, k = 3 is asked"):
        paradigm_report(rows, ["i"], [1], [3], less="grm")
