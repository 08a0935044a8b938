"""Laws of the supervised stage and of the folders that stages end with."""

import json

import pytest

from grm_jax.checkpoints.files import replacing_folder
from grm_jax.cli.train_folder import begin
from grm_jax.data.mixture import SftData
from grm_jax.errors import UserError
from grm_jax.judge.loading import load_model
from grm_jax.spct.sft_stage import default_template, run_sft_stage
from grm_jax.train.sft import Sft
from tests.tiny_judge import write_judge


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


def test_the_wording_is_the_models_own_else_the_default(judge_folder, tmp_path):
    assert default_template(judge_folder) == judge_folder / "template.toml"
    assert default_template(tmp_path) == "grm"
    assert default_template(tmp_path, new=True) == "tiny"


def test_the_stage_hands_on_what_it_starts_from_and_saves_what_training_returns(judge_folder, tmp_path, monkeypatch):
    def train(config, params, source, sft, folder, *, progress, export):
        batch, extra = source.next(params)
        assert batch["tokens"].shape == (sft.rows, sft.length) and extra["skipped"] > 0
        assert params["embedding"].dtype == "float32"
        export(1, params)
        return params | {"final_norm": params["final_norm"] + 1}

    monkeypatch.setattr("grm_jax.spct.sft_stage.train_sft", train)
    rows = [{"prompt": "a", "completion": "b " * size} for size in (1, 500)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = SftData(sources=((str(tmp_path / "rows.jsonl"), 1.0),))
    said = []
    for _ in range(2):  # run again, it saves again
        folder = run_sft_stage(
            judge_folder, data, {}, Sft(steps=2, rows=2, length=64, skip_long=True), tmp_path / "run",
            dtype="bfloat16", report=said.append,
        )  # fmt: skip
    assert folder == tmp_path / "run" / "model" and said == [f"saved {folder}-1"] * 2
    before, after, on_the_way = (load_model(each) for each in (judge_folder, folder, f"{folder}-1"))
    assert (after.params["final_norm"] - before.params["final_norm"]).tolist() == pytest.approx([1.0] * 16, abs=0.02)
    assert on_the_way.params["final_norm"].tolist() == pytest.approx(before.params["final_norm"].tolist(), abs=0.02)
    assert after.template == before.template
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model", "model-1"]


def test_a_folder_of_its_name_is_always_whole(tmp_path):
    model = tmp_path / "model"

    def write(text, stop=False):
        with replacing_folder(model) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
            assert not model.exists() or [path.name for path in model.iterdir()] == ["old"]
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("half", stop=True)
    assert not model.exists()
    write("old")
    with pytest.raises(KeyboardInterrupt):
        write("half", stop=True)
    assert [path.name for path in model.iterdir()] == ["old"]
    write("new")
    assert [path.name for path in model.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_without_a_checkpoint_may_begin_otherwise_and_one_with_it_may_not(tmp_path):
    run = tmp_path / "run"
    begin(run, "Sft.steps = 1", {"model": "a"})
    begin(run, "Sft.steps = 2", {"model": "b"})
    assert json.loads((run / "inputs.json").read_text()) == {"model": "b"}
    assert (run / "config.gin").read_text() == "Sft.steps = 2"
    (run / "checkpoints" / "1").mkdir(parents=True)
    begin(run, "Sft.steps = 2", {"model": "b"})
    with pytest.raises(UserError, match=r"begun with another configuration \(now: Sft.steps = 3\)"):
        begin(run, "Sft.steps = 3", {"model": "b"})
    with pytest.raises(UserError, match="begun with --model b, now left out is asked"):
        begin(run, "Sft.steps = 2", {"model": None})
    assert json.loads((run / "inputs.json").read_text()) == {"model": "b"}
