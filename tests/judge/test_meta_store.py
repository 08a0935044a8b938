"""Laws of meta scores in a run folder: they come after the samples, once, from one model."""

import dataclasses
import json

import pytest

from grm_jax.errors import UserError
from grm_jax.judge.run_folder import RunFolder, read_run
from grm_jax.judge.voting import vote
from tests.tiny_meta import item, sample

IDENTITY = {"model": "m", "template": "t", "seed": 0}


def scored(index, score):
    return dataclasses.replace(sample(index, "text"), meta_score=score)


@pytest.fixture
def run(tmp_path):
    with RunFolder.open(tmp_path, IDENTITY) as folder:
        folder.add_items([item("a"), item("b")])
        folder.append("a", [sample(i, "text") for i in range(3)])
        folder.append("b", [sample(0, "text", scores=None), sample(1, "text")])
    return tmp_path


def stored(run):
    return {j.judgement.id: [s.meta_score for s in j.judgement.samples] for j in read_run(run)}


def test_scores_are_added_to_samples_stored_before_and_samples_stay_as_they_are(run):
    before = (run / "samples.jsonl").read_bytes()
    with RunFolder.reopen(run) as folder:
        assert [s.index for s in folder.unscored("b")] == [1]  # what cannot vote needs no score
        folder.append_meta_scores("a", [scored(0, -1.5), scored(2, 0.5)], "meta@1")
        assert folder.done("a")[2].meta_score == 0.5
    with RunFolder.reopen(run) as folder:
        assert [s.index for s in folder.unscored("a")] == [1]
        folder.append_meta_scores("a", [scored(1, 2.0)], "meta@1")
        folder.append("a", [sample(3, "text")])
        assert [s.index for s in folder.unscored("a")] == [3]
    assert stored(run) == {"a": [-1.5, 2.0, 0.5, None], "b": [None, None]}
    assert (run / "samples.jsonl").read_bytes().startswith(before)
    judgement = read_run(run)[0].judgement
    assert vote(judgement, policy="meta_topk", k=3, k_meta=1).vote == "meta_topk"
    with pytest.raises(UserError, match="sample 3 has no meta score"):
        vote(judgement, policy="meta_topk")


def test_a_run_without_scores_has_no_file_of_them(run):
    with RunFolder.reopen(run) as folder:
        folder.check_meta_model("any@1")
    assert not (run / "meta_scores.jsonl").exists()


def test_another_meta_model_is_refused_until_the_scores_are_removed(run):
    with RunFolder.reopen(run) as folder:
        folder.append_meta_scores("a", [scored(0, 1.0)], "meta@1")
    with RunFolder.reopen(run) as folder:
        folder.check_meta_model("meta@1")
        for refused in (lambda: folder.check_meta_model("meta@2"),
                        lambda: folder.append_meta_scores("a", [scored(1, 1.0)], "meta@2")):  # fmt: skip
            with pytest.raises(UserError, match=r"scored by meta@1, now meta@2 is asked; .* remove meta_scores.jsonl"):
                refused()
    (run / "meta_scores.jsonl").unlink()
    with RunFolder.reopen(run) as folder:
        folder.append_meta_scores("a", [scored(0, 3.0)], "meta@2")
    assert stored(run)["a"] == [3.0, None, None]


def test_a_sample_is_scored_once_and_only_if_it_is_there(run):
    with RunFolder.reopen(run) as folder:
        folder.append_meta_scores("a", [scored(0, 1.0)], "meta@1")
        for wrong in (scored(0, 2.0), scored(9, 2.0), sample(1, "text")):
            with pytest.raises(ValueError, match="not all stored and now scored"):
                folder.append_meta_scores("a", [wrong], "meta@1")
    assert stored(run)["a"] == [1.0, None, None]


def test_a_line_torn_by_a_crash_is_scored_again(run):
    with RunFolder.reopen(run) as folder:
        folder.append_meta_scores("a", [scored(0, 1.0), scored(1, 2.0)], "meta@1")
    data = (run / "meta_scores.jsonl").read_bytes()
    (run / "meta_scores.jsonl").write_bytes(data[:-7])
    assert stored(run)["a"] == [1.0, None, None]
    notes = []
    with RunFolder.reopen(run, report=notes.append) as folder:
        folder.append_meta_scores("a", [scored(1, 2.0)], "meta@1")
    assert (run / "meta_scores.jsonl").read_bytes() == data
    assert len(notes) == 1 and "cut off an unfinished last line" in notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "z"}, "there is no sample 0 of 'z'"),
        ({"index": 7}, "there is no sample 7 of 'a'"),
        ({}, "sample 0 of 'a' is scored twice"),
        ({"index": 1, "model": "meta@2"}, "'meta@2' is not 'meta@1'"),
        ({"index": 1, "score": "high"}, "score: must be a number"),
        ({"index": 1, "more": 1}, "'more': unknown field"),
    ],
)
def test_a_corrupt_line_is_named(run, change, message):
    line = {"id": "a", "index": 0, "model": "meta@1", "score": 1.0}
    lines = [line, line | change]
    (run / "meta_scores.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(UserError, match=r"meta_scores\.jsonl:2: ") as error:
        read_run(run)
    assert message in str(error.value)
