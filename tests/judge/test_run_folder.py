import dataclasses
import json
import os

import pytest

from grm_jax.data.jsonl import read_lines
from grm_jax.data.records import Item, Sample, Turn, judgement_from_json
from grm_jax.errors import UserError
from grm_jax.judge.run_folder import RunFolder, read_run

IDENTITY = {"model": "m", "template": "t", "seed": 3, "sampling": {"temperature": 0.5, "top_p": 1.0}, "max_new": 64}


def item(item_id, n=2, label=0):
    return Item(item_id, (Turn("user", "p"),), tuple(f"r{i}" for i in range(n)), label, domain="d")


def sample(index, scores=(3, 8), outcome="ok"):
    return Sample(
        index=index,
        order=(1, 0),
        text="line\u2028one\nline two é",
        scores=scores if outcome == "ok" else None,
        outcome=outcome,
        tokens=7,
        logprob=-2.25,
        seed=3,
    )


def fill(path, count=3):
    with RunFolder.open(path, IDENTITY) as run:
        run.add_items([item("a"), item("b")])
        run.append("a", [sample(i) for i in range(count)])
        run.append("b", [sample(0, outcome="truncated")])


def judgements(path):
    return [judgement_from_json(json.loads(line), "here") for _, line in read_lines(path / "judgements.jsonl")]


def test_a_reopened_run_has_what_was_appended(tmp_path):
    fill(tmp_path / "new" / "run")
    with RunFolder.open(tmp_path / "new" / "run", IDENTITY) as run:
        assert run.done("a") == {i: sample(i) for i in range(3)}
        assert run.done("b") == {0: sample(0, outcome="truncated")}
        assert run.done("c") == {}
        run.append("a", [sample(3)])
    assert len(read_run(tmp_path / "new" / "run")[0].judgement.samples) == 4


def test_samples_are_on_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), sync(fd)))
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.add_items([item("a")])
        run.append("a", [sample(0)])
        size = (tmp_path / "samples.jsonl").stat().st_size
        assert size > 0
        assert synced[-1] == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": {"temperature": 1.0, "top_p": 1.0}}, "sampling.temperature = 0.5, now 1.0 is asked"),
        ({"seed": 4}, "seed = 3, now 4 is asked"),
        ({"more": 1}, "more = None, now 1 is asked"),
    ],
)
def test_another_identity_is_refused_and_changes_nothing(tmp_path, change, message):
    fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message) as error:
        RunFolder.open(tmp_path, {**IDENTITY, **change})
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    RunFolder.open(tmp_path, dict(reversed(IDENTITY.items()))).close()


def test_a_crash_at_any_byte_of_a_write_loses_only_unfinished_lines(tmp_path):
    fill(tmp_path)
    log = tmp_path / "samples.jsonl"
    whole = log.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        torn = cut not in (0, *ends)
        assert sum(len(entry.judgement.samples) for entry in read_run(tmp_path, report=lambda note: None)) == kept
        notes = []
        with RunFolder.open(tmp_path, IDENTITY, report=notes.append) as run:
            assert len(run.done("a")) + len(run.done("b")) == kept
        assert log.read_bytes() == whole[: ([0, *ends])[kept]]
        assert len(notes) == torn
        assert all("cut off an unfinished last line" in note for note in notes)


def test_a_torn_tail_longer_than_one_read_is_found(tmp_path):
    fill(tmp_path)
    log = tmp_path / "samples.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b"x" * 200_000)
    RunFolder.open(tmp_path, IDENTITY, report=lambda note: None).close()
    assert log.read_bytes() == whole


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: b"{" + line, r"samples.jsonl:2: not valid JSON"),
        (lambda line: line.replace(b'"a"', b'"z"', 1), r"samples.jsonl:2: id: 'z' is no item of this run"),
        (lambda line: line.replace(b'"index": 1', b'"index": 0'), r"samples.jsonl:2: index: .* stored twice"),
        (lambda line: line.replace(b"[1, 0]", b"[0]").replace(b"[3, 8]", b"[3]"), r"samples.jsonl:2: order: .* 2 resp"),
    ],
)
def test_a_corrupt_line_is_named_and_left_alone(tmp_path, damage, message):
    fill(tmp_path)
    log = tmp_path / "samples.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = damage(lines[1])
    log.write_bytes(b"".join(lines))
    for use in (lambda: RunFolder.open(tmp_path, IDENTITY), lambda: read_run(tmp_path)):
        with pytest.raises(UserError, match=message):
            use()
    assert log.read_bytes() == b"".join(lines)


