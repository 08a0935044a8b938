"""Laws of the meta reward model's stage: what it reads, what it learns, and that it can be trained on."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from grm_jax.checkpoints.folder import load_params
from grm_jax.errors import UserError
from grm_jax.evaluate.calibration import auc
from grm_jax.judge.meta import MetaModel, load_meta, meta_scores
from grm_jax.judge.run_folder import RunFolder
from grm_jax.sampling.sampler import bucket
from grm_jax.spct.meta_data import MetaBatches, group_critiques, read_critiques
from grm_jax.spct.meta_stage import default_template, run_meta_stage
from grm_jax.spct.trajectories import Trajectory, trajectory_to_json
from grm_jax.text.template_file import load_template
from grm_jax.text.tokenizer import load_tokenizer
from grm_jax.train.meta_rm import MetaRm
from tests.tiny_judge import write_judge
from tests.tiny_meta import item, sample

GOOD, BAD = "Response 1 is plain and short.", "Response 1 is long and wrong."


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


def planted(count, start=0):
    """Trajectories whose text tells whether they are right: two of each item, with a number that tells nothing."""
    return [
        Trajectory(f"i{i}", j, (j, 1 - j), f"{GOOD if right else BAD} {i % 7}", (7, 3), "ok", right)
        for i in range(start, start + count)
        for j, right in enumerate((i % 2 == 0, i % 3 == 0))
    ]


def write(path, trajectories):
    path.write_text("".join(json.dumps(trajectory_to_json(each)) + "\n" for each in trajectories))
    return path


def items_of(trajectories):
    return {each.id: item(each.id) for each in trajectories}


def settings(**changes):
    fixed = {"learning_rate": 1e-2, "warmup": 2, "weight_decay": 0.0, "prompts": 16, "group": 2, "save_every": 0}
    return MetaRm(**{"steps": 25, **fixed, **changes})


@pytest.fixture(scope="module")
def trained(judge_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("meta")
    critiques = planted(40)
    notes = []
    source = write(output / "trajectories.jsonl", critiques)
    folder = run_meta_stage(
        judge_folder, list(items_of(critiques).values()), [source], settings(), output, report=notes.append
    )
    assert notes == [f"80 critiques of 40 items, {sum(each.accepted for each in critiques)} right"]
    return folder


@pytest.mark.slow
def test_planted_good_ranks_above_planted_bad_on_items_not_seen(trained):
    fresh = planted(6, start=100)
    wanted = [
        (it, [sample(t.index, t.text, t.order) for t in fresh if t.id == it.id]) for it in items_of(fresh).values()
    ]
    scores = [s.meta_score for samples in meta_scores(MetaModel.load(trained), wanted) for s in samples]
    right = np.array([each.accepted for each in fresh])
    assert auc(np.array(scores), right) == 1.0
    assert ((np.array(scores) > 0) == right).mean() > 0.9  # probabilities on the right side of a half, too


@pytest.mark.slow
def test_training_on_starts_from_trunk_and_head(trained, tmp_path):
    """A refresh of one tiny step gives the model it began with; a head of zeros or a fresh trunk would not."""
    critiques = planted(40, start=60)
    source = write(tmp_path / "more.jsonl", critiques)
    refreshed = run_meta_stage(
        trained, list(items_of(critiques).values()), [source], settings(steps=1, learning_rate=1e-9), tmp_path / "out",
        report=lambda _: None,
    )  # fmt: skip
    before, after = load_meta(trained), load_meta(refreshed)
    assert before.template == after.template
    assert np.abs(after.params["scalar_head"]["w"]).max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7), after.params, before.params)
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["accuracy"] == 1.0 and row["loss"] < 0.3  # it knows at once what it had learnt


def test_the_stage_hands_on_what_it_starts_from(judge_folder, tmp_path, monkeypatch):
    """A judge's trunk begins with a head of zeros, a meta model with its own; what training returns is saved."""
    started = []

    def train(config, params, source, settings, folder, progress):
        started.append(params)
        batch, _ = source.next(params)
        assert batch["tokens"].shape[0] == settings.prompts and batch["labels"].shape == batch["mask"].shape
        return params | {"scalar_head": {name: leaf + 1 for name, leaf in params["scalar_head"].items()}}

    monkeypatch.setattr("grm_jax.spct.meta_stage.train_meta_rm", train)
    critiques = planted(4)
    items, source = list(items_of(critiques).values()), write(tmp_path / "t.jsonl", critiques)
    first = run_meta_stage(judge_folder, items, [source], settings(), tmp_path / "one", report=lambda _: None)
    for _ in range(2):  # run again, it saves again
        second = run_meta_stage(first, items, [source], settings(), tmp_path / "two", report=lambda _: None)
    heads = [params["scalar_head"] for params in started]
    assert [float(head["b"]) for head in heads] == [0, 1, 1]
    assert [head["w"].tolist() for head in heads[:2]] == [[0] * 16, [1] * 16]
    _, own = load_params(judge_folder, "float32")
    jax.tree.map(np.testing.assert_array_equal, {name: started[1][name] for name in own}, own)
    assert load_meta(second).params["scalar_head"]["w"].tolist() == [2] * 16
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["model"]


