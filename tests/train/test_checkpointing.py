"""Laws of the checkpoints: what is read is what was written, and what is torn is passed over."""

import dataclasses
import json
import logging
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grm_jax.errors import UserError
from grm_jax.train import checkpointing
from grm_jax.train.checkpointing import Saver, restore, steps
from grm_jax.train.step import init_state
from tests.train.toy import assert_equal_trees, copied, toy_params

OPTIMIZER = optax.adamw(0.1)


def fresh(params=None, optimizer=OPTIMIZER, ema=True, frozen=None):
    return init_state(params or toy_params(), optimizer, ema=ema, frozen=frozen)


def save(folder, state, source):
    with Saver(folder) as saver:
        saver.save(state, source)
    return folder / str(int(state.step))


def state_of(step):
    """A state that no other step has, with bits that text or another type would lose."""
    state = fresh(frozen={"embedding": np.float32([7.0])})
    odd = np.float32([1 / 3, -0.0, 1e-42])  # the last is denormal
    params = {"w": jnp.asarray(odd + np.float32(step)), "norm": jnp.asarray([np.float32(1e-42)])}
    ema = jax.tree.map(lambda x: x * -1, params)
    return dataclasses.replace(state, step=jnp.int32(step), params=params, ema=ema, skipped=jnp.int32(step // 2))


def source_of(step):
    return {"number": step, "fraction": 0.1 + step, "nested": {"text": 'naïve "quotes"', "list": [1, [2, None]]}}


def bits(tree):
    return [(np.asarray(leaf).dtype.str, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (3, 6):
        assert save(folder, state_of(step), source_of(step)) == folder / str(step)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def assert_goes_on_from(folder, step):
    like = fresh(frozen={"embedding": np.float32([9.0])})
    state, source = restore(folder, like)
    assert bits(dataclasses.replace(state, frozen={})) == bits(dataclasses.replace(state_of(step), frozen={}))
    assert jax.tree.structure(state) == jax.tree.structure(like)
    assert state.frozen["embedding"] == 9  # of the model given, not of the checkpoint
    assert source == source_of(step)


def test_what_is_read_is_what_was_written_bit_for_bit(folder):
    assert_goes_on_from(folder, 6)


def test_a_restored_state_can_be_donated_and_the_file_stays(folder):
    state, _ = restore(folder, fresh())
    jax.jit(lambda state: jax.tree.map(lambda x: x + x, state), donate_argnums=0)(state)
    assert_goes_on_from(folder, 6)


def test_the_newest_two_are_kept(folder):
    for step in (9, 12, 100):
        save(folder, state_of(step), source_of(step))
    assert steps(folder) == [12, 100]
    assert sorted(path.name for path in folder.iterdir()) == ["100", "12"]
    assert_goes_on_from(folder, 100)


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_notes_its_part_of_the_same_list_whoever_comes_first(tmp_path, monkeypatch, index):
    """The other of two processes has written its digests before this one looks."""

    def wait(what):
        if what == "the files of a checkpoint":
            (tmp_path / ".3.tmp" / "digests" / f"{1 - index}.json").write_text("{}")

    for name, stand_in in {"index": lambda: index, "count": lambda: 2, "is_leader": lambda: True, "wait": wait}.items():
        monkeypatch.setattr(checkpointing.hosts, name, stand_in)
    checkpoint = save(tmp_path, state_of(3), source_of(3))
    there = (path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    noted = sorted(path for path in there if path.parts[0] != "digests")
    found = json.loads((checkpoint / "digests" / f"{index}.json").read_text())
    assert [*found] == [path.as_posix() for path in noted[index::2]] and len(noted) > 4


def test_the_best_is_kept_beside_the_newest_two(folder):
    """Steps 3 and 6 have no score. Of equal scores the earliest is the best; a score that is no number is none."""
    scores = {9: 0.5, 12: 0.75, 15: float("nan"), 18: 0.75, 21: 0.6, 24: None}
    with Saver(folder) as saver:
        for step, score in scores.items():
            saver.save(state_of(step), source_of(step), score)
    assert checkpointing.best(folder) == 12
    assert steps(folder) == [12, 21, 24]
    found = checkpointing.restore_best(folder, fresh())
    assert bits(dataclasses.replace(found, frozen={})) == bits(dataclasses.replace(state_of(12), frozen={}))
    assert_goes_on_from(folder, 24)
    flip_a_byte(folder / "12")
    assert checkpointing.restore_best(folder, fresh()) is None


def test_without_a_score_none_is_the_best(folder):
    assert checkpointing.best(folder) is None and checkpointing.restore_best(folder, fresh()) is None


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert restore(tmp_path, fresh()) is None
    assert restore(tmp_path / "missing", fresh()) is None
    (tmp_path / ".5.tmp" / "state").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "7").write_text("a file, not a folder")
    assert steps(tmp_path) == [] and restore(tmp_path, fresh()) is None


def largest_file(checkpoint):
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_byte(checkpoint):
    data = bytearray(largest_file(checkpoint).read_bytes())
    data[len(data) // 2] ^= 1
    largest_file(checkpoint).write_bytes(data)


def truncate(checkpoint):
    os.truncate(largest_file(checkpoint), largest_file(checkpoint).stat().st_size - 1)


def lose_a_file(checkpoint):
    largest_file(checkpoint).unlink()


def lose_the_source(checkpoint):
    (checkpoint / "source.json").unlink()


def change_the_source(checkpoint):
    text = (checkpoint / "source.json").read_text()
    assert '"number": 6' in text
    (checkpoint / "source.json").write_text(text.replace('"number": 6', '"number": 7'))


def cut_the_source(checkpoint):
    os.truncate(checkpoint / "source.json", 20)


def empty_the_source(checkpoint):
    (checkpoint / "source.json").write_text("[]")


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


DAMAGES = [
    flip_a_byte,
    truncate,
    lose_a_file,
    lose_the_source,
    change_the_source,
    cut_the_source,
    empty_the_source,
    empty,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_checkpoint_the_one_before_is_used_with_a_warning(folder, caplog, damage):
    damage(folder / "6")
    with caplog.at_level(logging.WARNING):
        assert_goes_on_from(folder, 3)
    (record,) = [record for record in caplog.records if record.name.startswith("grm_jax")]
    assert record.getMessage().startswith(f"{folder / '6'}: damaged (")
    assert record.getMessage().endswith("); the one before is used") and "\n" not in record.getMessage()


def test_when_all_are_damaged_the_run_does_not_start_anew(folder):
    flip_a_byte(folder / "3")
    lose_the_source(folder / "6")
    with pytest.raises(UserError, match=r"none of the checkpoints can be read; remove the folder to start anew"):
        restore(folder, fresh())


def test_a_damaged_checkpoint_does_not_push_out_whole_ones(folder):
    """Nor is it found again: the run has gone on without it."""
    for step in (50, 60):
        shutil.copytree(folder / "3", folder / str(step))
        empty(folder / str(step))
    save(folder, state_of(9), source_of(9))
    assert steps(folder) == [6, 9]
    assert_goes_on_from(folder, 9)


OTHERS = {
    "wider": {"params": toy_params() | {"w": np.zeros(4, np.float32)}},
    "another type": {"params": toy_params() | {"w": np.zeros(3, np.int32)}},
    "one leaf more": {"params": toy_params() | {"bias": np.zeros(1, np.float32)}},
    "one leaf less": {"params": {"w": np.zeros(3, np.float32)}},
    "another optimizer": {"optimizer": optax.sgd(0.1)},
    "no moving average": {"ema": False},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_model_or_optimizer_is_refused(folder, changes):
    with pytest.raises(
        UserError, match=r"checkpoints/6: is of another model or optimizer \(.+ differs\); name another run"
    ):
        restore(folder, fresh(**changes))


def test_what_a_killed_save_left_is_ignored_and_written_over(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "_flush", killed)
        with pytest.raises(KeyboardInterrupt):
            save(folder, state_of(9), source_of(9))
    assert (folder / ".9.tmp" / "source.json").exists()
    assert steps(folder) == [3, 6]
    assert_goes_on_from(folder, 6)
    (folder / ".9.tmp" / "state" / "rubbish").write_text("of an earlier life")
    save(folder, state_of(9), source_of(9))
    assert sorted(path.name for path in folder.iterdir()) == ["6", "9"]
    assert_goes_on_from(folder, 9)


REFUSALS = {
    "rename": OSError(28, "No space left on device"),
    "fsync": OSError(5, "Input/output error"),
    "orbax": ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),  # what TensorStore raises
}


@pytest.mark.parametrize(("where", "error"), REFUSALS.items(), ids=REFUSALS)
def test_a_disk_that_refuses_is_one_line_and_the_older_checkpoints_stay(folder, monkeypatch, where, error):
    def refuse(*_, **__):
        raise error

    place = checkpointing.os if where != "orbax" else checkpointing.ocp.AsyncCheckpointer
    monkeypatch.setattr(place, where if where != "orbax" else "save", refuse)
    with pytest.raises(UserError) as caught:
        save(folder, state_of(9), source_of(9))
    reason = error.args[-1]
    assert str(caught.value) == f"{folder / '9'}: cannot be written: {reason}; make room there"
    monkeypatch.undo()
    assert_goes_on_from(folder, 6)


def test_the_callers_state_is_as_it_was(tmp_path):
    state = state_of(4)
    before = copied(state)
    save(tmp_path, state, {})
    assert_equal_trees(copied(state), before)
