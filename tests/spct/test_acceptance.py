"""Eq 10 and Eq 11 of arXiv 2504.02495: which critiques are right, and what they are worth."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.spct.acceptance import accepted, reward

laws = settings(max_examples=100, deadline=None, derandomize=True)
scored = st.lists(st.integers(1, 10), min_size=2, max_size=6).flatmap(
    lambda scores: st.tuples(st.just(scores), st.integers(0, len(scores) - 1))
)


@laws
@given(scored)
def test_right_is_a_strict_maximum_at_the_label(case):
    scores, label = case
    strict = scores[label] == max(scores) and scores.count(max(scores)) == 1
    assert accepted(scores, label, len(scores)) is strict


@laws
@given(scored, st.randoms(use_true_random=False))
def test_the_order_of_the_others_does_not_matter(case, rng: random.Random):
    scores, label = case
    others = [score for i, score in enumerate(scores) if i != label]
    rng.shuffle(others)
    others.insert(label, scores[label])
    assert accepted(others, label, len(scores)) == accepted(scores, label, len(scores))


@laws
@given(scored)
def test_at_most_one_label_is_right_and_it_moves_with_the_scores(case):
    scores, _ = case
    right = [label for label in range(len(scores)) if accepted(scores, label, len(scores))]
    turned = [label for label in range(len(scores)) if accepted(scores[::-1], label, len(scores))]
    assert len(right) <= 1
    assert turned == [len(scores) - 1 - label for label in right]


@pytest.mark.parametrize("scores", [(7, 7), (10, 10, 1), (5, 5, 5)])
def test_a_tie_at_the_top_is_wrong_for_every_label(scores):
    assert not any(accepted(scores, label, len(scores)) for label in range(len(scores)))


def test_one_response_is_right_when_its_score_is_the_label():
    assert [score for score in range(1, 11) if accepted((score,), 7, 1)] == [7]
    assert accepted((7,), 7.0, 1)
    assert not accepted((7,), 7.5, 1)
    assert not accepted((1,), 0, 1)  # a label off the scale: nothing is right, and the label is no index here


@pytest.mark.parametrize(("label", "n"), [(0, 2), (4, 5), (7, 1)])
def test_what_cannot_be_read_is_wrong(label, n):
    assert not accepted(None, label, n)
    assert reward(None, label, n) == -1.0


@laws
@given(scored)
def test_the_reward_is_one_or_minus_one_with_the_sign_of_acceptance(case):
    scores, label = case
    worth = reward(scores, label, len(scores))
    assert worth == (1.0 if accepted(scores, label, len(scores)) else -1.0)
    assert isinstance(worth, float)


@pytest.mark.parametrize(
    ("scores", "label", "n"),
    [
        ((7, 3), None, 2),
        ((7, 3), True, 2),
        ((7, 3), 1.0, 2),
        ((7, 3), 2, 2),
        ((7, 3), -1, 2),
        (None, 2, 2),
        ((7,), True, 1),
        ((7,), None, 1),
        ((7,), 0, 2),
        ((7, 3), 7, 1),
        ((), 0, 0),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores, label, n):
    with pytest.raises(ValueError):
        accepted(scores, label, n)
    with pytest.raises(ValueError):
        reward(scores, label, n)
