"""Scores of RewardBench 1 and 2: published figures, the package rewardbench where it is installed, and small cases."""

import ast
import contextlib
import importlib.util
import json
import math
import types
from pathlib import Path

import numpy as np
import pytest

from grm_jax.benchmarks.benchmark import Case
from grm_jax.benchmarks.figures import mean
from grm_jax.benchmarks.policies import credit
from grm_jax.benchmarks.registry import BENCHMARKS
from grm_jax.benchmarks.rewardbench import SECTIONS, section_scores
from grm_jax.benchmarks.rewardbench2 import ties_score, ties_terms
from grm_jax.data.records import Item, Turn

GOLDEN = Path(__file__).parents[2].parent / "shared" / "data" / "golden"
needs_goldens = pytest.mark.skipif(not GOLDEN.exists(), reason="shared/data/golden is not beside the checkout")


def golden(name):
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture(scope="module")
def reference():
    """Functions of the package rewardbench, read from its source: importing it would pull in torch, trl and more."""
    found = importlib.util.find_spec("rewardbench")
    if found is None:
        pytest.skip("rewardbench is not installed; pip install --no-deps rewardbench")
    folder = Path(found.submodule_search_locations[0])
    wanted = {"calculate_scores_per_section", "sample_stats", "process_single_model", "reroll_and_score_dataset"}
    dataset = types.SimpleNamespace(from_dict=dict, from_pandas=lambda frame: frame)
    names = {"np": np, "math": math, "Dataset": dataset}
    for file in ("utils.py", "constants.py"):
        for node in ast.parse((folder / file).read_text()).body:
            if (isinstance(node, ast.FunctionDef) and node.name in wanted) or isinstance(node, ast.Assign):
                with contextlib.suppress(NameError):  # a constant that the functions do not need
                    exec(compile(ast.Module([node], []), file, "exec"), names)  # noqa: S102 (what the user installed)
    return types.SimpleNamespace(**names)


@needs_goldens
def test_published_sections_are_reproduced():
    given = golden("rewardbench_sections.json")
    assert {name: list(subsets) for name, subsets in SECTIONS.items()} == given["subset_mapping"]
    weights = {subset: weight for subsets in SECTIONS.values() for subset, weight in subsets.items()}
    assert weights == given["example_counts"]
    assert len(given["cases"]) == 3
    for case in given["cases"]:
        scores = section_scores(case["subset_accuracy"])
        assert scores == pytest.approx(case["expected_sections"], abs=1e-12, rel=0)
        if "expected_mean_of_sections" in case:
            assert mean(scores.values()) == pytest.approx(case["expected_mean_of_sections"], abs=1e-12, rel=0)


def test_sections_agree_with_the_reference_package(reference):
    rng = np.random.default_rng(0)
    for _ in range(200):
        accuracy = {subset: rng.random() for subset in reference.EXAMPLE_COUNTS if rng.random() < 0.8}
        theirs = reference.calculate_scores_per_section(reference.EXAMPLE_COUNTS, reference.SUBSET_MAPPING, accuracy)
        ours = section_scores(accuracy)
        assert {name: ours.get(name, 0) for name in SECTIONS} == pytest.approx(theirs, abs=1e-12)


def test_math_prm_weighs_as_much_as_all_the_code():
    code = {subset: 1.0 for subset in SECTIONS["Reasoning"] if subset != "math-prm"}
    assert section_scores({**code, "math-prm": 0.0}) == {"Reasoning": 0.5}


# RewardBench 2


def ties_rows(rng, prompts, draw, both=True):
    ref, tied = {}, {}
    for prompt in range(prompts):
        for kind, right in ((ref, 1), (tied, int(rng.integers(2, 6)))):
            if both or rng.random() < 0.8:
                kind[prompt] = ([float(draw()) for _ in range(right + int(rng.integers(1, 6)))], right)
    return ref, tied


def reference_ties(reference, ref, tied):
    rows = [
        {"id": f"{kind}:{prompt}", "scores": scores, "num_correct": right}
        for kind, group in (("ref", ref), ("tied", tied))
        for prompt, (scores, right) in group.items()
    ]
    return reference.process_single_model(rows)[1]


