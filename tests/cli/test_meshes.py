"""Commands on a mesh: the same results, and a run that goes on on another."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from grm_jax.train.checkpointing import Saver, steps

SFT = (
    "--gin.Sft.steps=4",
    "--gin.Sft.rows=8",
    "--gin.Sft.length=600",
    "--gin.Sft.save_every=2",
    "--gin.Sft.log_every=1",
)


def objects(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_judge_on_a_mesh_writes_the_critiques_of_one_device(grm, judge_folder, items, tmp_path):
    judge = ("judge", "--model", judge_folder, "--input", items, "--k", 4, "--max-new", 12, "--seed", 3)
    for name, mesh in (("one", ()), ("mesh", ("--gin.DecodeMesh.data=4", "--gin.DecodeMesh.tensor=2"))):
        code, _, error = grm(*judge, *mesh, "--output", tmp_path / name)
        assert code == 0, error
    one, mesh = (
        sorted((line["id"], line["index"], line["text"]) for line in objects(tmp_path / name / "samples.jsonl"))
        for name in ("one", "mesh")
    )
    assert len(one) == 32 and one == mesh
    assert "DecodeMesh.tensor = 2" in (tmp_path / "mesh" / "config.gin").read_text()


def test_a_mesh_that_does_not_fit_is_refused_in_one_line(refused, judge_folder, items, tmp_path):
    mesh = ("--gin.DecodeMesh.tensor=3", "--output", tmp_path / "run")
    error = refused("judge", "--model", judge_folder, "--input", items, *mesh)
    assert "DecodeMesh: data = 1, fsdp = 1, tensor = 3 has 3 places, there are 8 devices; make them equal" in error


@pytest.mark.slow
def test_training_goes_on_on_another_mesh(grm, judge_folder, tmp_path, monkeypatch):
    """Weights divided among eight devices, then among four that repeat them twice: the losses are those of one device."""

    def train(name, *mesh, stop=None):
        if stop:
            monkeypatch.setattr("grm_jax.train.checkpointing.Saver.save", stopping(stop))
        code, _, error = grm("train", "sft", "--model", judge_folder, *SFT, *mesh, "--output", tmp_path / name)
        monkeypatch.undo()
        return code, error

    def stopping(step):
        real = Saver.save

        def stopped(saver, state, source, score=None):
            real(saver, state, source, score)
            if int(state.step) == step:
                raise KeyboardInterrupt

        return stopped

    code, error = train("one")
    assert code == 0, error
    code, _ = train("moved", "--gin.TrainMesh.fsdp=8", stop=2)
    assert code == 130
    code, error = train("moved", "--gin.TrainMesh.data=2", "--gin.TrainMesh.fsdp=2", "--gin.TrainMesh.tensor=2")
    assert code == 0, error
    losses = [[row["loss"] for row in objects(tmp_path / name / "metrics.jsonl")] for name in ("one", "moved")]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.slow
def test_a_run_moves_from_8_devices_to_4_to_1_to_16(judge_folder, tmp_path):
    """Killed each time after two more checkpoints; the losses are those of a run on one device that nothing stopped."""
    settings = (
        "--gin.Sft.steps=16",
        "--gin.Sft.rows=16",
        "--gin.Sft.length=600",
        "--gin.Sft.save_every=2",
        "--gin.Sft.log_every=1",
    )
    lives = ((8, ("fsdp=8",)), (4, ("data=2", "fsdp=2")), (1, ()), (16, ("data=2", "fsdp=4", "tensor=2")))

    def begin(name, devices, mesh):
        command = "from grm_jax.cli import command; command()"
        options = ("train", "sft", "--model", judge_folder, *settings, *(f"--gin.TrainMesh.{axis}" for axis in mesh))
        return subprocess.Popen(
            [sys.executable, "-c", command, *map(str, options), "--output", str(tmp_path / name)],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    for number, (devices, mesh) in enumerate(lives, 1):
        process = begin("moved", devices, mesh)
        while number < len(lives) and (steps(tmp_path / "moved" / "checkpoints") or [0])[-1] < 4 * number:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        if number < len(lives):
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == (-signal.SIGKILL if number < len(lives) else 0), output
    still = begin("one", 1, ())
    assert still.wait(600) == 0, still.communicate()[0]
    losses = [[row["loss"] for row in objects(tmp_path / name / "metrics.jsonl")] for name in ("one", "moved")]
    assert len(losses[0]) == 16
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
