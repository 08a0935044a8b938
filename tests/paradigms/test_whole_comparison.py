"""The whole comparison of paradigms in small, from nothing to the report; stopped in every stage it ends as if it had not been."""

import contextlib
import json

import jax
import numpy as np
import pytest

from grm_jax.cli import configure, configure_paradigms
from grm_jax.data.jsonl import read_jsonl_items, write_jsonl
from grm_jax.data.parts import pairs, singles
from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import item_values
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.judge import Judge
from grm_jax.judge.meta import MetaModel
from grm_jax.judge.run_folder import read_run
from grm_jax.judge.run_store import load_store
from grm_jax.keys import generator
from grm_jax.paradigms.run import run_paradigms
from tests.spct.miniature import SHAPE

pytestmark = pytest.mark.slow
STOPS = ("large/grm: training", "large/cloud: critiques", "large/cloud: training", "large/pairrm: training",
         "large/evaluation: cloud: meta scores", "large/evaluation: judge: critiques")  # fmt: skip
ROWS = ("btrm", "pairrm", "cloud", "judge", "token_prob", "plain", "grm", "grm_given", "grm_reference")


@pytest.fixture(scope="module")
def gin_file(tmp_path_factory):
    """Items ask nothing, and a critique is its block: two numbers, one number, or the place of the best."""
    folder = tmp_path_factory.mktemp("data")
    rng = generator("test", "paradigms")

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    def task(n):
        return {"prompt": pick(*"abcdef"), "responses": list(rng.choice(list("uvxyz"), n, replace=False))}

    def items(name, count, aids):
        for i in range(count):
            n = (2, 2, 2, 1)[i % 4]  # more shapes to compile would teach nothing; test_paradigm_rows has more responses
            given = {"principles": [pick(*"pq")], "reference": pick(*"rs")} if aids else {}
            yield {"id": f"{name}{i}", **task(n), "label": int(rng.integers(n)) if n > 1 else 5, **given}

    def scores(n):
        return f"\\boxed{{{', '.join(map(str, rng.choice([2, 4, 7, 9], n, replace=False)))}}}"

    write_jsonl(folder / "train.jsonl", items("t", 16, False))
    write_jsonl(folder / "evaluation.jsonl", items("e", 8, True))
    for name, n, write in (
        ("all", 2, scores),
        ("one", 1, scores),
        ("best", 2, lambda n: f"\\boxed{{{rng.integers(n) + 1}}}"),
    ):
        write_jsonl(folder / f"{name}.jsonl", ({**task(n), "critique": write(n)} for _ in range(120)))
    shape = "".join(f"Gemma2Config.{name} = {value}\n" for name, value in SHAPE.items())
    gin = folder / "mini.gin"
    gin.write_text(
        f"""{shape}
small/Gemma2Config.model_dim = 16
ArenaTokenizer.examples = 300
Sft.rows = 8
Sft.length = 96
Sft.save_every = 2
Sft.steps = 3
Sft.learning_rate = 1e-3
SftData.sources = (("{folder}/all.jsonl", 1.0),)
judge/SftData.sources = (("{folder}/best.jsonl", 1.0),)
critic/SftData.sources = (("{folder}/one.jsonl", 1.0),)
judge/Sft.steps = 25
judge/Sft.learning_rate = 1e-2
critic/Sft.steps = 25
critic/Sft.learning_rate = 1e-2
base/Sft.steps = 40
base/Sft.learning_rate = 1e-2
base/Sft.warmup = 5
RewardModel.steps = 3
RewardModel.preferences = 4
RewardModel.save_every = 1
Paradigms.sizes = ("small", "large")
Paradigms.items = "{folder}/train.jsonl"
Paradigms.critic_items = 12
Paradigms.evaluation = "{folder}/evaluation.jsonl"
Paradigms.temperature = 1.0
Paradigms.ks = (1, 2, 4)
Paradigms.max_new = 12
""",
        encoding="utf-8",
    )
    return gin


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Every stage compiles programs of its own; the second run finds those of the first on the disk."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.1), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


def paradigms(gin_file, output, *bindings, chosen=None, stop=None):
    @contextlib.contextmanager
    def bar(what, total):
        def advance(done, note):
            if what == stop and done >= total / 2:
                raise KeyboardInterrupt

        yield advance

    configure.load([str(gin_file)], bindings, configure_paradigms.SCOPES)
    recipe = configure_paradigms.recipe()
    said = []
    stages = chosen or recipe.paradigms.stages
    return run_paradigms(recipe, output, stages, configure.operative(), bar=bar, report=said.append), said


