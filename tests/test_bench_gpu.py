"""scripts/bench_gpu: its bound is that worked out by hand for the 27B model, and a tiny run of it measures what it says."""

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grm_jax.model.config import PRESETS
from grm_jax.parallel.layout import Layout
from grm_jax.spct.programs import Shape

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_gpu"


@pytest.fixture(scope="module")
def bench():
    loader = importlib.machinery.SourceFileLoader("bench_gpu", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_gpu", loader))
    loader.exec_module(module)
    return module


# On one H200 whose memory was measured to copy 4.3 TB/s: weights 12.66 ms, keys and values of a prompt of 2,000 tokens 0.18,
# of 32 critiques of 500 tokens on the average 1.40. Parameters 27.227e9; a token has 46 * 2 * 16 * 128 bfloat16 numbers.
@pytest.mark.parametrize(("prompts", "milliseconds"), [(1, 14.24), (2, 15.8), (4, 19.0), (6, 22.1)])
def test_the_bound_of_a_step_of_27b_is_that_worked_out_by_hand(bench, prompts, milliseconds):
    read = bench.step_bytes(PRESETS["27b"], Shape(2000, 1000, prompts, 32), Layout())
    assert read == pytest.approx(2 * 27.227e9 + 46 * 2 * 16 * 128 * 2 * prompts * (2000 + 32 * 500), rel=1e-4)
    assert read / 4.3e12 == pytest.approx(milliseconds / 1000, rel=0.005)
    if prompts == 1:
        assert 32 * 4.3e12 / read == pytest.approx(2247, rel=0.001)


def run(*arguments, devices=1):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )


SIZES = (
    *("--model", "tiny", "--train-model", "tiny", "--prompt", "40", "--new", "64", "--k", "2", "--prompts", "2"),
    *("--rows", "2", "--accumulate", "1", "--length", "32", "--repeats", "1"),
)


@pytest.mark.slow
def test_a_tiny_run_measures_every_part():
    done = run(*SIZES, "--json")
    assert done.returncode == 0, done.stderr
    machine, judge, sft, grpo = map(json.loads, done.stdout.splitlines())
    assert machine["kind"] == "cpu" and machine["devices"] == 1
    assert judge["tokens_per_second"] == pytest.approx(2 * 2 * 64 / judge["seconds"])
    assert judge["seconds"] == pytest.approx(judge["first_token_seconds"] + 63 * judge["step_seconds"])
    assert judge["share_of_bound"] == pytest.approx(
        judge["bytes_per_step"] / (judge["bandwidth"] * judge["step_seconds"])
    )
    assert sft["tokens"] == 2 * 32 and sft["tokens_per_second"] == pytest.approx(64 / sft["step_seconds"])
    # Each of two prompts of 16 once, and of each of four completions of 8 tokens the first seven.
    assert grpo["tokens"] == 2 * (16 + 4 * 7)
    assert "flops_utilisation" not in sft  # the peak of a CPU is not known


@pytest.mark.slow
def test_on_two_devices_each_reads_its_part():
    done = run(*SIZES, "--tensor", "2", "--fsdp", "2", "--json", devices=2)
    assert done.returncode == 0, done.stderr
    machine, judge, sft, grpo = map(json.loads, done.stdout.splitlines())
    assert machine["devices"] == 2 and sft["tokens"] == 2 * 32
    one = run(*SIZES, "--part", "judge", "--json")
    whole = json.loads(one.stdout.splitlines()[1])["bytes_per_step"]
    assert whole / 2 < judge["bytes_per_step"] < 0.6 * whole  # norms, and what tells positions, are on both


@pytest.mark.slow
def test_prompts_that_are_not_sampled_together_are_refused():
    done = run(*SIZES, "--part", "judge", "--prompts", "3", "--new", "2")
    assert done.returncode == 1 and "--prompts 3: they are not sampled as one batch" in done.stderr