def test_batches_show_every_group_once_an_epoch_and_go_on_from_their_state(judge_folder):
    critiques = planted(5)
    items = items_of(critiques)
    template, tokenizer = load_template("tiny"), load_tokenizer(judge_folder)
    groups, too_long = group_critiques(critiques, items, template, tokenizer, size=2, max_tokens=512)
    assert (len(groups), too_long) == (10, 0)  # two orders an item
    batches = MetaBatches(groups, prompts=5, seed=1)
    drawn = [batches.next({})[0] for _ in range(4)]
    for epoch in (drawn[:2], drawn[2:]):
        shown = [row for batch in epoch for row in zip(batch["prompt_lengths"], batch["labels"][:, 0], strict=True)]
        expected = [(len(each.group.prompt), float(each.right[0])) for each in groups]
        assert sorted(shown) == sorted(expected)
    again = MetaBatches(groups, prompts=5, seed=1)
    again.set_state(json.loads(json.dumps({"next": 3})))
    jax.tree.map(np.testing.assert_array_equal, again.next({})[0], drawn[3])
    assert batches.get_state() == again.get_state() == {"next": 4}


def test_a_batch_holds_critiques_of_like_length(judge_folder):
    """Half of the critiques are long: a batch is padded for them only where they are, and the order is not that of length alone."""
    tokenizer, template = load_tokenizer(judge_folder), load_template("tiny")
    critiques = [Trajectory("a", i, (0, 1), "word " * (40 if i % 2 else 4), (7, 3), "ok", True) for i in range(256)]
    groups, _ = group_critiques(critiques, {"a": item("a")}, template, tokenizer, size=1, max_tokens=512)
    batches = MetaBatches(groups, prompts=4, seed=1)
    padded = [batches.next({})[0]["tokens"].shape[2] for _ in range(64)]
    longest = [max(each.group.longest for each in groups[start::2]) for start in (0, 1)]
    assert {bucket(length) for length in longest} == set(padded) and len(set(padded)) == 2
    assert padded.count(max(padded)) <= 32 + 4  # of each 16 batches at most one holds both
    assert 4 <= sum(a != b for a, b in itertools.pairwise(padded)) <= 8


