"""A worker that has answered 100,000 requests is as large as after the first few thousand."""

import socket
from pathlib import Path

import pytest

from tests.standalone.agent import Agent, Files, running
from tests.standalone.serving import serve

pytestmark = pytest.mark.timeout(300)

IN_A_ROW = 50
BODY = b"x" * 1024
REQUESTS = (
    b"GET /there HTTP/1.1\r\nhost: here\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY),
)


def ask_often(port: int, times: int) -> None:
    """GET and POST by turns, over connections that are kept for 2,000 requests each."""
    left = times
    while left > 0:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            for _ in range(0, min(left, 2000), IN_A_ROW):
                client.sendall(b"".join(REQUESTS[number % 2] for number in range(IN_A_ROW)))
                answers = 0
                tail = b""
                while answers < IN_A_ROW:
                    data = client.recv(1 << 16)
                    assert data, "the connection was closed"
                    both = tail + data
                    assert b"HTTP/1.1 5" not in both, both
                    answers += both.count(b"HTTP/1.1 200")
                    tail = both[-11:]  # a status line may be cut in two, and none is counted twice
        left -= 2000


def anonymous_kib(agent: Agent) -> int:
    """Of all workers."""
    found = 0
    for worker in agent.workers():
        lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return found


def test_a_hundred_thousand_requests_leave_nothing_behind(files: Files, ports: tuple[int, int], web: bytes) -> None:
    files.write_pool(count=4, workers=1, http={"portRange": f"{ports[0]}-{ports[1]}"})
    files.module("web.wasm", web)
    serve(files, "web", "web.wasm", instances=4)
    with running(files) as agent:
        agent.until_state("web", "Running", seconds=60)
        ask_often(ports[0], 10_000)
        before = anonymous_kib(agent)
        ask_often(ports[0], 100_000)
        assert anonymous_kib(agent) - before < 1024, "ten bytes for each request"
