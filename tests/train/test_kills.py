"""A run that is killed again and again, at moments nobody chose, ends as one that was not."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.train.checkpointing import steps
from grm_jax.train.metrics import read_rows
from tests.train.toy import rows_of, stored

KILLS, STEPS = 20, 1500
RUN = f"""
import sys, time
from pathlib import Path
from grm_jax.train.loop import fit
from grm_jax.train.training import Training
from tests.train.toy import Source, toy_loss, toy_params

class Slow(Source):
    def next(self, params):
        time.sleep(0.01)
        return super().next(params)

training = Training(steps={STEPS}, learning_rate=0.1, warmup=2, ema_decay=0.5, save_every=25, log_every=1, keep_best="-loss")
fit(toy_params(), toy_loss, training, Slow(bad=(2, 100, 301)), Path(sys.argv[1]))
"""


def begin(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def started(folder: Path, process: subprocess.Popen, rows: int) -> bool:
    """Waits until the life has written rows of its own; tells whether it still runs."""
    while process.poll() is None:
        if (folder / "metrics.jsonl").exists() and len(read_rows(folder / "metrics.jsonl")) > rows:
            return True
        time.sleep(0.005)
    return False


def is_saving(folder: Path, since: float) -> bool:
    """Tells whether a checkpoint is half written by a life that began then; those of earlier lives may lie there too."""
    for path in (folder / "checkpoints").glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > since:
                return True
    return False


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    """Every other kill waits for a checkpoint to be half written."""
    rng = generator("kills", 0)
    folder, lives, in_saving = tmp_path / "killed", 0, 0
    while lives < KILLS:
        there = steps(folder / "checkpoints")
        since, process = time.time(), begin(folder)
        assert started(folder, process, there[-1] if there else 0), process.communicate()[0]
        time.sleep(float(rng.uniform(0.0, 0.3)))
        while lives % 2 and process.poll() is None and not is_saving(folder, since):
            pass
        assert process.poll() is None, "it has ended before it was killed; give it more steps"
        process.send_signal(signal.SIGKILL)
        process.wait()
        lives += 1
        in_saving += is_saving(folder, since)
    for name in ("killed", "whole"):
        process = begin(tmp_path / name)
        assert process.wait(600) == 0, process.communicate()[0]
    print(f"{lives} kills, {in_saving} of them while a checkpoint was written")
    assert KILLS // 4 <= in_saving < KILLS
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    kept = [steps(tmp_path / name / "checkpoints") for name in ("killed", "whole")]
    assert kept[0] == kept[1]
    for step in kept[0]:
        one, other = (stored(tmp_path / name / "checkpoints" / str(step)) for name in ("killed", "whole"))
        assert one.keys() == other.keys()
        for name, leaf in one.items():
            np.testing.assert_array_equal(leaf, other[name], err_msg=name)