def test_critiques_of_a_prompt_stand_together_and_long_ones_are_counted(judge_folder):
    template, tokenizer = load_template("tiny"), load_tokenizer(judge_folder)
    one = [Trajectory("a", i, (0, 1), f"text {i}", (7, 3), "ok", i % 2 == 0) for i in range(5)]
    other = dataclasses.replace(one[0], index=5, order=(1, 0))
    long = dataclasses.replace(one[0], index=6, text="word " * 300)
    groups, too_long = group_critiques(
        [*one, other, long], {"a": item("a")}, template, tokenizer, size=2, max_tokens=200
    )
    assert too_long == 1
    assert [each.right for each in groups] == [(True, False), (True, False), (True,), (True,)]
    texts = [[tokenizer.decode(ids) for ids in each.group.critiques] for each in groups]
    assert texts == [["text 0", "text 1"], ["text 2", "text 3"], ["text 4"], ["text 0"]]
    np.testing.assert_array_equal(groups[0].group.prompt, groups[2].group.prompt)
    assert len(groups[3].group.prompt) != 0 and not np.array_equal(groups[3].group.prompt, groups[0].group.prompt)


def test_runs_and_trajectory_files_give_the_same_critiques(tmp_path):
    identity = {"model": "m", "template": "t", "seed": 0}
    labelled, unlabelled = item("a", label=1), item("b", label=None)
    with RunFolder.open(tmp_path / "run", identity) as run:
        run.add_items([labelled, unlabelled])
        run.append("a", [sample(0, "x", scores=(2, 9)), sample(1, "y", scores=(9, 2)), sample(2, "z", scores=None)])
        run.append("b", [sample(0, "x")])
    items = {"a": labelled, "b": unlabelled}
    found = read_critiques([tmp_path / "run"], items)
    assert [(each.id, each.text, each.accepted) for each in found] == [("a", "x", True), ("a", "y", False)]
    everything = read_critiques([tmp_path / "run"], items, unreadable=True)
    assert [each.accepted for each in everything] == [True, False, False]
    path = write(tmp_path / "t.jsonl", everything)
    assert read_critiques([path], items) == found
    assert read_critiques([path, tmp_path / "run"], items, unreadable=True) == everything * 2


def test_what_does_not_fit_the_items_is_refused(tmp_path):
    identity = {"model": "m", "template": "t", "seed": 0}
    with RunFolder.open(tmp_path / "run", identity) as run:
        run.add_items([item("a")])
        run.append("a", [sample(0, "x")])
    with RunFolder.open(tmp_path / "hinted", identity | {"hint": True}) as run:
        run.add_items([item("a")])
    changed = dataclasses.replace(item("a"), responses=("other", "texts"))
    three = write(tmp_path / "three.jsonl", [Trajectory("a", 0, (0, 2, 1), "x", (1, 2, 3), "ok", False)])
    for source, items, message in (
        ("run", {}, "is about item 'a', which was not given"),
        ("run", {"a": changed}, "item 'a' had other texts when it was judged"),
        ("run", {"a": item("a", label=None)}, "hold no critique that can be learnt from"),
        ("hinted", {"a": item("a")}, "drawn with hints"),
        (three, {"a": item("a")}, "had 3 responses and now has 2"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_critiques([tmp_path / source], items)
        assert "\n" not in str(error.value)


def test_critiques_that_are_all_right_teach_nothing(judge_folder, tmp_path):
    source = write(tmp_path / "t.jsonl", [each for each in planted(6) if each.accepted])
    with pytest.raises(UserError, match="all critiques are right"):
        run_meta_stage(
            judge_folder,
            [item(f"i{i}") for i in range(6)],
            [source],
            settings(),
            tmp_path / "out",
            report=lambda _: None,
        )


def test_the_wording_is_the_models_own_unless_that_is_the_long_one(judge_folder, tmp_path):
    assert default_template(judge_folder) == judge_folder / "template.toml"
    assert default_template(tmp_path) == "grm_meta"
    (tmp_path / "template.toml").write_text((judge_folder / "template.toml").read_text().replace('"tiny"', '"grm"'))
    assert default_template(tmp_path) == "grm_meta"
    plain, full = (load_template(name).blocks["instruction"] for name in ("grm_meta", "grm"))
    assert len(str(plain)) < len(str(full)) / 10
