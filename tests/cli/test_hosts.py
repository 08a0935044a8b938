"""Commands in two processes of four devices: the results of one process, and what happens when one of them ends."""

import dataclasses
import json
import signal
import time

import numpy as np
import pytest

from grm_jax.data.jsonl import write_jsonl
from grm_jax.judge.run_folder import read_run
from grm_jax.train.checkpointing import steps
from tests.parallel.processes import both, ended, free_address, start
from tests.tiny_judge import CONFIG, write_judge

SFT = ("--gin.Sft.rows=8", "--gin.Sft.length=600", "--gin.Sft.log_every=1")
JUDGE = ("--k", 4, "--max-new", 12, "--seed", 3)
MESHES = {
    "across": ("--gin.TrainMesh.fsdp=8", "--gin.DecodeMesh.data=2", "--gin.DecodeMesh.tensor=4"),
    "inside": (
        "--gin.TrainMesh.data=2",
        "--gin.TrainMesh.fsdp=2",
        "--gin.TrainMesh.tensor=2",
        "--gin.DecodeMesh.tensor=8",
    ),
}


def sft(model, **settings):
    """Training on a mesh that goes across the processes."""
    chosen = (f"--gin.Sft.{name}={value}" for name, value in settings.items())
    return ("train", "sft", "--model", model, *SFT, *MESHES["across"][:1], *chosen)


def assert_noted(checkpoint):
    """Each file but the digests has a digest of one process."""
    there = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    parts = [json.loads((checkpoint / "digests" / f"{i}.json").read_text()) for i in range(2)]
    assert sorted(name for part in parts for name in part) == sorted(n for n in there if not n.startswith("digests/"))


