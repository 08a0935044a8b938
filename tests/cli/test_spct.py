"""`grm spct`: what cannot be is refused before the first stage begins; the shipped recipes are whole."""

from pathlib import Path

import pytest

from grm_jax.cli import configure
from grm_jax.data.jsonl import read_lines, write_jsonl
from grm_jax.data.records import Item, Turn
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.judge.run_folder import RunFolder
from grm_jax.spct.curve_stage import count_too_long
from grm_jax.spct.pipeline import check
from grm_jax.spct.plan import Plan
from grm_jax.spct.recipe import STAGES
from grm_jax.spct.run import Result
from grm_jax.spct.stages import Workshop
from tests.spct.miniature import write_miniature

RUNS = Path(__file__).parents[2] / "configs" / "runs"


@pytest.fixture(scope="module")
def gin_file(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("data"))


def plan(files, bindings, folder, chosen=STAGES):
    configure.load([str(file) for file in files], bindings, configure.SCOPES)
    made = Plan(configure.recipe(chosen), folder, chosen)
    check(folder, Workshop(made, print).stages())
    return made


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["Spct.k_meta=5"], "Spct.k_meta must be one of 1..4, or a share between 0 and 1, not 5"),
        (["Spct.k_meta=-1"], "Spct.k_meta must be one of 1..4"),
        (["Spct.k_meta=1.5"], "Spct.k_meta must be one of 1..4"),
        (["Spct.ks=(4, 2)"], "Spct.ks must be rising whole numbers"),
        (["Spct.ks=()"], "Spct.ks must be rising whole numbers"),
        (["Spct.ks=(0, 1)"], "Spct.ks must be rising whole numbers"),
        (["Spct.temperatures=(0.0,)"], "Spct.temperatures must be different positive numbers"),
        (["Spct.temperatures=(0.5, 0.5)"], "Spct.temperatures must be different positive numbers"),
        (["Spct.temperatures=()"], "Spct.temperatures must be different positive numbers"),
        (["Spct.split='train'"], "Spct.split must be one of valid, test, not 'train'"),
        (["Spct.dtype='int8'"], "Spct.dtype must be float32, bfloat16 or empty"),
        (["Spct.general_weight=-1"], "Spct.general_weight must be 0 or a positive number"),
        (["Spct.general='gone.jsonl'"], "gone.jsonl: no such file"),
        (["Spct.items='gone.jsonl'"], "gone.jsonl: no such file"),
        (["Spct.items='arena'"], "Spct.rft_items must be at least 1, not 0: the arena has no end"),
        (["Spct.rft_items=25"], "holds 24 items, Spct.rft_items asks 25 from number 0"),
        (["Spct.meta_first=24"], "holds 24 items, Spct.meta_items asks some from number 24"),
        (["Spct.meta_first=-1"], "Spct.meta_first must not be negative"),
        (["Spct.evaluation='arena'"], "Spct.evaluation_items must be at least 1"),
        (["Spct.base='gone'"], "model gone: no such folder"),
        (["Spct.sampler='gone'"], "model gone: no such folder"),
        (["Spct.meta_init='gone'"], "model gone: no such folder"),
        (["Spct.template='gone'"], "gone"),
        (["Spct.max_new=96"], "Spct.max_new is 96; it must be below the model's context of 96 tokens"),
        (["Rft.max_new=96"], "Rft.max_new is 96; it must be below"),
        (["Grpo.max_new=200"], "Grpo.max_new is 200; it must be below"),
        (["rft/Sft.length=95"], "rft/Sft.length is 95, and a critique may take 96 tokens"),
        (["Grpo.group=1"], "Grpo.group must be at least 2"),
        (["Grpo.kl_coefficient=-0.1"], "Grpo.kl_coefficient must be"),
        (["Rft.samples=0"], "Rft.samples is 0"),
        (["MetaRm.prompts=0"], "MetaRm.prompts must be at least 1"),
        (["base/Sft.steps=0"], "Sft.steps must be at least 1"),
        (["rft/Sft.steps=1.5"], "rft/Sft.steps = 1.5 must be of type int"),
        (["meta/MetaRm.steps=3"], "the scope 'meta' is not known; known here: base, rft"),
        (["base/SftData.sources=()"], "SftData.sources is empty"),
        (["base/SftData.sources=(('gone.jsonl', 1.0),)"], "gone.jsonl: no such file"),
        (["Gemma2Config.num_layers=3"], "num_layers"),
    ],
)
def test_a_mistake_of_any_stage_is_refused_before_the_first(refused, gin_file, tmp_path, bindings, message):
    error = refused(
        "spct", "--gin_file", gin_file, "--output", tmp_path / "run", *(f"--gin.{each}" for each in bindings)
    )
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "rtf"), "--only rtf: 'rtf' is no stage; the stages are base, rft, grpo, meta, curve"),
        (("--skip", "base,rft,grpo,meta,curve"), "leaves no stage to run"),
        (("--only", ""), "leaves no stage to run"),
        (("--only", "rft", "--skip", "meta"), "not allowed with argument"),
        (("--only", "rft"), "stage rft starts from base; run that as well, or set Spct.base to a model folder"),
        (("--only", "grpo"), "stage grpo needs a judge"),
        (("--only", "curve"), "stage curve needs a judge"),
        (("--skip", "rft,grpo", "--gin.Spct.meta_init='rft'"), "Spct.meta_init is 'rft', a stage that is neither run"),
        (("--only", "base", "--gin.Spct.base='tiny'"), "Spct.base takes the place of the stage base"),
    ],
)
def test_stages_that_lack_what_they_read_are_refused(refused, gin_file, tmp_path, options, message):
    assert message in refused("spct", "--gin_file", gin_file, "--output", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_items_without_a_label_are_refused_by_name(refused, gin_file, tmp_path):
    items = tmp_path / "items.jsonl"
    write_jsonl(items, [{"id": "one", "prompt": "a", "responses": ["u", "x"]}])
    for name in ("items", "evaluation"):
        error = refused(
            "spct", "--gin_file", gin_file, "--output", tmp_path / "run", f"--gin.Spct.{name}='{items}'",
            "--gin.Spct.meta_first=0",
        )  # fmt: skip
        assert f"{items}: item 'one' has no label" in error


def test_a_folder_of_something_else_is_left_alone(refused, gin_file, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    error = refused("spct", "--gin_file", gin_file, "--output", tmp_path)
    assert f"{tmp_path}: exists already; give --output a new folder, or the folder of a run to go on with" in error
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("too_long", "code"), [(0, 0), (2, 3)])
def test_the_end_is_a_summary_and_an_exit_code(grm, gin_file, tmp_path, monkeypatch, too_long, code):
    point = {"judge": "base", "temperature": 0.5, "vote": "voting", "k": 1, "group": "all", "mean": 0.625}
    given = []

    def run_spct(recipe, folder, chosen, configuration, *, bar, report):
        given.append((recipe.spct.seed, folder, chosen))
        assert "base/Sft.steps = 50" in configuration
        report("base: begins")
        return Result({"points": [point]}, folder / "report", too_long)

    monkeypatch.setattr("grm_jax.spct.run.run_spct", run_spct)
    found, out, _ = grm(
        "spct", "--gin_file", gin_file, "--output", tmp_path / "run", "--seed", 7, "--skip", "grpo, meta"
    )
    assert given == [(7, tmp_path / "run", ["base", "rft", "curve"])]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:4] == [
        "base: begins", "judge temperature vote @1", "base 0.5 Voting 62.5", f"wrote {tmp_path / 'run' / 'report'}"
    ]  # fmt: skip
    assert found == code and ("2 evaluation items not judged" in out) == bool(too_long)


