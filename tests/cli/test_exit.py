"""An interrupted command ends at once, without what Python does at the end of a process."""

import subprocess
import sys

import pytest

from grm_jax.errors import Stopped


@pytest.mark.parametrize(("code", "ended"), [(130, 130), (143, 143), (0, 99), (2, 99)])
def test_only_an_interrupted_command_leaves_threads_as_they_are(code, ended):
    """Threads of a computation that still runs crash the end of Python at times; here an exit handler stands for them."""
    script = (
        "import atexit, os, sys, grm_jax.cli as cli\n"
        "atexit.register(lambda: (sys.stdout.flush(), os._exit(99)))\n"
        f"cli.main = lambda: {code}\n"
        "print('out')\n"
        "cli.command()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (ended, "out\n")


def test_a_run_that_was_told_to_stop_says_what_is_saved(grm, monkeypatch):
    def stopped(args):
        raise Stopped("step 7")

    monkeypatch.setattr("grm_jax.cli.info.run", stopped)
    code, out, error = grm("info", "tiny")
    assert (code, out, error) == (143, "", "grm info: told to stop; step 7 is saved\n")
