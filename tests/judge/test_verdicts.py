"""A judge that names the best response: its verdict as scores, and how sure the model was of it."""

import numpy as np
import pytest

from grm_jax.data.records import Item, Turn, sample_from_json, sample_to_json
from grm_jax.judge.judge import Judge
from grm_jax.sampling.sampler import Completion
from tests.tiny_judge import CONFIG, write_judge


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    folder = write_judge(tmp_path_factory.mktemp("model") / "random", CONFIG)
    return {name: Judge.load(folder, template=name) for name in ("tiny_judge", "tiny")}


def completion(judge, parts, stopped=True):
    """Parts (text, log-probability of each of its tokens), and the end of the turn."""
    ids, logprobs = [], []
    for text, logprob in parts:
        pieces = judge._tokenizer.encode(text)
        ids += pieces
        logprobs += [logprob] * len(pieces)
    return Completion(
        np.array([*ids, judge._tokenizer.control_id("<end_of_turn>")]), np.float32([*logprobs, -9.0]), stopped
    )


ITEM = Item("i", (Turn("user", "which?"),), ("a", "b", "c"))


@pytest.mark.parametrize(("order", "best"), [((0, 1, 2), 1), ((2, 0, 1), 0), ((1, 2, 0), 2)])
def test_a_verdict_is_about_the_response_that_stood_there(judges, order, best):
    sample = judges["tiny_judge"].read(0, order, completion(judges["tiny_judge"], [("Best: \\boxed{2}", -1.0)]), 0)
    assert sample.outcome == "ok"
    assert sample.scores == tuple(10 if i == best else 1 for i in range(3))


@pytest.mark.parametrize("before", ["", "Best: ", "é ünï 1 \\boxed{1}\n"])
@pytest.mark.parametrize("after", ["", " So it is.\n"])
def test_the_verdict_s_log_probability_is_that_of_its_tokens_alone(judges, before, after):
    judge = judges["tiny_judge"]
    parts = [(before + "\\boxed{", -7.0), ("3", -0.25), ("}" + after, -5.0)]
    sample = judge.read(0, (0, 1, 2), completion(judge, parts), 0)
    assert sample.scores == (1, 1, 10)
    assert sample.verdict_logprob == pytest.approx(-0.25)
    assert sample_from_json(sample_to_json(sample), "x") == sample


def test_there_is_none_where_there_is_no_verdict(judges):
    judge = judges["tiny_judge"]
    for text, outcome in (("\\boxed{4}", "out_of_range"), ("the second", "no_block"), ("\\boxed{1, 2}", "wrong_count")):
        sample = judge.read(0, (0, 1, 2), completion(judge, [(text, -1.0)]), 0)
        assert (sample.outcome, sample.scores, sample.verdict_logprob) == (outcome, None, None)
    cut = judge.read(0, (0, 1, 2), completion(judge, [("\\boxed{1}", -1.0)], stopped=False), 0)
    assert (cut.outcome, cut.verdict_logprob) == ("truncated", None)
    scored = judges["tiny"].read(0, (0, 1), completion(judges["tiny"], [("\\boxed{7, 3}", -1.0)]), 0)
    assert (scored.scores, scored.verdict_logprob) == ((7, 3), None)
    assert "verdict_logprob" not in sample_to_json(scored)
