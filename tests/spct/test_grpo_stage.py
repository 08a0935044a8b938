"""Laws of the stage of reinforcement learning: what it refuses before computing, and that it goes on bit for bit."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest

import grm_jax.spct.grpo_stage as stage
import grm_jax.spct.rollouts
from grm_jax.checkpoints.folder import load_params
from grm_jax.data.arena.corpus import corpus
from grm_jax.data.records import Item, Turn
from grm_jax.errors import UserError
from grm_jax.judge.judge import Judge
from grm_jax.spct.grpo_stage import run_grpo_stage
from grm_jax.spct.rewards import Rewards
from grm_jax.train import checkpointing
from grm_jax.train.grpo import Grpo
from grm_jax.train.loop import CHECKPOINTS
from grm_jax.train.metrics import WALL_CLOCK
from tests.spct.test_difficulty import RIGHT, WRONG, write
from tests.tiny_judge import CONFIG, write_judge
from tests.tiny_meta import item

ITEMS = [item(f"i{i}", label=i % 2) for i in range(4)]


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


def settings(**changes):
    fixed = {"prompts": 2, "group": 3, "max_new": 8, "learning_rate": 1e-3, "save_every": 1, "kl_coefficient": 0.1}
    return Grpo(**{"steps": 4, **fixed, **changes})


@pytest.fixture
def varied(monkeypatch):
    """Rewards that a random judge can earn: for the sum of its letters."""

    def rewards(items, samples, settings, known):
        total = np.array([[float(sum(map(ord, sample.text)) % 5) for sample in row] for row in samples])
        return Rewards(total, {"rule": total})

    monkeypatch.setattr(grm_jax.spct.rollouts, "rollout_rewards", rewards)


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in found]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"updates": 2}, {"lora_rank": 2, "temperature": 0.7, "export_every": 2}])
def test_a_run_that_was_killed_ends_with_the_same_bits(judge_folder, tmp_path, varied, changes):
    """The folder as it was after three of four steps, between the updates of a batch in the first case, is a killed run."""
    notes = []

    def kill(step, note):
        if step == 3:
            begun = time.monotonic()  # checkpoints are written, and old ones removed, while training goes on
            while checkpointing.steps(tmp_path / "whole" / CHECKPOINTS) != [2, 3]:
                assert time.monotonic() - begun < 300
                time.sleep(0.05)
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    whole = run_grpo_stage(
        judge_folder, ITEMS, settings(**changes), tmp_path / "whole", progress=kill, report=notes.append
    )
    steps = []
    resumed = run_grpo_stage(
        judge_folder, ITEMS, settings(**changes), tmp_path / "killed", report=lambda _: None,
        progress=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert steps == [4]
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
    assert notes[0] == "4 items to learn from; left out: 0 too easy, 0 with prompts over 504 tokens"
    assert notes[-1] == "shapes compiled: 2 to sample, 1 to train"
    assert Judge.load(whole, max_new=4).template.name == "tiny"
    before, after = load_params(judge_folder)[1], load_params(whole)[1]
    change = np.abs(after["layers"]["local"]["attention"]["query"] - before["layers"]["local"]["attention"]["query"])
    assert 1e-4 < change.max() < 1e-1
    first, second, *_, last = rows(tmp_path / "whole")
    assert first["kl"] < 1e-9 < last["kl"]  # it starts at the reference
    assert first["ratio"] == 1.0 or abs(first["ratio"] - 1) < 1e-6
    assert max(row["mismatch"] for row in rows(tmp_path / "whole")) < 1e-5
    assert {"entropy", "clip_low", "clip_high", "flat_groups", "length", "outcome_ok", "reward"} <= last.keys()
    if "export_every" in changes:
        assert (tmp_path / "whole" / "model-2" / "template.toml").is_file() and second["ratio"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"updates": 2, "reduction": "dapo", "level": "sequence", "clip_high": 0.4}])
def test_what_is_rewarded_is_written_more_often(judge_folder, tmp_path, monkeypatch, changes):
    """The share of letters in a rollout of a random judge: from rollout to update, every sign must be right."""

    def rewards(items, samples, settings, known):
        total = np.array([[sum(map(str.isalpha, s.text)) / max(len(s.text), 1) for s in row] for row in samples])
        return Rewards(total, {"rule": total})

    monkeypatch.setattr(grm_jax.spct.rollouts, "rollout_rewards", rewards)
    more = {"steps": 60, "prompts": 4, "group": 8, "learning_rate": 5e-3, "kl_coefficient": 0.001, "save_every": 0}
    run_grpo_stage(judge_folder, ITEMS, settings(**{**more, **changes}), tmp_path / "out", report=lambda _: None)
    rewarded = [row["reward"] for row in rows(tmp_path / "out")]
    assert np.mean(rewarded[-10:]) > np.mean(rewarded[:10]) + 0.15


@pytest.fixture
def started(monkeypatch):
    """Nothing is trained; what training was given is kept, and the parameters are returned."""
    calls = []

    def train(config, params, rollouts, settings, output, *, progress, export):
        calls.append((rollouts, settings))
        return params

    monkeypatch.setattr(stage, "train_grpo", train)
    return calls


def test_easy_and_long_items_are_left_out_and_counted(judge_folder, tmp_path, started):
    long = dataclasses.replace(ITEMS[3], conversation=(Turn("user", "word " * 600),))
    easy = write(tmp_path / "t.jsonl", ("i0", RIGHT), ("i1", RIGHT), ("i1", WRONG))
    notes = []
    folder = run_grpo_stage(
        judge_folder, [*ITEMS[:3], long], settings(max_new=0), tmp_path / "out", easy=[easy], report=notes.append
    )
    assert notes[0] == "2 items to learn from; left out: 1 too easy, 1 with prompts over 256 tokens"
    rollouts, given = started[0]
    assert [each.id for each in rollouts._items] == ["i1", "i2"]
    assert given.max_new == 256 and given.objective.length == 256  # the judge's own, where none is given
    assert (folder / "model.safetensors").read_bytes() == (judge_folder / "model.safetensors").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model"]
    with pytest.raises(UserError, match="no item is left to learn from"):
        run_grpo_stage(judge_folder, ITEMS[:1], settings(), tmp_path / "no", easy=[easy], report=notes.append)


def test_without_a_penalty_the_reference_is_computed_for_who_names_one(judge_folder, tmp_path, started):
    for beta, reference, used in ((0.1, None, True), (0.0, None, False), (0.0, judge_folder, True)):
        run_grpo_stage(
            judge_folder, ITEMS, settings(kl_coefficient=beta), tmp_path / "out", reference=reference,
            report=lambda _: None,
        )  # fmt: skip
        assert (started[-1][0]._reference is not None) is used


def test_what_cannot_be_learnt_from_is_refused_before_anything_is_computed(judge_folder, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr(stage, "load_params", refuse)
    single = Item("s", (Turn("user", "1 + 1?"),), ("2",), 0)
    wider = write_judge(tmp_path / "wider", dataclasses.replace(CONFIG, vocab_size=408))
    other = write_judge(tmp_path / "other", CONFIG, text=[line[::-1] for line in corpus("train", 40, 0)])
    for items, reference, message in (
        ([], None, "there is no item to learn from"),
        ([*ITEMS, item("u", label=None)], None, "item 'u' has no label, as 1 of 5"),
        ([single], None, "item 's': label 0 of a single response is no score from 1 to 10"),
        ([dataclasses.replace(single, label=7.5)], None, "label 7.5 of a single response"),
        (ITEMS, wider, "another vocabulary than .*: 408 entries against 400"),
        (ITEMS, other, "another vocabulary than .*: the same 400 ids for other pieces"),
        (ITEMS, tmp_path / "gone", "no such folder"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run_grpo_stage(judge_folder, items, settings(), tmp_path / "out", reference=reference)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