def objects(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def judged(folder):
    """The judgements of a run; log-probabilities are compared apart, for sums round otherwise in other company."""
    found = [entry.judgement for entry in read_run(folder)]
    logprobs = [sample.logprob for judgement in found for sample in judgement.samples]
    plain = [
        dataclasses.replace(j, samples=tuple(dataclasses.replace(s, logprob=0.0) for s in j.samples), seconds=None)
        for j in found
    ]
    return plain, logprobs


def assert_same_store(folder, one):
    (found, logprobs), (wanted, others) = judged(folder), judged(one)
    assert found == wanted
    np.testing.assert_allclose(logprobs, others, rtol=1e-5)


def assert_done(results):
    assert [code for code, _ in results] == [0, 0], "\n".join(output for _, output in results)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A judge that four devices can divide among them."""
    config = dataclasses.replace(CONFIG, num_heads=8, num_kv_heads=4)
    return write_judge(tmp_path_factory.mktemp("models") / "random", config)


def test_each_host_judges_its_share_and_the_store_is_that_of_one_process(grm, model, items, tmp_path):
    judge = ("judge", "--model", model, "--input", items, *JUDGE)
    assert_done(ended(both(*judge, "--output", tmp_path / "two", "--gin.DecodeMesh.tensor=4")))
    code, _, error = grm(*judge, "--output", tmp_path / "one")
    assert code == 0, error
    assert_same_store(tmp_path / "two", tmp_path / "one")
    shares = [objects(tmp_path / "two" / part / "samples.jsonl") for part in ("", "hosts/1")]
    assert [len({line["id"] for line in share}) for share in shares] == [4, 4]
    assert (
        not (tmp_path / "two" / "hosts" / "0").exists()
        and not (tmp_path / "two" / "hosts" / "1" / "items.jsonl").exists()
    )
    before = [path.read_bytes() for path in sorted((tmp_path / "two").rglob("samples.jsonl"))]
    code, _, error = grm(*judge, "--output", tmp_path / "two")  # one process finds nothing left to do
    assert code == 0, error
    assert [path.read_bytes() for path in sorted((tmp_path / "two").rglob("samples.jsonl"))] == before


@pytest.mark.slow
def test_on_one_mesh_of_all_hosts_process_0_stores_all(grm, model, items, tmp_path):
    judge = ("judge", "--model", model, "--input", items, *JUDGE)
    assert_done(ended(both(*judge, "--output", tmp_path / "two", *MESHES["across"])))
    code, _, error = grm(*judge, "--output", tmp_path / "one")
    assert code == 0, error
    assert_same_store(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "hosts" / "1" / "samples.jsonl").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("--gin.DecodeMesh.data=4",), ("--gin.DecodeMesh.data=8",)], ids=["each", "together"])
def test_items_stop_early_wherever_they_are_drawn(grm, tmp_path, mesh):
    """Decisions are per item: hosts that share the items, and hosts that draw together, stop as one process does."""
    data, stop = tmp_path / "arena.jsonl", ("--stop", "confident", "--confidence", 0.8, "--round", 2)
    assert grm("data", "arena", "--split", "test", "--count", 6, "--seed", 1, "--output", data)[0] == 0
    judge = ("judge", "--model", "tiny", "--input", data, "--k", 8, "--temperature", 1, "--max-new", 160, *stop)
    assert_done(ended(both(*judge, "--output", tmp_path / "two", *mesh)))
    code, _, error = grm(*judge, "--output", tmp_path / "one")
    assert code == 0, error
    assert_same_store(tmp_path / "two", tmp_path / "one")
    made = [objects(tmp_path / name / "judgements.jsonl") for name in ("two", "one")]
    decisions = [[(each["id"], each["k"], each["best"], each["stop"]) for each in run] for run in made]
    assert decisions[0] == decisions[1]
    assert 2 <= min(k for _, k, _, _ in decisions[0]) < 8


@pytest.mark.slow
def test_rejection_sampling_and_evaluation_spread_over_hosts(grm, model, items, tmp_path):
    rft = ("rft", "--model", model, "--input", items, "--samples", 2, "--hinted", "--max-new", 12)
    evaluation = (
        "eval",
        "--benchmark",
        "arena",
        "--limit",
        6,
        "--model",
        model,
        "--k",
        "1,2",
        "--max-new",
        12,
        "--partial",
    )
    for name, command in (("rft", rft), ("eval", evaluation)):
        two, one = tmp_path / f"{name}-2", tmp_path / f"{name}-1"
        assert_done(ended(both(*command, "--output", two)))
        code, _, error = grm(*command, "--output", one)
        assert code == 0, error
        assert_same_store(two, one)
        for file in one.glob("*.jsonl"):
            if file.name not in ("samples.jsonl", "judgements.jsonl", "times.jsonl"):
                assert objects(two / file.name) == objects(file), file.name
        assert (two / "hosts" / "1" / "samples.jsonl").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("meshes", MESHES.values(), ids=MESHES)
def test_training_in_two_processes_is_that_of_one(grm, model, tmp_path, meshes):
    """The losses, and the model, are those of eight devices in one process."""
    command = ("train", "sft", "--model", model, *SFT, *meshes[:3], "--gin.Sft.steps=4", "--gin.Sft.save_every=2")
    assert_same_training(grm, command, tmp_path)


@pytest.mark.slow
def test_reinforcement_learning_in_two_processes_is_that_of_one(grm, model, items, tmp_path):
    settings = (
        "--gin.Grpo.steps=2",
        "--gin.Grpo.prompts=4",
        "--gin.Grpo.group=4",
        "--gin.Grpo.max_new=12",
        "--gin.Grpo.log_every=1",
    )
    meshes = (
        "--gin.TrainMesh.data=2",
        "--gin.TrainMesh.fsdp=2",
        "--gin.TrainMesh.tensor=2",
        "--gin.DecodeMesh.data=4",
        "--gin.DecodeMesh.tensor=2",
    )
    assert_same_training(grm, ("train", "grpo", "--model", model, "--input", items, *settings, *meshes), tmp_path)


def assert_same_training(grm, command, tmp_path):
    results = ended(both(*command, "--output", tmp_path / "two"))
    assert_done(results)
    code, _, error = grm(*command, "--output", tmp_path / "one")
    assert code == 0, error
    two, one = (objects(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for name in one[0].keys() & {"loss", "gradient_norm", "reward", "kl"}:
        np.testing.assert_allclose(
            [row[name] for row in two], [row[name] for row in one], rtol=1e-4, atol=1e-6, err_msg=name
        )
    from safetensors.numpy import load_file

    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("two", "one")]
    for name, leaf in weights[1].items():
        np.testing.assert_allclose(weights[0][name], leaf, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_one_is_killed_the_other_says_so_and_the_run_goes_on(grm, model, tmp_path):
    command = sft(model, save_every=2, steps=400)
    output = tmp_path / "run"
    processes = both(*command, "--output", output)
    await_file(output / "checkpoints" / "2", processes)
    processes[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    (code, said), (killed, _) = ended(processes, 120)
    assert killed == -signal.SIGKILL
    assert code == 4, said
    assert (
        "process 1 of 2 has ended without a word; finished work is kept, run the same command again on all hosts"
        in said
    )
    assert "Traceback" not in said and time.monotonic() - begun < 60
    last = steps(output / "checkpoints")[-1]
    assert_noted(output / "checkpoints" / str(last))
    short = [*command[:-1], f"--gin.Sft.steps={last + 2}"]
    # Another number of steps is another schedule, so another run: it is enough that it goes on.
    (output / "config.gin").write_text(
        (output / "config.gin").read_text().replace("Sft.steps = 400", f"Sft.steps = {last + 2}")
    )
    assert_done(ended(both(*short, "--output", output)))
    assert [row["step"] for row in objects(output / "metrics.jsonl")] == list(range(1, last + 3))


@pytest.mark.slow
def test_told_to_stop_one_all_save_the_same_step(model, tmp_path):
    command = sft(model, save_every=1000, steps=4000)
    output = tmp_path / "run"
    processes = both(*command, "--output", output)
    await_file(output / "metrics.jsonl", processes)
    time.sleep(2)
    processes[1].send_signal(signal.SIGTERM)
    results = ended(processes, 120)
    assert [code for code, _ in results] == [143, 143], results
    (saved,) = steps(output / "checkpoints")
    assert all(f"told to stop; step {saved} is saved" in said for _, said in results)


@pytest.mark.slow
def test_a_judge_whose_peer_is_killed_keeps_what_is_stored(grm, model, tmp_path):
    items = tmp_path / "items.jsonl"
    write_jsonl(
        items, ({"id": f"i{i}", "prompt": "Odd?" * (1 + i % 40), "responses": ["yes", "no"]} for i in range(400))
    )
    judge = ("judge", "--model", model, "--input", items, "--max-new", 12, "--k", 2, "--rows", 4)
    processes = both(*judge, "--output", tmp_path / "run")
    await_file(tmp_path / "run" / "hosts" / "1" / "samples.jsonl", processes, size=1)
    processes[0].send_signal(signal.SIGKILL)
    _, (code, said) = ended(processes, 120)
    assert code == 4 and "process 0 of 2 has ended without a word" in said, said
    code, _, error = grm(*judge, "--output", tmp_path / "run")
    assert code == 0, error
    code, _, error = grm(*judge, "--output", tmp_path / "one")
    assert code == 0, error
    assert_same_store(tmp_path / "run", tmp_path / "one")


def test_another_command_on_another_host_is_refused_by_both(model, items, tmp_path):
    address = free_address()
    command = ("judge", "--model", model, "--input", items, "--output", tmp_path / "run", "--k")
    results = ended([start(0, 2, address, *command, 2), start(1, 2, address, *command, 4)])
    for code, said in results:
        assert code == 2
        assert said.startswith("grm judge: process 1 was started with '--coordinator") and said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--coordinator", "h:1"], "give --coordinator, --processes and --process together"),
        (
            ["--coordinator", "h:1", "--processes", "2", "--process", "2"],
            "--process 2: there are --processes 2, so it is from 0 to 1",
        ),
        (["--coordinator", "h", "--processes", "2", "--process", "1"], "write HOST:PORT"),
        (["--distributed", "--process", "1"], "--distributed finds the hosts by itself"),
        (["--distributed", "--startup-limit", "0"], "--startup-limit must be at least 1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(refused, items, tmp_path, arguments, said):
    assert said in refused(*arguments, "judge", "--input", items, "--output", tmp_path / "run")


def test_commands_for_one_host_are_refused_on_several(refused, tmp_path):
    error = refused("--coordinator", "h:1", "--processes", 2, "--process", 1, "report", tmp_path)
    assert "grm report: runs on one host only; on several do judge, meta-score, eval, rft, train" in error


def await_file(path, processes, size=0, seconds=600):
    begun = time.monotonic()
    while not (path.exists() and path.stat().st_size >= size):
        running = [process.poll() is None for process in processes]
        assert all(running) and time.monotonic() - begun < seconds, [
            p.communicate()[0] for p in processes if p.poll() is not None
        ]
        time.sleep(0.05)
