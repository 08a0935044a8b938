"""Laws of the difficulty filter."""

import dataclasses
import json

import pytest

from grm_jax.errors import UserError
from grm_jax.judge.run_folder import RunFolder
from grm_jax.spct.difficulty import easy_items
from grm_jax.spct.trajectories import Trajectory, trajectory_to_json
from tests.tiny_meta import item, sample

RIGHT, WRONG = (7, 3), (3, 7)


def write(path, *critiques):
    made = [
        Trajectory(name, i, (0, 1), "x", scores, "ok" if scores else "no_block", scores == RIGHT)
        for i, (name, scores) in enumerate(critiques)
    ]
    path.write_text("".join(json.dumps(trajectory_to_json(each)) + "\n" for each in made))
    return path


def test_easy_is_what_is_right_every_time_in_all_sources_together(tmp_path):
    items = [item(name) for name in "abcd"] + [item("u", label=None)]
    one = write(
        tmp_path / "one.jsonl", ("a", RIGHT), ("a", RIGHT), ("b", RIGHT), ("b", WRONG), ("c", RIGHT), ("c", None)
    )
    assert easy_items([one], items) == {"a"}  # d was never judged; what cannot be read is wrong
    with RunFolder.open(tmp_path / "run", {"model": "m", "template": "t", "seed": 0}) as run:
        run.add_items([item("a"), item("d"), item("u", label=None)])
        run.append("a", [sample(0, "x", scores=WRONG)])
        run.append("d", [sample(0, "x", scores=RIGHT)])
        run.append("u", [sample(0, "x", scores=RIGHT)])
    assert easy_items([tmp_path / "run"], items) == {"d"}
    assert easy_items([one, tmp_path / "run"], items) == easy_items([tmp_path / "run", one], items) == {"d"}
    assert easy_items([one], items[1:]) == set()  # critiques of items that were not given
    assert easy_items([], items) == set()


def test_items_that_changed_are_refused(tmp_path):
    three = dataclasses.replace(item("a"), responses=("x", "y", "z"))
    with pytest.raises(UserError, match="item 'a' was judged with other responses"):
        easy_items([write(tmp_path / "t.jsonl", ("a", RIGHT))], [three])
    with RunFolder.open(tmp_path / "run", {"model": "m", "template": "t", "seed": 0}) as run:
        run.add_items([item("a")])
        run.append("a", [sample(0, "x")])
    with pytest.raises(UserError, match="item 'a' was judged with other responses"):
        easy_items([tmp_path / "run"], [dataclasses.replace(item("a"), responses=("x", "y"))])
