"""Processes of a run find each other, wait for each other, and learn of each other's end."""

import dataclasses
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from grm_jax.errors import UserError
from grm_jax.parallel.peers import Hello, Peers, gather, join, split_address

VERSIONS = {"jax": "1.2.3"}


def hello(process: int, processes: int = 3, **changes) -> Hello:
    return dataclasses.replace(Hello(process, processes, VERSIONS, ["judge", "--k", "8"]), **changes)


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def meet(address: str, hellos: list[Hello], lost=lambda message: None, limit: float = 10.0) -> list:
    """What each process gets of meeting the others: its peers, or the error."""

    def one(mine: Hello):
        try:
            if mine.process == 0:
                return gather(address, mine, 4321, limit=limit, lost=lost)
            peers, port = join(address, mine, limit=limit, lost=lost)
            assert port == 4321
            return peers
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(hellos)) as pool:
        return list(pool.map(one, hellos))


def test_all_wait_until_the_last_has_come(address):
    peers = meet(address, [hello(i) for i in range(3)])
    arrived: list[int] = []

    def go(i: int) -> list[int]:
        time.sleep(0.1 * i)
        arrived.append(i)
        peers[i].wait("here")
        return sorted(arrived)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(go, range(3))) == [[0, 1, 2]] * 3


def test_who_comes_before_process_0_listens_tries_again(address):
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(join, address, hello(1, 2), limit=10, lost=lambda message: None)
        time.sleep(0.3)
        gather(address, hello(0, 2), 1, limit=10, lost=lambda message: None)
        assert isinstance(early.result()[0], Peers)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"processes": 4}, "process 2 was started with --processes 4, process 0 with 3; make them equal"),
        ({"versions": {"jax": "1.2.4"}}, "process 2 has jax 1.2.4, process 0 has 1.2.3; install the same everywhere"),
        ({"versions": {}}, "process 2 has jax None, process 0 has 1.2.3; install the same everywhere"),
        ({"command": ["judge"]}, "process 2 was started with 'judge', process 0 with 'judge --k 8'; make them equal"),
        ({"process": 1}, "two processes were started with --process 1; give each its own"),
        ({"process": 0}, "two processes"),
    ],
)
def test_all_are_told_what_differs(address, changes, said):
    hellos = [hello(0), hello(1)]
    stranger = hello(**{"process": 2, **changes})
    joins = [lambda h=h: join(address, h, limit=10, lost=lambda message: None) for h in (hellos[1], stranger)]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(gather, address, hellos[0], 1, limit=10, lost=lambda message: None)
        found = []
        for number, go in enumerate(joins):
            time.sleep(0.2 * number)
            found.append(pool.submit(go))
        for future in (first, *found):
            with pytest.raises(UserError, match=said):
                future.result()


def test_missing_processes_are_named(address):
    started = time.monotonic()
    zero, one = meet(address, [hello(0, 4), hello(1, 4)], limit=1.0)
    assert zero == one
    assert zero.startswith(
        "of 4 processes these did not come within 1 s: 2, 3; start them with --coordinator 127.0.0.1:"
    )
    assert time.monotonic() - started < 5


def test_an_unreachable_process_0_is_named_with_the_reason(address):
    with pytest.raises(
        UserError, match=r"127.0.0.1:\d+: not reached within 0.5 s \(Connection refused\); start process 0 there"
    ):
        join(address, hello(1), limit=0.5, lost=lambda message: None)
    with pytest.raises(UserError, match=r"nowhere.invalid:80: not reached within 0.5 s \("):
        join("nowhere.invalid:80", hello(1), limit=0.5, lost=lambda message: None)


def test_strangers_are_passed_over(address):
    host, port = split_address(address)

    def stranger() -> None:
        time.sleep(0.1)
        for text in (
            b"GET / HTTP/1.1\r\n\r\n",
            b'{"process": "x"}\n',
            json.dumps({"process": 1, "command": 5}).encode() + b"\n",
        ):
            with socket.create_connection((host, port)) as connection:
                connection.sendall(text)

    with ThreadPoolExecutor(2) as pool:
        zero = pool.submit(gather, address, hello(0, 2), 1, limit=10, lost=lambda message: None)
        stranger()
        join(address, hello(1, 2), limit=10, lost=lambda message: None)
        assert isinstance(zero.result(), Peers)


@pytest.mark.parametrize("dying", [0, 1, 2])
def test_the_end_of_one_reaches_all_others_once(address, dying):
    told: dict[int, list[str]] = {i: [] for i in range(3)}
    both = threading.Event()

    def lost(i: int):
        def note(message: str) -> None:
            told[i].append(message)
            if sum(bool(messages) for messages in told.values()) == 2:
                both.set()

        return note

    with ThreadPoolExecutor(3) as pool:
        zero = pool.submit(gather, address, hello(0), 1, limit=10, lost=lost(0))
        others = [pool.submit(join, address, hello(i), limit=10, lost=lost(i)) for i in (1, 2)]
        peers = [zero.result(), *(future.result()[0] for future in others)]
    peers[dying]._over = True  # the dead hear nothing
    for line in peers[dying]._lines.values():  # as the kernel does for a process that is killed
        line._connection.shutdown(socket.SHUT_RDWR)
    assert both.wait(10)
    time.sleep(0.2)
    said = f"process {dying} of 3 has ended without a word"
    assert told == {i: [] if i == dying else [said] for i in range(3)}


def test_an_error_is_told_and_a_good_end_is_not(address):
    told: list[str] = []
    zero, one = meet(address, [hello(0, 2), hello(1, 2)], lost=told.append)
    one.end()
    zero.end()
    time.sleep(0.2)
    assert told == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = f"127.0.0.1:{server.getsockname()[1]}"
    zero, one = meet(other, [hello(0, 2), hello(1, 2)], lost=told.append)
    one.end("disk full")
    time.sleep(0.2)
    assert told == ["process 1 has ended: disk full"]


@pytest.mark.parametrize("address", ["host", "host:", ":8476", "host:port", "host:0", "host:70000"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(UserError, match="write HOST:PORT"):
        split_address(address)
