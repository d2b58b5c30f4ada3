"""What stands between a client and a registry: a server that passes on, cuts, tampers; and a CONNECT proxy."""

import contextlib
import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from tests.cluster.certificates import Trust
from tests.oci.serving import Serving, say


@dataclass(frozen=True)
class Seen:
    """A request as it came; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def is_blob(self) -> bool:
        return "/blobs/" in self.path

    @property
    def is_manifest(self) -> bool:
        return "/manifests/" in self.path


@dataclass(frozen=True)
class Pass:
    """On to the registry. After so many bytes of the body: `cut_after`: it is gone; `stall_after`: no more comes."""

    cut_after: int | None = None
    stall_after: int | None = None
    without_ranges: bool = False
    tamper: Callable[[bytes], bytes] = lambda body: body


@dataclass(frozen=True)
class Say:
    """The front's own answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None


class Front(Serving):
    """`rule`: what becomes of a request; `seen`: those that came, in order."""

    def __init__(
        self, port: int, rule: Callable[[Seen], Pass | Say], *, trust: Trust | None = None, behind: Trust | None = None
    ) -> None:
        """`port`: of the registry on loopback; `behind`: its authority, if it speaks TLS."""
        super().__init__(trust)
        self.rule: Callable[[Seen], Pass | Say] = rule
        self.seen: list[Seen] = []
        self._port = port
        self._context = ssl.create_default_context(cafile=str(behind.ca)) if behind is not None else None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        seen = Seen(handler.command, handler.path, headers)
        self.seen.append(seen)
        rule = self.rule(seen)
        if isinstance(rule, Say):
            say(handler, rule.status, rule.body, dict(rule.headers or {}))
            return
        if rule.without_ranges:
            headers.pop("range", None)
        self._pass(handler, headers, rule)

    def _pass(self, handler: BaseHTTPRequestHandler, headers: dict[str, str], rule: Pass) -> None:
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=30)
            if self._context is not None
            else http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        )
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, headers=headers)
            response = connection.getresponse()
            body = rule.tamper(response.read())
            handler.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"content-length", "connection", "transfer-encoding", "date"}:
                    handler.send_header(name, value)
            length = response.getheader("Content-Length", "0") if handler.command == "HEAD" else str(len(body))
            handler.send_header("Content-Length", length)
            handler.end_headers()
            end = rule.cut_after if rule.cut_after is not None else rule.stall_after
            with contextlib.suppress(OSError):
                handler.wfile.write(body if end is None else body[:end])
            if rule.stall_after is not None:
                time.sleep(3)
            handler.close_connection = end is not None


class ConnectProxy(Serving):
    """For HTTPS_PROXY. `places`: host:port as asked for, and the port on loopback that it is; `asked`: what came."""

    def __init__(self, places: Mapping[str, int]) -> None:
        super().__init__()
        self._places = places
        self.asked: list[tuple[str, str | None]] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.path, handler.headers.get("Proxy-Authorization")))
        port = self._places.get(handler.path)
        if handler.command != "CONNECT" or port is None:
            say(handler, 502)
            return
        handler.close_connection = True
        with socket.create_connection(("127.0.0.1", port)) as server:
            handler.send_response(200)
            handler.end_headers()
            _splice(handler.connection, server)


def _splice(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([one, other], [], [], 30)
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (other if source is one else one).sendall(data)
            if not ready:
                return