def test_items_that_are_too_long_for_any_judge_are_counted_once(tmp_path):
    items = [Item(name, (Turn("user", "x"),), ("a", "b"), 0) for name in "xyz"]
    for judge, too_long in (("base", "xy"), ("rft", "y")):
        with RunFolder.open(tmp_path / f"{judge}-greedy", {"model": judge, "template": "t", "seed": 0}) as store:
            store.add_items(items)
            for name in too_long:
                store.append_too_long(name, 100, 50)
    assert count_too_long(["base", "rft"], items, tmp_path) == 2
    assert count_too_long(["base", "rft"], items[1:], tmp_path) == 1


def test_stages_that_are_not_run_need_no_settings(gin_file, tmp_path):
    text = gin_file.read_text()
    lean = tmp_path / "lean.gin"
    lean.write_text(
        "".join(line for line in text.splitlines(True) if not line.startswith(("Grpo", "MetaRm", "rft/Sft")))
    )
    made = plan([lean], [], tmp_path / "run", ["base", "curve"])
    assert made.chosen == ["base", "curve"] and made.judges == ["base"]
    with pytest.raises(UserError, match=r"rft/Sft.steps not set; .* or --gin.rft/Sft.steps=VALUE"):
        plan([lean], [], tmp_path / "run")


def test_each_stage_starts_from_the_last_judge_before_it(gin_file, tmp_path):
    def starts(chosen):
        made = plan([gin_file], [], tmp_path / "run", chosen)
        inputs = {stage.name: stage.inputs for stage in Workshop(made, print).stages()}
        return [inputs.get(name) for name in STAGES]

    assert starts(STAGES) == [(), ("base",), ("rft",), ("grpo", "rft", "base"), ("base", "rft", "grpo", "meta")]
    assert starts(["base", "grpo", "meta", "curve"]) == [
        (),
        None,
        ("base",),
        ("grpo", "base"),
        ("base", "grpo", "meta"),
    ]
    assert starts(["base", "rft", "curve"]) == [(), ("base",), None, None, ("base", "rft")]


