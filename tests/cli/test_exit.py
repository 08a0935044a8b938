"""An interrupted command ends at once, without what Python does at the end of a process."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("code", "ended"), [(130, 130), (0, 99), (2, 99)])
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
