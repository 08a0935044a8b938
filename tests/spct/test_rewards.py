"""Laws of the rewards of rollouts."""

import dataclasses

import numpy as np
import pytest

from grm_jax.data.records import Item, Sample, Turn
from grm_jax.spct.rewards import agreement, pick, rollout_rewards, states_query_only, template_words
from grm_jax.text.principles import Principle
from grm_jax.text.template_file import load_template
from grm_jax.train.grpo import Grpo

ITEM = Item("a", (Turn("user", "Name a large river."),), ("The Nile, of course", "Thames"), 0)
PLAIN = Grpo(steps=1, prompts=2, group=3)


def sample(scores, outcome="ok", principles=()):
    return Sample(
        index=0, order=(0, 1), text="", scores=scores, outcome=outcome, tokens=1, logprob=0.0, seed=0,
        principles=tuple(Principle(text, None) for text in principles),
    )  # fmt: skip


RIGHT, WRONG, TIE = sample((7, 3)), sample((2, 9)), sample((5, 5))
UNREAD, CUT = sample(None, "no_block"), sample(None, "truncated")


def test_the_rule_alone_is_plus_or_minus_one():
    """Ties and all that cannot be read are wrong: nothing is 0, nothing is missing."""
    rewards = rollout_rewards([ITEM, ITEM], [[RIGHT, WRONG, TIE], [UNREAD, CUT, RIGHT]], PLAIN)
    assert rewards.total.tolist() == [[1, -1, -1], [-1, -1, 1]]
    assert list(rewards.parts) == ["rule"]
    other = dataclasses.replace(ITEM, label=1)
    assert rollout_rewards([other], [[RIGHT, WRONG, TIE]], PLAIN).total.tolist() == [[-1, 1, -1]]


def test_a_score_is_rewarded_for_being_the_label():
    single = Item("b", (Turn("user", "1 + 1?"),), ("2",), 9)
    scored = [[sample((9,)), sample((10,)), sample(None, "out_of_range")]]
    assert rollout_rewards([single], scored, PLAIN).total.tolist() == [[1, -1, -1]]


def test_the_format_counts_where_scores_can_be_read_right_or_wrong():
    settings = dataclasses.replace(PLAIN, format_reward=0.25)
    rewards = rollout_rewards([ITEM, ITEM], [[RIGHT, WRONG, TIE], [UNREAD, CUT, RIGHT]], settings)
    assert rewards.total.tolist() == [[1.25, -0.75, -0.75], [-1, -1, 1.25]]
    assert rewards.parts["format"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_what_is_picked_is_the_one_best_response():
    assert [pick(each) for each in (RIGHT, WRONG, TIE, UNREAD)] == [0, 1, None, None]
    assert pick(sample((9,))) is None
    assert pick(sample((3, 8, 8))) is None and pick(sample((3, 8, 7))) == 1


def test_consistency_is_the_share_of_the_other_order_that_agrees():
    """Right or not; ties and what cannot be read agree with nothing."""
    assert agreement([RIGHT, WRONG, TIE], [RIGHT, RIGHT, UNREAD, WRONG]) == [0.5, 0.25, 0.0]
    settings = dataclasses.replace(PLAIN, consistency_reward=0.5, prompts=4)
    groups = [[RIGHT, WRONG], [RIGHT, RIGHT], [TIE, UNREAD], [TIE, UNREAD]]
    rewards = rollout_rewards([ITEM] * 4, groups, settings)
    assert rewards.parts["consistency"].tolist() == [[1, 0], [0.5, 0.5], [0, 0], [0, 0]]
    assert rewards.total.tolist() == [[1.5, -1], [1.25, 1.25], [-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("principles", "expected"),
    [
        ((), False),
        (("Accuracy", "Size of the river"), True),
        (("Whether Response 2 is true",), False),
        (("responses 1 and 2 differ",), False),
        (("The response is short",), True),
        (("It must not be the THAMES",), False),
        (("Accuracy", "nile"), False),
        (("A large river",), True),
        (("Nilesh",), True),  # another word
    ],
)
def test_principles_of_the_query_name_no_response_and_borrow_no_word_of_one(principles, expected):
    item = dataclasses.replace(ITEM, responses=("Nile, course", "Thames"))
    stated = tuple(Principle(text, None) for text in principles)
    assert states_query_only(stated, item) is expected
    settings = dataclasses.replace(PLAIN, query_only_reward=0.5)
    rewards = rollout_rewards([item], [[sample((7, 3), principles=principles)]], settings)
    assert rewards.total.tolist() == [[1.5 if expected else 1.0]]
    assert rewards.parts["query_only"].tolist() == [[float(expected)]]


def test_words_of_the_template_are_nobodys():
    """ "of" and "course" stand in a response alone; a judge knows "of" from its template."""
    stated = (Principle("Degree of truth", None),)
    assert not states_query_only(stated, ITEM)
    assert states_query_only(stated, ITEM, template_words(load_template("grm")))
    assert "river" not in template_words(load_template("grm"))


def test_all_that_is_on_is_added():
    settings = dataclasses.replace(PLAIN, format_reward=0.1, consistency_reward=0.2, query_only_reward=0.4)
    own = sample((7, 3), principles=("Accuracy",))
    rewards = rollout_rewards([ITEM, ITEM], [[own], [RIGHT]], settings)
    np.testing.assert_allclose(rewards.total, [[1.7], [1.3]])
