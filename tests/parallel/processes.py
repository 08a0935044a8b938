"""The command `grm` as several processes of four devices each, as hosts run it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEVICES = 4
_GRM = "from grm_jax.cli import command; import sys; sys.exit(command())"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(process: int, processes: int, address: str, *arguments: object, limit: float = 120) -> subprocess.Popen:
    hosts = ("--coordinator", address, "--processes", processes, "--process", process, "--startup-limit", limit)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", _GRM, *map(str, (*hosts, *arguments))],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def both(*arguments: object) -> list[subprocess.Popen]:
    address = free_address()
    return [start(i, 2, address, *arguments) for i in range(2)]


def ended(processes: list[subprocess.Popen], seconds: float = 900) -> list[tuple[int, str]]:
    """(exit code, what was printed) of each."""
    outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]
