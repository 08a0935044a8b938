"""The processes of a run, one a host: each has devices of its own, and all are started with the same command.

Whoever starts a run says `with hosts.running(...)`. By default there is one process, for which nothing here does anything. (jax is
imported only where it is started: who reads a run needs none.)
"""

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

import numpy as np

from grm_jax.errors import Stopped, UserError
from grm_jax.parallel.peers import Hello, Peers, gather, join, split_address

_PACKAGES = ("grm_jax", "jax", "jaxlib", "flax", "numpy")
T = TypeVar("T")

_peers: Peers | None = None
_waits = Counter[str]()


def index() -> int:
    """Number of this process, from 0."""
    return _peers.hello.process if _peers else 0


def count() -> int:
    """How many processes there are."""
    return _peers.hello.processes if _peers else 1


def is_leader() -> bool:
    """Tells whether this process writes what a run has one of."""
    return index() == 0


def share(things: Sequence[T]) -> Sequence[T]:
    """This process's part of what all processes have in the same order; those of all together are everything once."""
    return things[index() :: count()]


def wait(what: str) -> None:
    """Waits until all processes are here; for each name they come as often. May be called from any thread."""
    if _peers:
        _waits[what] += 1
        _peers.wait(f"{what} {_waits[what]}")


def any_of(here: bool) -> bool:
    """Tells whether it is so in any process; all ask at the same place."""
    if not _peers:
        return here
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(here))))


@contextlib.contextmanager
def running(
    address: str | None, processes: int | None, process: int | None, command: Sequence[str], *,
    limit: float, lost: Callable[[str], None],
) -> Iterator[None]:  # fmt: skip
    """Inside, this is one of the processes of a run.

    Args:
        address: "HOST:PORT" of process 0; None to let jax find out about the cluster (Cloud TPU, GKE, Slurm and the like).
        processes: how many there are; None with `address`.
        process: number of this one; likewise.
        command: what it was started with, the same for all.
        limit: seconds that the others may take to come.
        lost: called once, from a thread, when another process has ended before its time; it had best end this one.

    Raises:
        UserError: others did not come or were started with something else, process 0 is not reached, or no cluster is found.
    """
    global _peers
    _waits.clear()
    versions = {name: version(name) for name in _PACKAGES}
    if address is not None:
        assert processes is not None and process is not None
        hello = Hello(process, processes, versions, command)
        _peers, port = _meet(address, hello, limit, lost)
        import jax

        service = f"{split_address(address)[0]}:{port}"
        jax.distributed.initialize(
            service, processes, process, initialization_timeout=int(limit), cluster_detection_method="deactivate"
        )
    else:
        hello = Hello(*_initialize_found(limit), versions, command)
        if hello.processes > 1:
            _peers, _ = _meet(_leader_address(), hello, limit, lost)
    try:
        yield
    except Stopped:
        _end_together()
        raise
    except BaseException as error:
        if _peers:
            _peers.end(str(error).strip().split("\n")[0] or type(error).__name__)
        raise
    _end_together()


def _end_together() -> None:
    if _peers:
        wait("the end")
        _peers.end()


def _meet(address: str, hello: Hello, limit: float, lost: Callable[[str], None]) -> tuple[Peers, int]:
    if hello.process:
        return join(address, hello, limit=limit, lost=lost)
    port = _free_port()
    return gather(address, hello, port, limit=limit, lost=lost), port


def _initialize_found(limit: float) -> tuple[int, int]:
    """Starts jax on the cluster it finds; returns the number of this process and how many there are."""
    import jax

    try:
        jax.distributed.initialize(initialization_timeout=int(limit))
    except (ValueError, RuntimeError) as error:
        remedy = "give --coordinator HOST:PORT, --processes and --process"
        raise UserError(f"--distributed: no cluster is found ({str(error).splitlines()[0]}); {remedy}") from error
    return jax.process_index(), jax.process_count()


def _leader_address() -> str:
    """Where process 0 listens, told to all over the devices."""
    from jax.experimental import multihost_utils

    text = np.zeros(256, np.uint8)
    name = f"{_own_address()}:{_free_port()}".encode()
    text[: len(name)] = np.frombuffer(name, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(text), np.uint8)
    return told.tobytes().rstrip(b"\0").decode()


def _own_address() -> str:
    """The address of the interface that leads out of this machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("10.255.255.255", 1))
            return str(outward.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
