"""Scores of the paper's average, RMB, ReaLMistake, JudgeBench and RM-Bench: published figures, and small cases."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from grm_jax.benchmarks.benchmark import Case
from grm_jax.benchmarks.figures import REPLICATES, group_means, interval, mean, weighted
from grm_jax.benchmarks.judgebench import both_orders
from grm_jax.benchmarks.policies import Policies
from grm_jax.benchmarks.realmistake import auc_figures, detection_metrics, roc_auc
from grm_jax.benchmarks.registry import BENCHMARKS, PAPER_COLUMNS, paper_overall
from grm_jax.benchmarks.rm_bench import difficulties
from grm_jax.benchmarks.rmb import COUNTS, cell_scores
from grm_jax.data.records import Item, Turn

GOLDEN = Path(__file__).parents[2].parent / "shared" / "data" / "golden"
needs_goldens = pytest.mark.skipif(not GOLDEN.exists(), reason="shared/data/golden is not beside the checkout")


def golden(name):
    return json.loads((GOLDEN / name).read_text())


# the paper, PPE, RMB


@needs_goldens
def test_the_papers_own_columns_average_to_its_figures():
    for case in golden("deepseek_grm_paper_aggregation.json")["cases"]:
        figures = list(case["inputs"].values())
        # half a unit in the last place printed, and the same again: the inputs are rounded as well
        assert mean(figures) == pytest.approx(case["reported"], abs=0.1)
    assert round(paper_overall({**dict(zip(PAPER_COLUMNS, figures, strict=True)), "realmistake": 0.0}), 1) == 69.9


@needs_goldens
def test_published_cells_of_rmb_average_to_their_overall_score():
    for run in golden("rmb_rm_r1_scores.json")["runs"]:
        meta = run["meta"]
        cells = {cell: np.array([meta[cell.replace("/", " ")]]) for cell in COUNTS}
        assert cell_scores(cells, COUNTS)["overall"] == pytest.approx(
            meta["Accuracy Averaged from Four Sections"], abs=1e-12
        )


def test_a_cell_of_rmb_is_the_mean_over_its_questions_not_over_its_scenarios():
    figures = {"BoN/Harmlessness/S1": np.array([1.0]), "BoN/Harmlessness/S2": np.array([0.0])}
    cells = cell_scores(figures, {"BoN/Harmlessness/S1": 3, "BoN/Harmlessness/S2": 1})
    assert cells["BoN Harmlessness"] == pytest.approx(0.75)


def test_a_question_of_pairs_is_right_only_when_every_pair_is_won():
    benchmark = BENCHMARKS["rmb_pairs"]
    items = tuple(Item(f"b/{i}", (Turn("user", "q"),), ("best", "loser"), 0) for i in range(3))
    cases = [Case("b", "BoN/Harmlessness/S1", items)]

    def overall(*margins, ties="strict"):
        votes = {item.id: ((5 + margin, 5),) for item, margin in zip(items, margins, strict=True)}
        return benchmark.figures(cases, votes, Policies(ties), 0)["overall"][0]

    assert overall(1, 2, 3) == 1.0
    assert overall(1, 2, -1) == 0.0
    assert overall(1, 2, 0) == 0.0
    assert overall(1, 0, 0, ties="expected") == 0.25  # two coins


# ReaLMistake


@needs_goldens
def test_the_48_published_cells_of_detectors_are_reproduced_exactly():
    expected = golden("realmistake_expected_metrics.json")
    rows = [json.loads(line) for line in (GOLDEN / "realmistake_predictions.jsonl").read_text().splitlines()]
    assert len(expected) == 48
    for name, metrics in expected.items():
        task, model, detector, prompt = name.split("|")
        number = int(prompt.removeprefix("prompt")) - 1
        there = [
            row for row in rows if (row["task"], row["response_model"], row["detector"]) == (task, model, detector)
        ]
        wrong = np.array([row["error_label"] == "error" for row in there])
        said = np.array([str(row["predictions"][number]) for row in there])
        assert detection_metrics(wrong, said == "error", said == "no_error") == metrics


@needs_goldens
def test_published_auc_is_reproduced_pooled_and_by_cell():
    rows = [json.loads(line) for line in (GOLDEN / "realmistake_predictions.jsonl").read_text().splitlines()]
    for detector, expected in golden("realmistake_expected_auc.json").items():
        there = [row for row in rows if row["detector"] == detector]
        cells = [f"{row['task']}|{row['response_model']}" for row in there]
        scores = np.array([row["predictions"].count("no_error") / 4 for row in there])
        right = np.array([row["error_label"] == "no_error" for row in there])
        figures = {name: figure[0] for name, figure in auc_figures(cells, scores, right, 0.0, 0).items()}
        assert figures.pop("pooled AUC") == pytest.approx(expected["pooled_900"], abs=1e-12)
        assert figures.pop("macro AUC") == pytest.approx(expected["macro_6_cells"], abs=1e-12)
        assert figures == pytest.approx(expected["per_cell"], abs=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_auc_is_the_mean_over_pairs_and_says_what_a_missing_score_is_worth(missing):
    rng = np.random.default_rng(4)
    scores, right = rng.integers(1, 5, 40).astype(float), rng.random(40) < 0.4
    scores[rng.random(40) < 0.2] = np.nan
    weights = rng.integers(0, 3, 40)
    pairs = [
        (missing if np.isnan(a) or np.isnan(b) else (a > b) + (a == b) / 2, wa * wb)
        for (a, wa), (b, wb) in itertools.product(
            zip(scores[right], weights[right], strict=True), zip(scores[~right], weights[~right], strict=True)
        )
    ]
    expected = sum(worth * weight for worth, weight in pairs) / sum(weight for _, weight in pairs)
    assert roc_auc(scores, right, missing, weights) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(roc_auc(scores[right], right[right], missing))


# JudgeBench


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        ((9, 1), (9, 1), True),
        ((9, 1), (5, 5), True),  # one right, one undecided
        ((9, 1), None, True),
        ((9, 1), (1, 9), False),  # it followed the place, not the response
        ((5, 5), (5, 5), False),
        ((1, 9), (5, 5), False),
        (None, None, False),
    ],
)
def test_both_orders_together_decide_a_pair(first, second, right):
    assert both_orders((first, second), 0) is right
    assert both_orders((second, first), 0) is right
    flipped = [scores and scores[::-1] for scores in (first, second)]
    assert both_orders(flipped, 1) is right


# RM-Bench


def test_hard_pairs_are_those_whose_wrong_response_looks_better():
    pairs = np.zeros((3, 3))
    pairs[0, 1] = pairs[0, 2] = pairs[1, 2] = 1.0  # plainer right responses beat fancier wrong ones
    assert difficulties(pairs).tolist() == [1.0, 0.0, 0.0]
    assert difficulties(np.eye(3)).tolist() == [0.0, 1.0, 0.0]
    many = np.random.default_rng(5).random((7, 3, 3))
    assert difficulties(many).mean(axis=1) == pytest.approx(many.mean(axis=(1, 2)))


def test_the_domains_of_rm_bench_weigh_the_same_and_a_tie_is_wrong():
    benchmark = BENCHMARKS["rm_bench"]

    def case(name, group):
        items = [
            Item(f"{name}/{i}{j}", (Turn("user", "q"),), ("right", "wrong"), 0) for i in range(3) for j in range(3)
        ]
        return Case(name, group, tuple(items))

    cases = [case("a", "chat"), case("b", "chat"), case("c", "chat"), case("d", "safety")]
    won = {"a": (9, 1), "b": (9, 1), "c": (5, 5), "d": (1, 9)}
    votes = {item.id: (won[each.id],) for each in cases for item in each.items}
    figures = {name: figure[0] for name, figure in benchmark.figures(cases, votes, benchmark.default, 0).items()}
    assert figures == pytest.approx(
        {"overall": 1 / 3, "hard": 1 / 3, "normal": 1 / 3, "easy": 1 / 3, "chat": 2 / 3, "safety": 0.0}
    )
    assert round(mean([84.24, 72.66, 93.59, 90.65]), 2) in (85.28, 85.29)  # DeepSeek-R1 in the benchmark's README


# figures


def test_figures_carry_their_intervals_through_means():
    groups = ["a"] * 30 + ["b"] * 10
    values = np.array([1.0] * 15 + [0.0] * 15 + [1.0] * 10)
    means = {name: figure[:, 0] for name, figure in group_means(groups, values, 0).items()}
    assert means["a"].shape == (1 + REPLICATES,)
    assert (means["a"][0], means["b"][0]) == (0.5, 1.0)
    assert means["a"][1:].std() == pytest.approx(math.sqrt(0.25 / 30), rel=0.1)
    assert weighted(means, {"a": 30, "b": 10})[0] == pytest.approx(25 / 40)
    both = interval(mean(means.values()))
    assert both.mean == 0.75
    assert (both.high - both.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 30) / 2, rel=0.15)
    assert interval(np.full(1 + REPLICATES, np.nan)) is None
