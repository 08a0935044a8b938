"""`grm paradigms`, `grm train btrm|pairrm|cloud` and `grm data parts`: what cannot be is refused before work is spent."""

from pathlib import Path

import pytest

from grm_jax.cli import configure, configure_paradigms
from grm_jax.data.jsonl import read_jsonl_items
from grm_jax.paradigms.stages import Workshop

GIN = Path(__file__).parents[2] / "configs" / "runs" / "paradigms_tiny.gin"


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Paradigms.sizes=('large', 'small')"], "Paradigms.sizes must be some of small, medium, large, in order"),
        (["Paradigms.sizes=()"], "Paradigms.sizes must be some of"),
        (["Paradigms.sizes=('huge',)"], "Paradigms.sizes must be some of"),
        (["Paradigms.ks=(4, 2)"], "Paradigms.ks must be rising whole numbers from 1"),
        (["Paradigms.temperature=0.0"], "Paradigms.temperature must be positive"),
        (["Paradigms.split='train'"], "Paradigms.split must be one of valid, test"),
        (
            ["Paradigms.preference_items=0"],
            "Paradigms.preference_items must be at least 1, not 0: the arena has no end",
        ),
        (["Paradigms.evaluation_items=0"], "Paradigms.evaluation_items must be at least 1"),
        (["Paradigms.evaluation='gone.jsonl'"], "gone.jsonl: no such file"),
        (["Paradigms.items='gone.jsonl'"], "gone.jsonl: no such file"),
        (["Paradigms.base='gone'"], "model gone: no such folder"),
        (["Paradigms.judge_template='tiny'"], 'Paradigms.judge_template: tiny has no answer = "best"'),
        (["judge/SftData.sources=(('gone.jsonl', 1.0),)"], "gone.jsonl: no such file"),
        (["judge/Sft.steps=0"], "Sft.steps must be at least 1"),
        (["cloud/RewardModel.preferences=0"], "RewardModel.preferences must be at least 1"),
        (["rft/Sft.steps=3"], "the scope 'rft' is not known"),
        (["plain/ArenaCritiques.shown='two'"], "ArenaCritiques.shown must be one of all, pair, one"),
    ],
)
def test_a_mistake_of_any_stage_is_refused_before_the_first(refused, tmp_path, bindings, message):
    small = ["Paradigms.preference_items=2", "Paradigms.evaluation_items=2"]
    error = refused(
        "paradigms", "--gin_file", GIN, "--output", tmp_path / "run", *(f"--gin.{each}" for each in (*small, *bindings))
    )
    assert message in error
    assert not (tmp_path / "run").exists()


def test_stages_are_named_by_size(refused, tmp_path):
    error = refused("paradigms", "--gin_file", GIN, "--output", tmp_path / "run", "--only", "small/judge")
    assert "'small/judge' is no stage; the stages are small/base, small/grm, small/btrm, small/evaluation" in error


def test_the_recipe_reads_what_it_says_it_reads(tmp_path):
    configure.load([str(GIN)], [], configure_paradigms.SCOPES)
    recipe = configure_paradigms.recipe(seed=10)
    workshop = Workshop(recipe, tmp_path, [], [], print)
    stages = {name: workshop.stage(name) for name in recipe.paradigms.stages}
    inputs = {name: stage.inputs for name, stage in stages.items()}
    assert inputs["large/cloud"] == ("large/critic",) and inputs["large/judge"] == ("large/base",)
    assert inputs["small/evaluation"] == ("small/grm", "small/btrm")
    assert {name.partition("/")[2] for name in inputs["large/evaluation"]} == {
        "grm", "plain", "judge", "critic", "btrm", "cloud", "pairrm"
    }  # fmt: skip
    steps = {name: stage.sft.steps for name, stage in recipe.supervised.items() if name != "base"}
    assert len({*steps.values(), *(each.steps for each in recipe.rewards.values())}) == 1  # the same budget
    streams = {name: stage.streams["arena"] for name, stage in recipe.supervised.items()}
    assert (streams["judge"].shown, streams["judge"].verdict, streams["critic"].shown) == ("pair", True, "one")
    assert not streams["plain"].principles and streams["grm"].given > 0 < streams["grm"].referenced
    assert all(stream.noise == streams["base"].noise for stream in streams.values())
    assert (
        {each.sft.seed for each in recipe.supervised.values()}
        == {each.seed for each in recipe.rewards.values()}
        == {10}
    )
    dims = [recipe.shapes[size].config.model_dim for size in ("small", "medium", "large")]
    assert dims == sorted(set(dims))


@pytest.mark.parametrize("stage", ["btrm", "pairrm", "cloud"])
def test_training_names_what_it_lacks(refused, tmp_path, items, stage):
    assert f"{stage}: give --model and --input" in refused("train", stage, "--output", tmp_path / "run")
    wrong = () if stage == "cloud" else ("--trajectories", items)
    error = refused("train", stage, "--model", "tiny", "--input", items, "--output", tmp_path / "run", *wrong)
    assert f"{stage}: --trajectories is for cloud alone" in error
    assert not (tmp_path / "run").exists()


def test_parts_and_aids_are_written_as_items(grm, tmp_path):
    whole, parts = tmp_path / "items.jsonl", tmp_path / "parts.jsonl"
    code, _, error = grm(
        "data", "arena", "--split", "valid", "--count", 20, "--principles", "--reference", "--output", whole
    )
    assert code == 0, error
    items = read_jsonl_items(whole)
    assert all(len(item.principles) == 3 and item.reference for item in items)
    for of, count in (("singles", lambda n: n), ("pairs", lambda n: n * (n - 1) // 2)):
        code, out, _ = grm("data", "parts", "--input", whole, "--of", of, "--output", parts)
        wanted = sum(count(len(item.responses)) for item in items)
        assert code == 0 and f"wrote {wanted} items" in out
        assert len(read_jsonl_items(parts)) == wanted
