"""Laws of recomputed scores: what parts mean, and that nothing is made of parts that are not there."""

import pytest

from grm_jax.data.arena.oracle import Noise, critique
from grm_jax.data.arena.world import generate
from grm_jax.keys import generator
from grm_jax.text.parser import parse_critique
from grm_jax.text.principles import Principle
from grm_jax.text.weighted import recomputed

TWO = (Principle("Accuracy", 0.6), Principle("Depth", 0.4))


def test_sub_scores_are_averaged_by_weight():
    text = """Specific Criteria: Accuracy (60%); Depth (40%)
    Analysis:
    **Response 1**
    - **Accuracy** (60%): 8/10, all facts hold.
    - Depth: 5 - too short.
    Response 2: Accuracy: 3; Depth = 7.5/10
    Scores: \\boxed{7, 5}""".replace("    ", "")
    assert recomputed(text, TWO, 2) == pytest.approx((0.6 * 8 + 0.4 * 5, 0.6 * 3 + 0.4 * 7.5))
    doubled = tuple(Principle(each.text, 2 * each.weight) for each in TWO)
    assert recomputed(text, doubled, 2) == pytest.approx(recomputed(text, TWO, 2))  # weights compare among themselves


def test_verdicts_take_away_the_weights_of_what_is_bad():
    principles = (Principle("use frog", 3.0), Principle("end bell", 8.0))
    text = "Principles: use frog (3); end bell (8)\nResponse 1: ( corn bell ): use frog sun ok; end bell sun bad.\n"
    text += "Response 2: ( a ): use frog none bad; end bell sun bad.\nScores: \\boxed{2, 1}"
    assert recomputed(text, principles, 2) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("text", "principles", "n"),
    [
        ("Response 1: Accuracy: 8; Depth: 5", TWO, 2),  # nothing of the second
        ("Response 1: Accuracy: 8; it is short", TWO, 1),  # nothing of Depth
        ("Response 1: Accuracy: 8; Depth: bad", TWO, 1),  # two forms
        ("Response 1: Accuracy: 80; Depth: 5", TWO, 1),
        ("Response 1: Accuracy: 60%; Depth: 5", TWO, 1),
        ("Response 1: Accuracy: 8/100; Depth: 5", TWO, 1),
        ("Response 1: Inaccuracy: 8; Depth: 5", (Principle("accuracy", 1.0),), 1),
        ("Response 1: Accuracy: 8", (Principle("Accuracy", None),), 1),
        ("Response 1: Accuracy: 8", (Principle("Accuracy", 0.0),), 1),
        ("Response 1: Accuracy: 8", (), 1),
        ("Scores: \\boxed{8}\nResponse 1: Accuracy: 8; Depth: 5", TWO, 1),  # after the verdict it is no part of it
        ("Best: Response 1: Accuracy: 8; Depth: 5", TWO, 1),
    ],
)
def test_parts_that_are_not_all_there_are_not_stated(text, principles, n):
    assert recomputed(text, principles, n) is None


def test_an_oracle_that_never_errs_states_the_scores_its_parts_give():
    stated = 0
    for number in range(60):
        example = generate("train", number, 0)
        order = tuple(range(len(example.responses)))
        text = critique(example, order, generator("test", "weighted", number), Noise.none())
        read = parse_critique(text, len(order), truncated=False, principles_heading="Principles:")
        assert recomputed(text, read.principles, len(order)) == read.scores
        stated += 1
    assert stated == 60


def test_hostile_texts_cost_no_time():
    for text in (
        "Response 1: " * 20_000,
        "Response 1: " + "accuracy " * 29_000,
        "Response 1: accuracy" + "(" * 200_000,
    ):
        assert recomputed(text, TWO, 1) is None
