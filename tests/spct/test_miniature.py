"""The whole of SPCT in small, from nothing to the report; stopped in every stage it ends as if it had not been."""

import contextlib
import json

import jax
import pytest

from grm_jax.cli import configure
from grm_jax.evaluate.accuracy import item_values
from grm_jax.evaluate.protocol import Protocol
from grm_jax.judge.judge import Judge
from grm_jax.judge.meta import MetaModel
from grm_jax.judge.run_folder import read_run
from grm_jax.spct.recipe import STAGES
from grm_jax.spct.run import run_spct
from grm_jax.spct.trajectories import read_trajectories
from tests.spct.miniature import write_miniature

pytestmark = pytest.mark.slow
STOPS = ("base: training", "rft: critiques", "rft: training", "grpo: training", "meta: critiques", "meta: training",
         "grpo-1: critiques", "rft-1: meta scores")  # fmt: skip


@pytest.fixture(scope="module")
def gin_file(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("data"))


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


class Stopping:
    """A bar that ends the command when the work of that name has come half of the way."""

    def __init__(self, what=None):
        self._what = what

    @contextlib.contextmanager
    def __call__(self, what, total):
        def advance(done, note):
            if what == self._what and done >= total / 2:
                raise KeyboardInterrupt

        yield advance


def spct(gin_file, output, *bindings, chosen=STAGES, stop=None):
    said = []
    configure.load([str(gin_file)], bindings, configure.SCOPES)
    recipe = configure.recipe(chosen)
    result = run_spct(recipe, output, chosen, configure.operative(), bar=Stopping(stop), report=said.append)
    return result, said


@pytest.fixture(scope="module")
def whole(gin_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    return output, spct(gin_file, output)[0]


def test_every_stage_leaves_what_the_next_one_reads(whole):
    run, result = whole
    assert {path.name for path in run.iterdir()} >= {*STAGES, "report", "items", "config.gin"}
    for name in ("base", "rft", "grpo"):
        assert Judge.load(run / name / "model", max_new=4).template.name == "tiny"
    weights = [(run / name / "model" / "model.safetensors").read_bytes() for name in ("base", "rft", "grpo", "meta")]
    assert len(set(weights)) == 4
    MetaModel.load(run / "meta" / "model")
    found = read_trajectories(run / "rft" / "samples" / "trajectories.jsonl")
    assert {True, False} == {each.accepted for each in found} and len(found) == 24 * 3
    assert len(read_run(run / "meta" / "samples-1")) == 12  # meta_first leaves the first twelve out
    assert {path.name for path in (run / "report").iterdir()} == {
        "report.json", "report.md", "curve.png", "curve_in_family.png", "curve_held_out.png",
    }  # fmt: skip
    assert result.too_long == 0 and result.folder == run / "report"


def test_the_report_has_the_figures_of_the_stored_runs(whole):
    run, result = whole
    report = json.loads((run / "report" / "report.json").read_text())
    assert report == json.loads(json.dumps(result.report))
    assert report["items"] == {"all": 8, "in_family": 4, "held_out": 4}
    votes = {(row["judge"], row["vote"], row["k"]) for row in report["points"]}
    assert votes == {
        (judge, vote, k) for judge in ("base", "rft", "grpo")
        for vote, k in (("greedy", 1), *((vote, k) for vote in ("voting", "meta") for k in (1, 2, 4)))
    }  # fmt: skip
    for row in report["points"]:
        name = f"{row['judge']}-{'greedy' if row['vote'] == 'greedy' else 1}"
        wanted = {"in_family": (0, 2, 4, 6), "held_out": (1, 3, 5, 7), "all": range(8)}[row["group"]]
        judged = [entry for entry in read_run(run / "curve" / name) if int(entry.judgement.id[1:]) in wanted]
        vote = "meta_topk" if row["vote"] == "meta" else "sum"
        values = item_values(judged, row["k"], Protocol(vote=vote, subsets=64))
        assert row["mean"] == pytest.approx(values.accuracy.mean(), abs=1e-12)
    assert report["minutes"].keys() == set(STAGES) and all(minutes > 0 for minutes in report["minutes"].values())


def test_stopped_in_every_stage_it_ends_as_if_it_had_not_been(whole, gin_file, tmp_path):
    run, result = whole
    for stop in STOPS:
        with pytest.raises(KeyboardInterrupt):
            spct(gin_file, tmp_path / "run", stop=stop)
    again, said = spct(gin_file, tmp_path / "run")
    assert [line for line in said if line.startswith("grpo")] == [
        f"grpo: finished before, {again.report['minutes']['grpo']:.1f} minutes"
    ]
    for name in ("base", "rft", "grpo", "meta"):
        weights = [(folder / name / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "run")]
        assert weights[0] == weights[1], name
    for file in ("rft/samples/accepted.jsonl", "rft/samples/trajectories.jsonl"):
        assert (run / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    assert {**again.report, "minutes": 0} == {**result.report, "minutes": 0}


def test_what_is_finished_is_not_run_again_and_more_can_be_asked_of_the_curve(whole, gin_file):
    run, _ = whole
    before = (run / "grpo" / "model" / "model.safetensors").stat().st_mtime_ns
    wider, said = spct(gin_file, run, "Spct.ks=(1, 2, 4, 6)", chosen=["curve"])
    assert said[0].startswith("curve: goes on")
    assert {row["k"] for row in wider.report["points"]} == {1, 2, 4, 6}
    same, said = spct(gin_file, run, "Spct.ks=(1, 2, 4, 6)")
    assert [line.split(",")[0] for line in said[:5]] == [f"{name}: finished before" for name in STAGES]
    assert {**same.report, "minutes": 0} == {**wider.report, "minutes": 0}
    assert (run / "grpo" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_stage_may_be_left_out(whole, gin_file, tmp_path):
    """Without rejective fine-tuning and reinforcement learning the base is the judge that is guided."""
    given = f"Spct.base='{whole[0]}/base/model'"
    result, said = spct(gin_file, tmp_path / "run", given, chosen=["meta", "curve"])
    assert [line for line in said if "critiques of" in line] == ["meta: " + said_of(tmp_path / "run" / "meta")]
    assert {row["judge"] for row in result.report["points"]} == {"base"}
    assert {row["vote"] for row in result.report["points"]} == {"greedy", "voting", "meta"}
    assert not (tmp_path / "run" / "base").exists() and not (tmp_path / "run" / "rft").exists()


def said_of(meta):
    judged = read_run(meta / "samples-1")
    items = {json.loads(line)["id"]: json.loads(line) for line in (meta.parent / "items" / "meta.jsonl").open()}
    read = [
        sample.scores[items[entry.judgement.id]["label"]] == max(sample.scores) and len(set(sample.scores)) > 1
        for entry in judged for sample in entry.judgement.samples if sample.scores
    ]  # fmt: skip
    ids = {entry.judgement.id for entry in judged for sample in entry.judgement.samples if sample.scores}
    return f"{len(read)} critiques of {len(ids)} items, {sum(read)} right"
