"""How the processes of a run find each other, wait for each other, and learn of each other's end.

Each process holds a connection to process 0 as long as it lives. jax has a service for this too, but what is wrong with a start it
answers with an aborted process and a stack of C++, and a lost process it notices after minutes. A line is one JSON object:

    to process 0     {"process", "processes", "versions", "command"}, then {"at": name}, at last {"end": message or null}
    from process 0   {"port": of jax's service}, then {"go": name}, at last {"end": message or null}
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grm_jax.errors import UserError

_LONGEST_LINE = 1 << 20
_RETRY_SECONDS = 0.2
_LATE_SECONDS = 1.0
_HELLO_SECONDS = 5.0  # who connects and says nothing does not hold up the others for longer
# A host without power is noticed in a minute.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


@dataclass(frozen=True)
class Hello:
    """What a process says of itself; all but `process` must be the same for all.

    Attributes:
        process: its number, from 0.
        processes: how many it was told there are.
        versions: by package.
        command: what it was started with, but for what names the process.
    """

    process: int
    processes: int
    versions: Mapping[str, str]
    command: Sequence[str]


class Peers:
    """The connections of one process: to all others for process 0, to process 0 for the others.

    Attributes:
        hello: of this process.
    """

    def __init__(self, hello: Hello, lines: Mapping[int, "_Line"], lost: Callable[[str], None]):
        self.hello, self._lines, self._lost = hello, dict(lines), lost
        self._changed = threading.Condition()
        self._arrived: dict[str, set[int]] = {}
        self._released: set[str] = set()
        self._ended: set[int] = set()
        self._over = False
        for process, line in self._lines.items():
            threading.Thread(target=self._read, args=(process, line), daemon=True, name=f"peer-{process}").start()

    def wait(self, name: str) -> None:
        """Returns when all processes wait for this name; each name serves once."""
        with self._changed:
            if self.hello.process:
                self._lines[0].send({"at": name})
                self._changed.wait_for(lambda: name in self._released)
                self._released.remove(name)
                return
            self._changed.wait_for(lambda: len(self._arrived.get(name, ())) == len(self._lines))
            self._arrived.pop(name, None)
        for line in self._lines.values():
            line.send({"go": name})

    def end(self, message: str | None = None) -> None:
        """Tells the others that this process ends; with a message, that they cannot go on without it."""
        with self._changed:
            self._over = True
        said = None if message is None else f"process {self.hello.process} has ended: {message}"
        for line in self._lines.values():
            line.send({"end": said})

    def _read(self, process: int, line: "_Line") -> None:
        while True:
            said = line.receive()
            with self._changed:
                if self._over or process in self._ended:
                    return
                if said is None:
                    message = f"process {process} of {self.hello.processes} has ended without a word"
                elif "end" in said:
                    self._ended.add(process)
                    if said["end"] is None:
                        return
                    message = str(said["end"])
                else:
                    if "at" in said:
                        self._arrived.setdefault(str(said["at"]), set()).add(process)
                    else:
                        self._released.add(str(said.get("go")))
                    self._changed.notify_all()
                    continue
                self._over = True
            if self.hello.process == 0:
                for other, its in self._lines.items():
                    if other != process:
                        its.send({"end": message})
            self._lost(message)
            return


def gather(address: str, hello: Hello, port: int, *, limit: float, lost: Callable[[str], None]) -> Peers:
    """Waits, as process 0, until all others have come.

    Args:
        address: "HOST:PORT" where the others look for this process.
        hello: of this process.
        port: told to the others.
        limit: seconds they may take.
        lost: called once, from a thread, with what has happened when another process ends before its time.

    Raises:
        UserError: some did not come, or one was started with something else; the others are told.
    """
    deadline = time.monotonic() + limit
    lines: dict[int, _Line] = {}
    with _listener(address) as listener:
        while len(lines) < hello.processes - 1:
            try:
                listener.settimeout(max(0.01, deadline - time.monotonic()))
                line = _Line(listener.accept()[0])
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, hello.processes) if i not in lines)
                problem = f"of {hello.processes} processes these did not come within {limit:g} s: {missing}"
                remedy = f"start them with --coordinator {address}, or see what stopped them"
                raise _refuse(listener, [*lines.values()], f"{problem}; {remedy}") from None
            other = _hello_of(line.receive(min(deadline, time.monotonic() + _HELLO_SECONDS)))
            if other is None:  # whoever it is, it is none of us
                line.close()
                continue
            problem = _difference(hello, other) or (
                f"two processes were started with --process {other.process}; give each its own"
                if other.process in lines or other.process == 0 else ""
            )  # fmt: skip
            if problem:
                raise _refuse(listener, [*lines.values(), line], problem)
            lines[other.process] = line
    for line in lines.values():
        line.send({"port": port})
    return Peers(hello, lines, lost)


def join(address: str, hello: Hello, *, limit: float, lost: Callable[[str], None]) -> tuple[Peers, int]:
    """Goes, as another process than 0, to where process 0 waits; arguments as for `gather`.

    Returns:
        The connection, and the port that process 0 told.

    Raises:
        UserError: process 0 was not reached, or refuses.
    """
    deadline = time.monotonic() + limit
    line = _Line(_connect(address, deadline, limit))
    line.send(asdict(hello))
    answer = line.receive(time.monotonic() + limit + _HELLO_SECONDS)  # process 0 waits for others no longer than that
    if answer is None:
        raise UserError(f"process 0 at {address} ended or gave no answer while others were awaited; see what it says")
    if "port" not in answer:
        raise UserError(str(answer.get("end")))
    return Peers(hello, {0: line}, lost), int(answer["port"])


class _Line:
    """One connection, as JSON lines; a broken one reads as ended."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):  # they are named otherwise outside Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, said: Mapping[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):  # who reads learns that it is broken
            self._connection.sendall(json.dumps(said).encode() + b"\n")

    def receive(self, deadline: float | None = None) -> dict[str, Any] | None:
        """The next line; None when the other end is gone, says nothing in time or what is no JSON object."""
        try:
            self._connection.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))
            said = json.loads(self._file.readline(_LONGEST_LINE))
            self._connection.settimeout(None)
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) else None

    def close(self) -> None:
        self._connection.close()


