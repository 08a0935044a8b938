"""Laws of scoring critiques, and of the meta model's folder."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from grm_jax.checkpoints.folder import load_params
from grm_jax.errors import UserError
from grm_jax.judge.meta import HEAD_FILE, MetaModel, load_meta, meta_name, meta_scores
from grm_jax.model.critique_reward import HEAD
from grm_jax.model.gemma2 import Gemma2, forward
from grm_jax.text.template import encode_prompt
from tests.tiny_meta import item, sample, write_meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory, judge_folder):
    return write_meta(tmp_path_factory.mktemp("meta") / "meta", judge_folder)


@pytest.fixture(scope="module")
def meta(folder):
    return MetaModel.load(folder)


WANTED = [
    (
        item("7"),
        [sample(0, "good"), sample(1, "bad", (1, 0)), sample(2, "no verdict", scores=None), sample(3, "so so")],
    ),
    (item("8"), [sample(2, "worse", (1, 0))]),  # computed together with one of item 7
    (item("twelve", 3), [sample(5, "x <end_of_turn> y", (2, 0, 1), (1, 2, 3))]),
]


@pytest.fixture(scope="module")
def scores(meta):
    return meta_scores(meta, WANTED)


def test_a_score_is_the_head_at_the_end_of_turn_of_the_plain_forward(folder, scores):
    """The prompt shows the responses in the order that the judge saw; the critique follows as text, closed by a control token."""
    model = load_meta(folder)
    control = model.tokenizer.control_id("<end_of_turn>")
    rows, expected = [], []
    for (it, _), scored in zip(WANTED, scores, strict=True):
        for s in scored:
            if s.outcome == "ok":
                turns = [(turn.role, turn.content) for turn in it.conversation]
                prompt = encode_prompt(model.template, model.tokenizer, turns, [it.responses[i] for i in s.order])
                critique = model.tokenizer.encode(s.text)
                assert control not in critique
                rows.append([*prompt.ids, *critique, control])
                expected.append(s.meta_score)
    size = max(map(len, rows))
    tokens = np.array([row + [0] * (size - len(row)) for row in rows], np.int32)
    inside = np.array([[1] * len(row) + [0] * (size - len(row)) for row in rows], np.int32)
    _, trunk = load_params(folder, "float32")
    run = jax.jit(lambda params, tokens, inside: forward(Gemma2(model.config), params, tokens, segments=inside)[0])
    hidden = np.asarray(run(jax.tree.map(jnp.asarray, trunk), tokens, inside), np.float64)
    head = model.params[HEAD]
    logits = [hidden[i, len(row) - 1] @ head["w"] + head["b"] for i, row in enumerate(rows)]
    np.testing.assert_allclose(expected, logits, rtol=0, atol=1e-5)
    assert np.ptp(logits) > 0.1


def test_a_score_is_the_same_alone_and_in_any_batch(meta, scores):
    for (it, samples), scored in zip(WANTED, scores, strict=True):
        for before, after in zip(samples, scored, strict=True):
            if before.outcome == "ok":
                alone = meta_scores(meta, [(it, [before])])[0][0]
                assert alone.meta_score == pytest.approx(after.meta_score, abs=1e-5)
    (it, samples), _, other = WANTED
    crowd = [sample(10 + i, "so so") for i in range(17)]  # more than one batch takes of a prompt
    mixed = meta_scores(meta, [other, (it, [*reversed(samples), *crowd])])[1]
    by_index = {s.index: s.meta_score for s in mixed}
    assert by_index[0] == pytest.approx(scores[0][0].meta_score, abs=1e-5)
    np.testing.assert_allclose([by_index[s.index] for s in crowd], by_index[3], rtol=0, atol=1e-5)


def test_only_what_can_vote_is_scored_and_nothing_else_changes(scores):
    for (_, samples), scored in zip(WANTED, scores, strict=True):
        assert [dataclasses.replace(s, meta_score=None) for s in scored] == samples
        assert [s.meta_score is not None for s in scored] == [s.outcome == "ok" for s in samples]
        assert all(isinstance(s.meta_score, float) for s in scored if s.outcome == "ok")


def test_a_critique_that_does_not_fit_is_refused_before_any_compute(meta):
    long = (item("7"), [sample(0, "good"), sample(4, "word " * 600)])
    with pytest.raises(UserError, match=r"item '7': sample 4 takes \d+ tokens with its prompt, .* holds 512") as error:
        next(iter(meta.score([long])))
    assert "\n" not in str(error.value)


def test_a_saved_model_is_the_one_that_was_saved(folder, judge_folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "meta")
    assert meta_name(copy) == meta_name(folder) == load_meta(folder).name
    model = load_meta(folder)
    assert model.params[HEAD]["b"] == np.float32(0.25)
    other = write_meta(tmp_path / "other" / "meta", judge_folder, seed=1)
    assert meta_name(other) != meta_name(folder)  # the trunk is the same, the head is not
    assert not np.array_equal(load_meta(other).params[HEAD]["w"], model.params[HEAD]["w"])


def test_a_folder_without_a_fitting_head_is_refused_in_one_line(folder, judge_folder, tmp_path):
    with pytest.raises(UserError, match=f"has no {HEAD_FILE}, so it is no meta model"):
        MetaModel.load(judge_folder)
    with pytest.raises(UserError, match="no such folder"):
        MetaModel.load(tmp_path / "gone")
    copy = shutil.copytree(folder, tmp_path / "meta")
    save_file({"w": np.zeros(5, np.float32), "b": np.float32(0)[...]}, copy / HEAD_FILE)
    with pytest.raises(UserError, match=r"does not hold float32 w \[16\] and b \[\]"):
        load_meta(copy)
    (copy / HEAD_FILE).write_bytes(b"no safetensors")
    with pytest.raises(UserError, match="damaged"):
        load_meta(copy)
    assert set(load_file(folder / HEAD_FILE)) == {"w", "b"}