@pytest.fixture(scope="module")
def whole(gin_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    return output, paradigms(gin_file, output)[0]


def test_every_stage_leaves_a_model(whole):
    run, _ = whole
    for name in ("small/base", "small/grm", "large/base", "large/grm", "large/plain", "large/judge", "large/critic"):
        wording = "tiny_judge" if name == "large/judge" else "tiny"
        assert Judge.load(run / name / "model", max_new=4).template.name == wording
    for name in ("small/btrm", "large/btrm", "large/pairrm", "large/cloud"):
        MetaModel.load(run / name / "model")
    assert not (run / "small" / "judge").exists()


def test_the_report_has_the_figures_of_what_is_stored(whole):
    run, result = whole
    report = json.loads((run / "report" / "report.json").read_text())
    assert report == json.loads(json.dumps(result))
    assert {path.name for path in (run / "report").iterdir()} == {
        "report.json", "report.md", "paradigms.png", "sizes.png"
    }  # fmt: skip
    rows = {(row["name"], row["size"]): row for row in report["rows"]}
    assert rows.keys() == {
        ("random", ""), ("shortest", ""), ("btrm", "small"), ("grm", "small"), *((name, "large") for name in ROWS)
    }  # fmt: skip
    assert report["items"] == 6  # two of the eight have one response
    for name in ("grm", "plain", "grm_given", "grm_reference"):
        for k, point in zip((1, 2, 4), rows[name, "large"]["points"], strict=True):
            values = item_values(read_run(run / "large" / "evaluation" / name), k, Protocol(subsets=64))
            assert point["mean"] == pytest.approx(values.accuracy.mean(), abs=1e-12)
    for size in ("small", "large"):
        rewards = json.loads((run / size / "evaluation" / "btrm.json").read_text())
        items = {item.id: item for item in read_jsonl_items(run / "items" / "evaluation.jsonl")}
        right = np.mean([int(np.argmax(rewards[i])) == items[i].label for i in rewards])
        assert [point["mean"] for point in rows["btrm", size]["points"]] == [pytest.approx(right)] * 3
    assert rows["random", ""]["points"][0]["mean"] == pytest.approx(1 / 2)
    for row in report["rows"]:
        mine = [point["mean"] for point in row["points"]]
        grm = rows["grm", row["size"] or "large"]["points"]
        wanted = [] if row["name"] == "grm" else [a - b["mean"] for a, b in zip(mine, grm, strict=True)]
        assert [each["mean"] for each in row["differences"]] == pytest.approx(wanted)


def test_what_is_shown_is_what_the_row_says(whole):
    run, _ = whole
    items = [i for i in read_jsonl_items(run / "items" / "evaluation.jsonl") if len(i.responses) > 1]
    stored = {name: load_store(run / "large" / "evaluation" / name) for name in ("judge", "cloud", "grm")}
    assert list(stored["judge"].items) == [pair.id for item in items for pair in pairs(item)]
    assert list(stored["cloud"].items) == [single.id for item in items for single in singles(item)]
    digests = {
        name: next(iter(load_store(run / "large" / "evaluation" / name).items.values())).digest
        for name in ("grm", "grm_given", "grm_reference")
    }
    assert len(set(digests.values())) == 3
    scored = [s for samples in stored["cloud"].samples.values() for s in samples.values() if s.outcome == "ok"]
    assert scored and all(sample.meta_score is not None for sample in scored)
    named = [s for samples in stored["judge"].samples.values() for s in samples.values() if s.outcome == "ok"]
    assert named and all(sorted(sample.scores) == [1, 10] and sample.verdict_logprob < 0 for sample in named)


def test_stopped_in_every_stage_it_ends_as_if_it_had_not_been(whole, gin_file, tmp_path):
    run, result = whole
    for stop in STOPS:
        with pytest.raises(KeyboardInterrupt):
            paradigms(gin_file, tmp_path / "run", stop=stop)
    again, said = paradigms(gin_file, tmp_path / "run")
    assert [line.split(",")[0] for line in said if line.startswith("large/judge")] == ["large/judge: finished before"]
    for name in ("large/grm", "large/cloud", "large/pairrm"):
        weights = [(folder / name / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "run")]
        assert weights[0] == weights[1], name
    assert {**again, "minutes": 0} == {**result, "minutes": 0}


def test_more_samples_can_be_asked_and_another_base_is_refused(whole, gin_file, tmp_path):
    run, _ = whole
    wider, said = paradigms(gin_file, run, "Paradigms.ks=(1, 6)", chosen=["small/evaluation", "large/evaluation"])
    assert said[0].startswith("small/evaluation: goes on")
    assert {point["k"] for row in wider["rows"] for point in row["points"]} == {1, 6}
    given = (f"Paradigms.base='{run}/large/base/model'", 'Paradigms.sizes=("large",)')
    result, _ = paradigms(gin_file, tmp_path / "run", *given, chosen=["large/btrm"])
    assert result is None and (tmp_path / "run" / "large" / "btrm" / "model").exists()
    with pytest.raises(UserError, match="large/btrm"):
        paradigms(gin_file, tmp_path / "run", given[1], chosen=["large/base", "large/btrm"])