def _listener(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        # On all interfaces: the name the others use may be that of one the machine does not know by it.
        return socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise UserError(
            f"--coordinator {host}:{port}: cannot listen there ({error.strerror}); name another port"
        ) from None


def _connect(address: str, deadline: float, limit: float) -> socket.socket:
    host, port = split_address(address)
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(0.01, deadline - time.monotonic()))
        except OSError as error:
            why = error.strerror or "no answer"
        if time.monotonic() + _RETRY_SECONDS > deadline:
            remedy = "start process 0 there, or mend the address, the network or the firewall"
            raise UserError(f"--coordinator {address}: not reached within {limit:g} s ({why}); {remedy}")
        time.sleep(_RETRY_SECONDS)


def split_address(address: str) -> tuple[str, int]:
    """Returns ("HOST", PORT) of "HOST:PORT".

    Raises:
        UserError: it is none.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {address}: write HOST:PORT, such as 10.0.0.2:8476")
    return host.strip("[]"), int(port)


def _hello_of(said: dict[str, Any] | None) -> Hello | None:
    try:
        hello = Hello(**said or {})
        numbers, texts = (hello.process, hello.processes), (*hello.command, *dict(hello.versions).values())
    except (TypeError, ValueError):
        return None
    right = all(isinstance(x, int) for x in numbers) and all(isinstance(x, str) for x in texts)
    return hello if right and 0 <= hello.process < hello.processes else None


def _difference(mine: Hello, other: Hello) -> str:
    """What another process was started with that is not as it is here; "" when all is the same."""
    who = f"process {other.process}"
    if other.processes != mine.processes:
        return f"{who} was started with --processes {other.processes}, process 0 with {mine.processes}; make them equal"
    for package, version in mine.versions.items():
        if other.versions.get(package) != version:
            return f"{who} has {package} {other.versions.get(package)}, process 0 has {version}; install the same everywhere"
    if list(other.command) != list(mine.command):
        return f"{who} was started with '{' '.join(other.command)}', process 0 with '{' '.join(mine.command)}'; make them equal"
    return ""


def _refuse(listener: socket.socket, lines: Sequence[_Line], problem: str) -> UserError:
    """Tells all who have come, and those who are about to, what is wrong."""
    told = [*lines]
    listener.settimeout(_LATE_SECONDS)
    with contextlib.suppress(TimeoutError):
        while True:
            told.append(_Line(listener.accept()[0]))
    for line in told:
        line.send({"end": problem})
        line.close()
    return UserError(problem)
