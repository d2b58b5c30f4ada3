"""Workloads of an agent without a cluster that answer requests, and what asks them."""

import http.client
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.standalone.agent import Files

WEB: Final = Path(__file__).resolve().parents[2] / "examples" / "guests" / "web"
"""The example's guest."""
WORLD: Final = WEB / "world.wat"


def serve(files: Files, name: str, key: str, *, instances: int, burst: int = 0, **http: object) -> None:
    """A workload that answers requests."""
    files.manifest(
        name,
        module={"configMap": {"name": "guests", "key": key}},
        run={"http": http},
        instances=instances,
        burst=burst,
    )


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body, over a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST" if body is not None else "GET", path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