def test_one_number_shifts_the_seeds_of_all_stages(gin_file):
    configure.load([str(gin_file)], ["Rft.seed=5"], configure.SCOPES)
    made = configure.recipe(STAGES, seed=100)
    seeds = [made.base.sft.seed, made.rft.sampling.seed, made.rft.sft.seed, made.grpo.seed, made.meta.seed]
    assert seeds == [100, 105, 100, 100, 100]
    assert made.spct.seed == 100


def test_the_tiny_recipe_can_be_run_as_it_is(tmp_path):
    made = plan([RUNS / "spct_tiny.gin"], [], tmp_path / "run")
    assert made.chosen == list(STAGES)
    shape = {}
    for file in (RUNS.parent / "models" / "tiny.gin", RUNS / "spct_tiny.gin"):
        lines = [line.decode().strip() for _, line in read_lines(file)]
        shape[file] = sorted(line for line in lines if line.startswith("Gemma2Config."))
    first, second = shape.values()
    assert first == second


def test_the_27b_recipe_has_the_numbers_of_the_paper(tmp_path):
    """Table of hyper-parameters of arXiv 2504.02495; a small model and a few items stand for what nobody has at hand."""
    with pytest.raises(UserError, match="the macro BASE is not set; add a line BASE = VALUE"):
        configure.load([str(RUNS / "spct_27b.gin")], [], configure.SCOPES)
    write_jsonl(
        tmp_path / "i.jsonl", [{"id": f"i{i}", "prompt": "a", "responses": ["u", "x"], "label": 0} for i in range(4)]
    )
    write_jsonl(tmp_path / "g.jsonl", [{"prompt": "a", "completion": "b"}])
    given = [
        f"{name}='{tmp_path / file}'"
        for name, file in (("ITEMS", "i.jsonl"), ("EVALUATION", "i.jsonl"), ("GENERAL", "g.jsonl"))
    ]
    given += [f"{name}='{model_folder('tiny')}'" for name in ("BASE", "SAMPLER")]
    with pytest.raises(UserError, match=r"holds 4 items, Spct.grpo_items asks 237000"):
        plan([RUNS / "spct_27b.gin"], given, tmp_path / "run")
    made = plan([RUNS / "spct_27b.gin"], [*given, "Spct.grpo_items=0"], tmp_path / "run")
    assert made.chosen == ["rft", "grpo", "meta", "curve"]
    spct, rft, grpo, meta = made.recipe.spct, made.recipe.rft, made.recipe.grpo, made.recipe.meta
    assert (rft.sft.learning_rate, rft.sft.rows, rft.sft.steps) == (5e-6, 1024, 900)
    assert (rft.sampling.samples, spct.meta_samples) == (3, 3)
    assert spct.general_weight == pytest.approx(1070 / 186, abs=1e-3)
    assert (grpo.learning_rate, grpo.prompts * grpo.group, grpo.group, grpo.steps) == (4e-7, 512, 4, 900)
    assert grpo.kl_coefficient == 0.08
    assert (meta.learning_rate, meta.prompts * meta.group) == (1e-5, 512)
    assert (spct.ks, spct.temperatures, spct.k_meta, spct.meta_init) == ((1, 8, 32), (0.5,), 0.5, "base")
    assert made.recipe.base is None
