"""Which samples become training data, and the files in which they are kept."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.data.examples import example_from_json, example_to_json
from grm_jax.data.records import Item, Sample, Turn
from grm_jax.errors import UserError
from grm_jax.spct.rejection import DECISIONS, Rft, decide, decide_hinted, is_hard
from grm_jax.spct.trajectories import critique_example, read_trajectories, trajectory, trajectory_to_json

laws = settings(max_examples=100, deadline=None, derandomize=True)
RIGHT, WRONG, TIE, UNREAD = (3, 8), (8, 3), (8, 8), None
PAIR = Item("x", (Turn("user", "q"), Turn("assistant", "a"), Turn("user", "r")), ("worse", "better"), label=1)
drawn = st.lists(st.sampled_from([RIGHT, WRONG, TIE, UNREAD]), min_size=3, max_size=3)


def sample(index, scores, outcome="no_block", order=(1, 0)):
    outcome = "ok" if scores else outcome
    return Sample(
        index=index, order=order, text=f"text {index}", scores=scores, outcome=outcome, tokens=3, logprob=-1.0, seed=0
    )


def found(scores, item=PAIR, **options):
    decisions = decide(item, [sample(i, each) for i, each in enumerate(scores)], Rft(**options))
    assert [decision.sample.index for decision in decisions] == list(range(len(scores)))
    return [decision.found for decision in decisions], [decision.kept for decision in decisions]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("planted", [WRONG, TIE, UNREAD])
def test_a_planted_wrong_sample_is_rejected_and_the_others_stay(place, planted):
    scores = [RIGHT] * 3
    scores[place] = planted
    what = "wrong" if planted else "no_block"
    assert found(scores) == ([what if i == place else "accepted" for i in range(3)], [i != place for i in range(3)])


def test_an_item_whose_samples_are_all_right_is_too_easy():
    assert found([RIGHT] * 3) == (["too_easy"] * 3, [False] * 3)
    assert found([RIGHT], samples=1) == (["too_easy"], [False])
    assert found([RIGHT] * 2, samples=3) == (["accepted"] * 2, [True] * 2)  # one is missing: nobody knows yet


@laws
@given(drawn)
def test_each_sample_has_one_decision_and_only_right_ones_are_kept(scores):
    what, kept = found(scores)
    assert set(what) <= set(DECISIONS)
    assert kept == [each == RIGHT and set(scores) != {RIGHT} for each in scores]
    assert is_hard(PAIR, [sample(i, each) for i, each in enumerate(scores)]) == (RIGHT not in scores)


@laws
@given(drawn)
def test_the_ablations_keep_what_they_name_and_change_nothing_else(scores):
    what, kept = found(scores)
    assert found(scores, reject_wrong=False) == (what, [k or w == "wrong" for k, w in zip(kept, what, strict=True)])
    assert found(scores, reject_easy=False) == (what, [k or w == "too_easy" for k, w in zip(kept, what, strict=True)])
    # what cannot be read teaches no score, whatever is asked
    neither = found(scores, reject_wrong=False, reject_easy=False)
    assert neither == (what, [each is not UNREAD for each in scores])


@pytest.mark.parametrize("outcome", [name for name in DECISIONS if name not in ("accepted", "wrong", "too_easy")])
def test_a_sample_that_cannot_be_read_is_named_by_its_outcome(outcome):
    decision, *_ = decide(PAIR, [sample(0, None, outcome)], Rft(samples=1))
    assert (decision.found, decision.kept) == (outcome, False)


@pytest.mark.parametrize(
    ("scores", "what", "kept"), [(RIGHT, "accepted", True), (TIE, "wrong", False), (None, "no_block", False)]
)
def test_a_hinted_sample_is_rejected_only_if_wrong(scores, what, kept):
    decision = decide_hinted(PAIR, sample(0, scores), Rft(samples=1))
    assert (decision.found, decision.kept) == (what, kept)


def test_one_response_is_right_by_its_score():
    one = Item("one", (Turn("user", "q"),), ("only",), label=7)
    samples = [sample(i, (score,), order=(0,)) for i, score in enumerate((7, 6))]
    assert [decision.found for decision in decide(one, samples, Rft(samples=2))] == ["accepted", "wrong"]


def test_an_item_without_a_label_cannot_be_decided_on():
    with pytest.raises(ValueError, match="'x' has no label"):
        decide(Item("x", PAIR.conversation, PAIR.responses), [sample(0, RIGHT)], Rft())


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"rows": 0}, {"max_new": -1}, {"temperature": -0.5}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=f"Rft.{next(iter(wrong))} is"):
        Rft(**wrong)


def test_an_example_shows_what_the_sample_saw():
    item = Item("x", PAIR.conversation, ("a", "b", "c"), label=0, reference="ref", principles=("p",), strength=2)
    example = critique_example(item, sample(4, (9, 1, 1), order=(2, 0, 1)), hinted=True)
    assert example.conversation == (("user", "q"), ("assistant", "a"), ("user", "r"))
    assert (example.responses, example.critique) == (("c", "a", "b"), "text 4")
    assert (example.reference, example.principles) == ("ref", ("p",))
    assert example.meta == {"id": "x", "index": 4, "hinted": True}
    assert example_from_json(example_to_json(example), "here") == example


def test_trajectories_come_back_as_written(tmp_path):
    written = [trajectory(PAIR, sample(i, scores)) for i, scores in enumerate([RIGHT, WRONG, TIE, UNREAD])]
    assert [each.accepted for each in written] == [True, False, False, False]
    path = tmp_path / "trajectories.jsonl"
    path.write_text("".join(json.dumps(trajectory_to_json(each)) + "\n" for each in written))
    assert read_trajectories(path) == written


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"order": [0, 0]}, "order: .* is no permutation"),
        ({"order": [0]}, "scores: .* does not fit outcome 'ok' with 1 responses"),
        ({"outcome": "no_block"}, "scores: .* does not fit outcome 'no_block'"),
        ({"scores": None, "outcome": "no_block"}, "accepted: True does not fit"),
        ({"accepted": 1}, "accepted: 1 does not fit"),
        ({"id": ""}, "id: is empty"),
        ({"label": 1}, "'label': unknown field"),
    ],
)
def test_a_damaged_trajectory_is_named_with_its_line(tmp_path, change, said):
    good = trajectory_to_json(trajectory(PAIR, sample(0, RIGHT)))
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(UserError, match=rf"t\.jsonl:2: {said}"):
        read_trajectories(path)
