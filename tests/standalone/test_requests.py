"""Workloads that answer requests, as their clients see them: `wasmpool-agent run`, on ordinary pages, as nobody.

Covers: an answer, and a body that comes back; hostile guests, each of which fails alone, gives its slot back and keeps
nobody else waiting; hostile clients; too many requests, and slots that are borrowed; a new version without a lost
request; a worker that is killed; the end of the agent.
"""

import http.client
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from demo.components import build_component
from tests.standalone.agent import Agent, Files, running
from tests.standalone.serving import WEB, WORLD, ask, serve

pytestmark = pytest.mark.timeout(120)

HOSTILE = Path(__file__).resolve().parents[1] / "guests" / "hostile.c"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What it does is in the path."""
    return build_component(HOSTILE, WORLD, tmp_path_factory.mktemp("guests") / "hostile.wasm", include=WEB)


@pytest.fixture
def served(files: Files, ports: tuple[int, int], web: bytes, hostile: bytes) -> Iterator[Agent]:
    """`bad` on the first port, with two slots, and `good` on the second."""
    files.write_pool(count=6, workers=1, http={"portRange": f"{ports[0]}-{ports[1]}", "queueTimeout": "500ms"})
    files.module("web.wasm", web)
    files.module("hostile.wasm", hostile)
    serve(files, "bad", "hostile.wasm", instances=2, deadline="2s")
    serve(files, "good", "web.wasm", instances=2, deadline="5s")
    with running(files) as agent:
        for name in ("bad", "good"):
            agent.until_state(name, "Running", seconds=60)
        yield agent


def all_are_well(ports: tuple[int, int]) -> None:
    """Both slots of `bad` can be had, and `good` answers."""
    with ThreadPoolExecutor(2) as pool:
        assert [it[0] for it in pool.map(lambda _: ask(ports[0], "/r"), range(2))] == [200, 200]
    assert ask(ports[1], "/there") == (200, b"hello from a slot: /there\n")


def test_what_is_sent_comes_back_bit_by_bit(served: Agent, ports: tuple[int, int]) -> None:
    body = os.urandom(3_000_000)
    assert ask(ports[1], "/echo", body) == (200, body)
    assert ask(ports[1], "/a?b=c") == (200, b"hello from a slot: /a?b=c\n")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/spins", 504, "deadline: ended at its deadline of 2 s"),
        ("/waits", 504, "deadline: ended at its deadline of 2 s"),
        ("/memory", 500, "trap: "),
        ("/deep", 500, "trap: memory fault"),
        ("/traps", 500, "trap: wasm `unreachable` instruction executed"),
        ("/nothing", 500, "error: the guest ended without an answer"),
        ("/calls", 504, "deadline: ended at its deadline of 2 s"),
        ("/x", 500, "trap: "),
    ],
)
def test_a_hostile_guest_fails_alone_and_gives_its_slot_back(
    served: Agent, ports: tuple[int, int], path: str, status: int, said: str
) -> None:
    answers: list[int] = []
    over = threading.Event()

    def good() -> None:
        while not over.is_set():
            answers.append(ask(ports[1], "/meanwhile")[0])

    beside = threading.Thread(target=good)
    beside.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _: ask(ports[0], path)[0], range(2)))
    finally:
        over.set()
        beside.join()
    assert found == [status, status]
    assert set(answers) == {200}
    all_are_well(ports)
    served.until(lambda: any(said in it["message"] for it in served.reports("bad")))


@pytest.mark.parametrize("path", ["/half", "/pointer"])
def test_an_answer_that_can_not_be_made_whole_is_seen_to_be_none(
    served: Agent, ports: tuple[int, int], path: str
) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(ports[0], path)
    all_are_well(ports)


def test_an_answer_without_end_ends_with_its_client(served: Agent, ports: tuple[int, int]) -> None:
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", ports[0])) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
    all_are_well(ports)


def test_an_answer_without_end_ends_at_its_deadline(served: Agent, ports: tuple[int, int]) -> None:
    began = time.monotonic()
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(ports[0], "/endless")
    assert time.monotonic() - began < 60
    all_are_well(ports)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1000 + b"\r\n", b"HTTP/1.1 431"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
    ],
)
def test_a_hostile_head_is_refused_before_a_guest_sees_it(
    served: Agent, ports: tuple[int, int], sent: bytes, answer: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", ports[1]), timeout=10) as client:
        client.sendall(sent)
        assert client.recv(1000)[: len(answer)] == answer
    assert ask(ports[1], "/there")[0] == 200


def test_clients_that_say_nothing_hold_no_slot(served: Agent, ports: tuple[int, int]) -> None:
    silent = [socket.create_connection(("127.0.0.1", ports[1])) for _ in range(50)]
    try:
        for client in silent[::2]:
            client.sendall(b"GET / HT")
        for _ in range(5):
            assert ask(ports[1], "/there")[0] == 200
    finally:
        for client in silent:
            client.close()


def test_too_many_requests_wait_shortly_and_are_told_when_to_come_again(served: Agent, ports: tuple[int, int]) -> None:
    with ThreadPoolExecutor(6) as pool:
        spins = [pool.submit(ask, ports[0], "/spins") for _ in range(2)]
        time.sleep(0.3)
        began = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", ports[0], timeout=20)) as connection:
            connection.request("GET", "/r")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            answer.read()
        assert time.monotonic() - began > 0.3, "it has waited for a slot"
        assert [it.result()[0] for it in spins] == [504, 504]
    all_are_well(ports)


def test_waiting_for_a_slot_is_not_taken_from_a_requests_deadline(
    files: Files, ports: tuple[int, int], hostile: bytes
) -> None:
    files.write_pool(count=1, workers=1, http={"portRange": f"{ports[0]}-{ports[1]}", "queueTimeout": "20s"})
    files.module("hostile.wasm", hostile)
    serve(files, "bad", "hostile.wasm", instances=1, deadline="1s")
    with running(files) as agent, ThreadPoolExecutor(3) as pool:
        agent.until_state("bad", "Running", seconds=60)
        spins = [pool.submit(ask, ports[0], "/spins") for _ in range(2)]
        time.sleep(0.2)
        assert ask(ports[0], "/r")[0] == 200, "after two seconds of waiting"
        assert [it.result()[0] for it in spins] == [504, 504]


def test_a_burst_borrows_what_nobody_has_reserved_and_no_more(
    files: Files, ports: tuple[int, int], web: bytes, hostile: bytes
) -> None:
    files.write_pool(count=4, workers=1, http={"portRange": f"{ports[0]}-{ports[1]}", "queueTimeout": "200ms"})
    files.module("web.wasm", web)
    files.module("hostile.wasm", hostile)
    serve(files, "bad", "hostile.wasm", instances=0, burst=4, deadline="3s")
    serve(files, "good", "web.wasm", instances=2)
    with running(files) as agent:
        for name in ("bad", "good"):
            agent.until_state(name, "Running", seconds=60)
        with ThreadPoolExecutor(4) as pool:
            found = sorted(it[0] for it in pool.map(lambda _: ask(ports[0], "/spins"), range(4)))
            assert found == [503, 503, 504, 504]
        with ThreadPoolExecutor(6) as pool:
            spins = [pool.submit(ask, ports[0], "/spins") for _ in range(4)]
            time.sleep(0.5)
            for _ in range(5):
                assert ask(ports[1], "/mine")[0] == 200
            assert sorted(it.result()[0] for it in spins) == [503, 503, 504, 504]


def test_a_new_version_takes_over_without_a_lost_request(served: Agent, files: Files, ports: tuple[int, int]) -> None:
    failures: list[object] = []
    over = threading.Event()
    asked = 0

    def go_on() -> None:
        nonlocal asked
        with closing(http.client.HTTPConnection("127.0.0.1", ports[1], timeout=20)) as connection:
            while not over.is_set():
                try:
                    connection.request("GET", "/again")
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException) as error:
                    failures.append(error)
                    connection.close()
                else:
                    asked += 1
                    if answer.status != 200:
                        failures.append(answer.status)

    clients = [threading.Thread(target=go_on) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        time.sleep(0.5)
        revisions = len(served.reports("good"))
        serve(files, "good", "web.wasm", instances=2, deadline="4s")
        served.until(lambda: any(it["state"] == "Running" for it in served.reports("good")[revisions:]), 30)
        time.sleep(1)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert not failures
    assert asked > 100


def test_a_killed_worker_loses_its_own_requests_and_nothing_that_waits(served: Agent, ports: tuple[int, int]) -> None:
    (worker,) = served.workers()
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 30
    with closing(http.client.HTTPConnection("127.0.0.1", ports[1], timeout=30)) as connection:
        connection.request("GET", "/waited")  # accepted by the worker that comes next
        assert connection.getresponse().status == 200
    assert time.monotonic() < deadline
    all_are_well(ports)


def test_a_request_that_runs_is_answered_before_the_agent_ends(served: Agent, ports: tuple[int, int]) -> None:
    with ThreadPoolExecutor(1) as pool:
        running_still = pool.submit(ask, ports[0], "/r")
        time.sleep(0.1)
        assert served.end() == 0
        assert running_still.result() == (200, b"ok")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/", timeout=5)
