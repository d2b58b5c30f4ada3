"""Guests that send requests, by `wasmpool-agent run`: where they may go, and what becomes of what they send.

Covers: a body both ways through a guest; hosts of the workload's list and the pool's, and no others; link-local
addresses and this machine's, by address and by name; a peer that never answers; a storm of instances that ask for more.
"""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.standalone.agent import Agent, Files, running
from tests.standalone.asking import build_asking_guest
from tests.standalone.serving import ask, serve

pytestmark = pytest.mark.timeout(120)

PROHIBITED, DENIED, INVALID = b"04\n", b"15\n", b"19\n"
"""Of error-code's cases."""


class Peer(http.server.BaseHTTPRequestHandler):
    """Says what was asked for, and gives back what was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                sent += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        told = f"{self.command} {self.path} of {self.headers['host']}\n".encode() + sent
        self.send_response(207)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_asking_guest(tmp_path_factory.mktemp("guests"))


@pytest.fixture(scope="module")
def peer() -> Iterator[int]:
    """Its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def asking(
    files: Files, ports: tuple[int, int], asks: bytes, hosts: list[str], pool_hosts: list[str] | None
) -> Iterator[Agent]:
    egress = {"egress": {"allowedHosts": pool_hosts}} if pool_hosts is not None else {}
    files.write_pool(count=2, http={"portRange": f"{ports[0]}-{ports[1]}"}, **egress)
    files.module("asks.wasm", asks)
    serve(files, "asks", "asks.wasm", instances=1, deadline="2s", **({"allowedHosts": hosts} if hosts else {}))
    with running(files) as agent:
        agent.until_state("asks", "Running", seconds=60)
        yield agent


def test_a_guest_passes_on_what_it_is_sent_and_what_comes(
    files: Files, ports: tuple[int, int], asks: bytes, peer: int
) -> None:
    there = f"127.0.0.1:{peer}"
    body = os.urandom(3_000_000)
    with asking(files, ports, asks, [there], ["127.0.0.1"]):
        assert ask(ports[0], f"/{there}/a?b=c") == (207, f"POST /a?b=c of {there}\n".encode())
        assert ask(ports[0], f"/{there}/echo", body) == (207, f"POST /echo of {there}\n".encode() + body)


@pytest.mark.parametrize(
    ("hosts", "pool_hosts", "asked", "code"),
    [
        pytest.param([], ["*"], "127.0.0.1:{peer}", DENIED, id="nothing is asked for"),
        pytest.param(["127.0.0.1:{peer}"], None, "127.0.0.1:{peer}", DENIED, id="the pool allows nothing by default"),
        pytest.param(["127.0.0.1:{peer}"], ["*.example.com"], "127.0.0.1:{peer}", DENIED, id="the pool allows others"),
        pytest.param(["127.0.0.1:1"], ["*", "127.0.0.1"], "127.0.0.1:{peer}", DENIED, id="another port"),
        pytest.param(["*"], ["*"], "127.0.0.1:{peer}", PROHIBITED, id="all hosts are not this machine"),
        pytest.param(["localhost"], ["localhost"], "localhost:{peer}", PROHIBITED, id="a name that means this machine"),
        pytest.param(["169.254.169.254"], ["*"], "169.254.169.254", PROHIBITED, id="link-local"),
        pytest.param(["*"], ["*", "169.254.169.254"], "169.254.169.254:80", PROHIBITED, id="link-local, named"),
        pytest.param(["*"], ["*"], "[::ffff:169.254.169.254]", PROHIBITED, id="link-local in disguise"),
        pytest.param(["*"], ["*"], "127.0.0.1:99999", INVALID, id="no port"),
    ],
)  # fmt: skip
def test_hosts_that_are_not_allowed_are_denied_by_an_error_code_and_nobody_is_asked(
    files: Files,
    ports: tuple[int, int],
    asks: bytes,
    peer: int,
    hosts: list[str],
    pool_hosts: list[str] | None,
    asked: str,
    code: bytes,
) -> None:
    own = [host.format(peer=peer) for host in hosts]
    with asking(files, ports, asks, own, pool_hosts):
        assert ask(ports[0], f"/{asked.format(peer=peer)}/") == (502, code)


def test_a_peer_that_never_answers_keeps_a_guest_to_its_deadline_and_is_left_then(
    files: Files, ports: tuple[int, int], asks: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = f"127.0.0.1:{silent.getsockname()[1]}"
        with asking(files, ports, asks, [there], ["127.0.0.1"]) as agent:
            for _ in range(2):  # the one slot is there again
                assert ask(ports[0], f"/{there}/")[0] == 504
                client, _ = silent.accept()
                with client:
                    client.settimeout(10)
                    while client.recv(4096):
                        pass
            agent.until_state("asks", "Running")


def test_a_storm_of_instances_that_ask_for_more_of_themselves_stays_within_its_own_slots(
    files: Files, ports: tuple[int, int], asks: bytes, web: bytes
) -> None:
    itself = f"127.0.0.1:{ports[0]}"
    http = {"portRange": f"{ports[0]}-{ports[1]}", "queueTimeout": "200ms"}
    files.write_pool(count=6, workers=1, http=http, egress={"allowedHosts": ["127.0.0.1"]})
    files.module("asks.wasm", asks)
    files.module("web.wasm", web)
    serve(files, "asks", "asks.wasm", instances=2, burst=2, deadline="5s", allowedHosts=[itself])
    serve(files, "good", "web.wasm", instances=2)
    with running(files) as agent, ThreadPoolExecutor(8) as pool:
        for name in ("asks", "good"):
            agent.until_state(name, "Running", seconds=60)
        # Each of them wants thirty instances at a time, one inside of the other, of four that there are.
        storms = [pool.submit(ask, ports[0], f"/{itself}" * 30 + "/") for _ in range(6)]
        answers = [ask(ports[1], "/meanwhile")[0] for _ in range(50)]
        assert set(answers) == {200}
        assert {it.result()[0] for it in storms} <= {502, 503, 504}
        # Nothing of it is left: who has no slot any more to ask for gets an answer at once, from both that it reserved.
        denied = list(pool.map(lambda _: ask(ports[0], f"/127.0.0.1:{ports[1]}/"), range(2)))
        assert denied == [(502, DENIED)] * 2
