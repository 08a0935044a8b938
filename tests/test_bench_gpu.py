"""scripts/bench_gpu: its bound is that worked out by hand for the 27B model, and a tiny run of it measures what it says."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from grm_jax.errors import UserError
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


@pytest.fixture
def measured(bench, monkeypatch):
    """Runs the parts of a tiny benchmark, all of them for real and once; the clock says what it is told."""

    def measure(*arguments, clock):
        seconds = iter(clock)
        monkeypatch.setattr(bench, "best_seconds", lambda run, repeats: (run(), next(seconds))[1])
        return list(bench.measured(bench.arguments([*SIZES, *arguments])))

    return measure


SIZES = (
    *("--model", "tiny", "--train-model", "tiny", "--prompt", "40", "--new", "8", "--k", "2", "--prompts", "2"),
    *("--rows", "8", "--accumulate", "1", "--length", "32"),
)


@pytest.mark.slow
def test_judging_is_timed_from_the_first_token_to_the_last(measured):
    machine, judge = measured("--part", "judge", clock=[2.5, 0.25, 0.5, 4.0])
    assert machine["kind"] == "cpu" and machine["devices"] == jax.device_count()
    assert judge["first_token_seconds"] == 0.5 and judge["step_seconds"] == (4.0 - 0.5) / 7
    assert judge["tokens_per_second"] == 2 * 2 * 8 / 4.0
    assert (
        judge["bandwidth"] == 10 * 2**26 / 0.25
    )  # the product, ten times; a copy, that reads and writes, is slower here
    assert judge["share_of_bound"] == pytest.approx(judge["bytes_per_step"] / 0.5 / judge["bandwidth"])


@pytest.mark.slow
def test_training_counts_the_tokens_and_flops_of_the_trainer(measured, monkeypatch, bench):
    monkeypatch.setattr(bench, "peak_flops", lambda kind: 1e9)
    _, sft, grpo = measured("--part", "sft", "--part", "grpo", clock=[2.0, 4.0])
    assert sft["tokens"] == 8 * 32 and sft["tokens_per_second"] == 128
    assert sft["flops_utilisation"] == pytest.approx(sft["model_flops"] / 2.0 / 1e9)
    # Each of eight prompts of 16 tokens once, and of each of its four completions of 8 the first seven.
    assert grpo["tokens"] == 8 * (16 + 4 * 7) and grpo["step_seconds"] == 4.0


@pytest.mark.slow  # eight devices on a CPU wait for each other
def test_on_a_mesh_each_device_reads_its_part(measured):
    (_, whole), (_, part) = (
        measured("--part", "judge", "--tensor", tensor, clock=[2.5, 0.25, 0.5, 4.0]) for tensor in ("1", "8")
    )
    # Two key/value heads cannot be divided among eight devices; the rest is.
    assert whole["bytes_per_step"] / 8 < part["bytes_per_step"] < whole["bytes_per_step"] / 2


@pytest.mark.slow  # eight devices on a CPU wait for each other
def test_utilisation_on_a_mesh_is_of_all_devices(measured, monkeypatch, bench):
    monkeypatch.setattr(bench, "peak_flops", lambda kind: 1e9)
    _, sft = measured("--part", "sft", "--fsdp", "8", clock=[2.0])
    assert sft["flops_utilisation"] == pytest.approx(sft["model_flops"] / 2.0 / 8e9)


@pytest.mark.slow
def test_a_clock_too_coarse_is_refused(measured):
    with pytest.raises(UserError, match="--new 8: too few tokens to time a step"):
        measured("--part", "judge", clock=[1.0, 1.0, 1.0, 1.0])


def test_a_mistake_is_one_line():
    done = subprocess.run([sys.executable, SCRIPT, "--new", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--new must be at least 2" in done.stderr