def test_a_write_that_fails_leaves_whole_lines(tmp_path, monkeypatch):
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.add_items([item("a")])
        run.append("a", [sample(0)])
        before = (tmp_path / "samples.jsonl").read_bytes()

        def full(fd):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(UserError, match=r"samples.jsonl: cannot be written \(No space left on device\)"):
                run.append("a", [sample(1)])
        assert (tmp_path / "samples.jsonl").read_bytes() == before
        run.append("a", [sample(1)])
        assert sorted(run.done("a")) == [0, 1]


def test_one_writer_at_a_time_but_readers_any_time(tmp_path):
    fill(tmp_path)
    with RunFolder.open(tmp_path, IDENTITY):
        with pytest.raises(UserError, match="another process is writing this run"):
            RunFolder.open(tmp_path, IDENTITY)
        assert len(read_run(tmp_path)) == 2
    RunFolder.open(tmp_path, IDENTITY).close()


def test_a_refused_open_leaves_no_lock_behind(tmp_path):
    fill(tmp_path)
    with pytest.raises(UserError):
        RunFolder.open(tmp_path, {**IDENTITY, "seed": 9})
    RunFolder.open(tmp_path, IDENTITY).close()


def test_judgements_are_rebuilt_from_the_store(tmp_path):
    fill(tmp_path)
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.write_judgements()
    first = judgements(tmp_path)
    assert [(j.id, j.scores, j.best, j.k, j.outcomes) for j in first] == [
        ("a", (9, 24), 1, 3, {"ok": 3}),
        ("b", None, None, 1, {"truncated": 1}),
    ]
    assert (first[0].model, first[0].template, first[0].seed) == ("m", "t", 3)
    assert [entry.judgement for entry in read_run(tmp_path)] == first
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.write_judgements(policy="mean", k=1)
    assert judgements(tmp_path)[0].scores == (3.0, 8.0)


def test_a_prompt_that_is_too_long_is_neither_lost_nor_stored_twice(tmp_path):
    for _ in range(2):
        with RunFolder.open(tmp_path, IDENTITY) as run:
            run.add_items([item("a")])
            run.append_too_long("a", tokens=9000, limit=8192)
            assert run.is_too_long("a")
            assert not run.is_too_long("b")
    line = {"id": "a", "outcome": "prompt_too_long", "tokens": 9000, "limit": 8192}
    assert [json.loads(text) for text in (tmp_path / "samples.jsonl").read_text().splitlines()] == [line]
    (entry,) = read_run(tmp_path)
    assert (entry.judgement.scores, entry.judgement.outcomes) == (None, {"prompt_too_long": 1})


def test_a_report_needs_no_other_file(tmp_path):
    fill(tmp_path)
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.add_items([item("a"), item("late", n=3, label=2)])
    notes = []
    entries = read_run(tmp_path, report=notes.append)
    assert [(entry.judgement.id, entry.n, entry.label, entry.domain) for entry in entries] == [
        ("a", 2, 0, "d"),
        ("b", 2, 0, "d"),
    ]
    assert len(notes) == 1
    assert "1 of 3 items are not judged yet" in notes[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (item("a", n=3), "item 'a' was stored with 2 responses and now has 3"),
        (item("a", label=1), "item 'a' was stored with label 0 and now has 1"),
        (dataclasses.replace(item("a"), responses=("r0", "edited")), "was stored with other texts"),
        (dataclasses.replace(item("a"), reference="new"), "was stored with other texts"),
    ],
)
def test_an_item_that_changed_is_refused(tmp_path, changed, message):
    fill(tmp_path)
    with RunFolder.open(tmp_path, IDENTITY) as run, pytest.raises(UserError, match=message):
        run.add_items([item("fresh"), changed])
    assert "fresh" not in (tmp_path / "items.jsonl").read_text()


def test_misuse_by_the_program_is_an_error_not_a_bad_store(tmp_path):
    fill(tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()
    with RunFolder.open(tmp_path, IDENTITY) as run:
        for item_id, samples in [("a", [sample(2)]), ("a", [sample(9), sample(9)]), ("nobody", [sample(0)])]:
            with pytest.raises(ValueError, match="unknown, or samples"):
                run.append(item_id, samples)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no run.json; give the output folder"):
        read_run(tmp_path)
    (tmp_path / "samples.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds samples.jsonl but no run.json"):
        RunFolder.open(tmp_path, IDENTITY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be used"):
        RunFolder.open(tmp_path / "file", IDENTITY)