def test_ties_agree_with_the_reference_package_on_continuous_scores(reference):
    rng = np.random.default_rng(1)
    for trial in range(200):
        ref, tied = ties_rows(rng, 12, rng.normal, both=trial % 2 == 0)
        if ref.keys() & tied.keys():
            assert ties_score(ties_terms(ref, tied)) == pytest.approx(reference_ties(reference, ref, tied), abs=1e-12)


def test_ties_of_integer_scores_differ_from_the_package_only_where_right_scores_are_equal(reference):
    rng = np.random.default_rng(2)
    differ = 0
    for _ in range(200):
        ref, tied = ties_rows(rng, 12, lambda: rng.integers(1, 11))
        spread = [prompt for prompt, (scores, right) in tied.items() if len(set(scores[:right])) > 1]
        ours, theirs = ties_score(ties_terms(ref, tied)), reference_ties(reference, ref, tied)
        assert abs(ours - theirs) < 0.02
        differ += len(spread) < len(tied) and abs(ours - theirs) > 1e-12
        some = {prompt: ref[prompt] for prompt in spread}, {prompt: tied[prompt] for prompt in spread}
        assert ties_score(ties_terms(*some)) == pytest.approx(reference_ties(reference, *some), abs=1e-12)
    assert differ


@pytest.mark.parametrize(
    ("wrong", "closeness", "score"),
    [(4.0, 1.0, 1.01), (5.0, 0.0, 0.0), (6.0, -1.0, -0.01)],
)  # fmt: skip
def test_with_equal_right_scores_the_margin_is_taken_to_its_limit_and_0_over_0_counts_0(wrong, closeness, score):
    terms = ties_terms({3: ([5.0, wrong], 1)}, {3: ([5.0, 5.0, wrong], 2)})
    assert terms[0, 4] == closeness
    assert ties_score(terms) == pytest.approx(score, abs=1e-15)


def test_ties_count_each_kind_over_its_own_prompts_and_the_rest_over_those_of_both():
    right, false = ([9.0, 1.0], 1), ([1.0, 9.0], 1)
    ref = {0: right, 1: false, 2: right}
    tied = {0: ([9.0, 8.0, 1.0], 2)}
    expected = 0.3 * 1 + 0.3 * 2 / 3 + 0.2 + 0.2 + 0.01 * math.tanh(7 / 1 - 1)
    assert ties_score(ties_terms(ref, tied)) == pytest.approx(expected, abs=1e-15)
    assert ties_score(ties_terms(ref, {})) == pytest.approx(0.2)


def test_best_of_four_agrees_with_the_reference_package(reference):
    pandas = reference.pd = pytest.importorskip("pandas")
    reference.reroll_and_score_dataset.__globals__["pd"] = pandas
    rng = np.random.default_rng(3)
    scores = rng.integers(1, 4, (100, 4)).astype(float)
    rows = pandas.DataFrame({"text": "t", "scores": scores.ravel()})
    theirs = reference.reroll_and_score_dataset(types.SimpleNamespace(to_pandas=lambda: rows), [4] * 100)["results"]
    policies = BENCHMARKS["rewardbench2"].default
    ours = [credit(tuple(row), 0, 4, policies, seed=0, item_id="i") for row in scores]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-15)


def test_a_response_without_rating_scores_minus_one_in_ties():
    benchmark = BENCHMARKS["rewardbench2"]

    def case(kind, right):
        items = tuple(Item(f"{kind}/{i}", (Turn("user", "q"),), ("r",)) for i in range(right + 1))
        return Case(kind, "Ties", items, {"kind": kind, "prompt": 0, "right": right})

    cases = [case("ref", 1), case("tied", 2)]
    votes = {item.id: ((7.0,),) for each in cases for item in each.items}
    assert benchmark.figures(cases, votes, benchmark.default, 0)["Ties"][0] == 0.0
    votes |= {"tied/1": (None,), "tied/2": ((6.0,),)}  # a right one fails: margin -1 - 6, spread 7 - (-1)
    expected = 0.01 * math.tanh(-7 / 8 - 1)
    assert benchmark.figures(cases, votes, benchmark.default, 0)["Ties"][0] == pytest.approx(expected, abs=1e-15)
