"""Laws of what stops a run from outside, of checkpoints that are written meanwhile, and of where the time went."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from grm_jax.errors import Stopped, UserError
from grm_jax.train import checkpointing, loop
from grm_jax.train.goodput import FILE, KINDS, Goodput
from grm_jax.train.interruptions import stop_requests
from grm_jax.train.loop import fit
from grm_jax.train.step import init_state
from grm_jax.train.training import Training
from tests.train.toy import Interrupted, Source, assert_equal_trees, copied, rows_of, stored, toy_loss, toy_params

pytestmark = pytest.mark.usefixtures("without_plots")
STEPS = 6


class Told(Source):
    """A source during whose batch `told` SIGTERM comes."""

    def __init__(self, told):
        super().__init__()
        self.told = told

    def next(self, params):
        if self.number + 1 == self.told:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().next(params)


def run(folder, source=None, **changes):
    settings = Training(steps=STEPS, learning_rate=0.1, warmup=2, save_every=4, log_every=1, **changes)
    return copied(fit(toy_params(), toy_loss, settings, source or Source(), folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_training_plots", lambda folder: None)
        return run(folder), rows_of(folder)


@pytest.mark.parametrize("told", [1, 3, 4])
def test_told_to_stop_a_run_saves_the_step_it_is_at_and_goes_on_to_the_same_bits(tmp_path, whole, told):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=f"step {told}"):
        run(tmp_path, Told(told))
    assert checkpointing.steps(tmp_path / "checkpoints")[-1] == told
    assert signal.getsignal(signal.SIGTERM) == before
    source = Source()
    assert_equal_trees(run(tmp_path, source), whole[0])
    assert rows_of(tmp_path) == whole[1]


def test_told_to_stop_at_the_last_step_a_run_ends(tmp_path, whole):
    assert_equal_trees(run(tmp_path, Told(STEPS)), whole[0])


def test_a_second_request_does_what_it_did_before():
    def interrupt(number, frame):
        raise Interrupted

    outside = signal.signal(signal.SIGTERM, interrupt)
    try:
        with stop_requests() as told:
            assert not told()
            os.kill(os.getpid(), signal.SIGTERM)
            assert told()
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, outside)


def test_outside_the_main_thread_no_signal_is_touched():
    found = []

    def body():
        with stop_requests() as told:
            found.append(told())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [False]


HANGING = """
import sys, time
from pathlib import Path
from grm_jax.train.loop import fit
from grm_jax.train.training import Training
from tests.train.toy import Source, toy_loss, toy_params

class Hanging(Source):
    def next(self, params):
        if self.number == 2:
            time.sleep(600)
        return super().next(params)

fit(toy_params(), toy_loss, Training(steps=5, step_limit=float(sys.argv[2])), Hanging(), Path(sys.argv[1]))
"""


def test_a_step_that_never_ends_ends_the_process_with_the_stacks(tmp_path):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path), "1.5"], capture_output=True, text=True,
        cwd=Path(__file__).parents[2], check=False, timeout=300, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 1 and time.monotonic() - begun < 300
    assert "Timeout (0:00:01.500000)!" in done.stderr and "in next" in done.stderr and "loop.py" in done.stderr


def test_the_state_is_taken_at_once_and_written_while_training_goes_on(tmp_path, monkeypatch):
    """Writing waits until the state has been donated to the next step and changed."""
    go_on, real = threading.Event(), checkpointing._flush
    monkeypatch.setattr(checkpointing, "_flush", lambda files: go_on.wait(60) and real(files))
    state = init_state(toy_params(), optax.adam(0.1))
    wanted = copied(state.params)
    with checkpointing.Saver(tmp_path) as saver:
        saver.save(state, {"number": 0})
        changed = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
        assert checkpointing.steps(tmp_path) == []
        go_on.set()
        saver.save(changed, {"number": 1})  # waits for the first
        assert checkpointing.steps(tmp_path)[0] == 0
    found, source = checkpointing.restore(tmp_path, init_state(toy_params(), optax.adam(0.1)))
    assert checkpointing.steps(tmp_path) == [0, 1] and source == {"number": 1}
    jax.tree.map(np.testing.assert_array_equal, copied(found.params), jax.tree.map(lambda x: x + 1, wanted))
    for name, leaf in stored(tmp_path / "0").items():
        if name.startswith("params."):
            np.testing.assert_array_equal(leaf, wanted[name.removeprefix("params.")])


def test_what_goes_wrong_in_writing_is_told_but_never_instead_of_what_stopped_the_run(tmp_path, monkeypatch):
    def full(files):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "_flush", full)
    state = init_state(toy_params(), optax.adam(0.1))
    with pytest.raises(UserError, match="No space left on device"), checkpointing.Saver(tmp_path) as saver:
        saver.save(state, {})
    with pytest.raises(Interrupted), checkpointing.Saver(tmp_path) as saver:
        saver.save(state, {})
        raise Interrupted
    with pytest.raises(UserError, match="No space left on device"):
        run(tmp_path / "run")


def test_the_time_of_all_lives_is_accounted_for(tmp_path):
    begun = time.time()
    with pytest.raises(Interrupted):
        run(tmp_path, Source(killed=6))  # saved at step 4: step 5 is done again
    time.sleep(0.2)
    run(tmp_path)
    found = json.loads((tmp_path / FILE).read_text())
    seconds = found["seconds"]
    assert (found["starts"], found["step"], set(seconds)) == (2, STEPS, set(KINDS))
    assert seconds["down"] >= 0.2 and all(seconds[kind] > 0 for kind in KINDS if kind != "redone")
    assert sum(seconds.values()) <= time.time() - begun
    assert found["goodput"] == pytest.approx(seconds["step"] / sum(seconds.values()))


def test_a_step_that_an_earlier_life_had_done_is_redone_not_done(tmp_path):
    life = Goodput(tmp_path)
    for number in (1, 2, 3):
        life.step(number, 0.5, 2.0)
    life.write()
    life = Goodput(tmp_path)
    for number in (2, 3, 4):
        life.step(number, 0.5, 2.0)
    life.write()
    seconds = json.loads((tmp_path / FILE).read_text())["seconds"]
    assert [seconds[kind] for kind in ("compile", "step", "redone", "data")] == [4.0, 6.0, 2.0, 3.0]
    (tmp_path / FILE).write_text("{")
    assert Goodput(tmp_path)._starts == 1
