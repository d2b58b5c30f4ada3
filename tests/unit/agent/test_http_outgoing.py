"""Requests that guests send: by the functions of wasi:http, to real servers of the loopback, and where they may not go.

Covers methods, headers, bodies and their lengths both ways, back-pressure, timeouts, errors by their codes, hosts that
are not allowed, addresses that are forbidden whatever a name means now, and that nothing goes on after its instance.
"""

import asyncio
import datetime
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.agent.http_harness import run, until
from tests.unit.agent.test_http_types import ERR, OK, Guest
from wasmpool_agent.http.network import Client, Network, Outbox
from wasmpool_agent.outgoing_http import AioSession
from wasmpool_agent.wasi.p2.http_types import Answering
from wasmpool_agent.wasi.signals import StreamClosed

READ = "wasi:io/streams#[method]input-stream.read"
WRITE = "wasi:io/streams#[method]output-stream.write"
CHECK = "wasi:io/streams#[method]output-stream.check-write"
ALL = ("*",)


@dataclass
class Peer:
    """A server that records what it got and answers as a test says."""

    port: int = 0
    connections: int = 0
    closed: int = 0
    got: bytearray = field(default_factory=bytearray)

    @property
    def authority(self) -> str:
        return f"peer.test:{self.port}"


Answer = Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def head(peer: Peer, reader: asyncio.StreamReader) -> bytes:
    data = await reader.readuntil(b"\r\n\r\n")
    peer.got += data
    return data


def says(data: bytes) -> Answer:
    """Answers with these bytes once the head is there, and ends."""

    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        writer.write(data)
        await writer.drain()

    return answer


@asynccontextmanager
async def listening(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Peer]:
    peer = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        try:
            await answer(peer, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            peer.closed += 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await until(lambda: peer.closed == peer.connections, 3.0)


class Sender(Guest):
    """A guest that may send."""

    def __init__(self, client: Client, most: int = 16) -> None:
        super().__init__()
        self.outbox = Outbox(client, most)
        self.host.http = Answering(None, self.outbox)  # type: ignore[arg-type]

    def make(self, authority: str, *fields: tuple[str, bytes], method: Any = ("get", None), path: str = "/") -> Any:
        request = self("[constructor]outgoing-request", self.fields(*fields))
        assert self("[method]outgoing-request.set-authority", request, authority) == OK
        assert self("[method]outgoing-request.set-scheme", request, ("HTTP", None)) == OK
        assert self("[method]outgoing-request.set-method", request, method) == OK
        assert self("[method]outgoing-request.set-path-with-query", request, path) == OK
        return request

    def send(self, request: Any, options: Any = None) -> Any:
        return self("wasi:http/outgoing-handler#handle", request, options)

    async def outcome(self, future: Any) -> Any:
        pollable = self("[method]future-incoming-response.subscribe", future)
        await until(lambda: pollable.readiness() is None)
        good, found = self("[method]future-incoming-response.get", future)
        assert good
        assert self("[method]future-incoming-response.get", future) == ERR
        return found

    async def get(self, authority: str, *fields: tuple[str, bytes], options: Any = None, **how: Any) -> Any:
        """The response, or the error's code."""
        good, future = self.send(self.make(authority, *fields, **how), options)
        if not good:
            return future[0]
        good, found = await self.outcome(future)
        return found if good else found[0]

    async def body(self, response: Any) -> tuple[bytes, Any]:
        """Of a response, and the error that it ended with."""
        body = self.good("[method]incoming-response.consume", response)
        assert self("[method]incoming-response.consume", response) == ERR
        stream = self.good("[method]incoming-body.stream", body)
        data = bytearray()
        while True:
            good, piece = self(READ, stream, 64 * 1024)
            if not good:
                break
            data += piece
            if not piece:
                await until(lambda: stream.readiness() is None)
        stream.close()
        return bytes(data), None if piece[0] == "closed" else self("http-error-code", piece[1])


def loopback(name: str, port: int, family: int) -> list[str]:
    """A resolver that finds everything here."""
    return ["127.0.0.1"]


def sending(test: Callable[[Sender], Coroutine[Any, Any, None]], hosts: tuple[str, ...] = ALL, **how: Any) -> None:
    async def all_of_it() -> None:
        network = Network(lambda: AioSession, how.pop("lookup", loopback), how.pop("trusted", None))
        client = Client(network, hosts, loopback=how.pop("own", lambda address, port: True))
        sender = Sender(client, **how)
        try:
            await test(sender)
        finally:
            sender.outbox.close()
            await until(lambda: not sender.outbox._sending)
            await client.close()
            network.close()
            await asyncio.sleep(0)

    run(all_of_it)


# ------------------------------------------------------------------------------------------------------------ sending
def test_a_request_goes_as_the_guest_made_it_and_nothing_is_added() -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\nhi")) as peer:
            found = await guest.get(peer.authority, ("x-one", b"1"), ("accept", b"*/*"), path="/a%2Fb?c=%20d")
            assert guest("[method]incoming-response.status", found) == 200
            headers = guest("[method]incoming-response.headers", found)
            assert guest("[method]fields.get", headers, "x-a") == [b"1", b"2"]
            assert await guest.body(found) == (b"hi", None)
            lines = peer.got.decode().split("\r\n")
            assert lines[0] == "GET /a%2Fb?c=%20d HTTP/1.1"
            assert sorted(lines[1:-2]) == sorted([f"Host: {peer.authority}", "x-one: 1", "accept: */*"])

    sending(test)


@pytest.mark.parametrize("method", [("post", None), ("other", "PROPFIND")])
def test_a_body_that_is_whole_goes_with_its_length(method: Any) -> None:
    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Content-Length: 3" in await head(peer, reader)
        peer.got += await reader.readexactly(3)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            request = guest.make(peer.authority, method=method)
            body = guest.good("[method]outgoing-request.body", request)
            assert guest("[method]outgoing-request.body", request) == ERR
            good, future = guest.send(request)
            assert good
            guest.write(body, b"abc")
            assert guest("[static]outgoing-body.finish", body, None) == OK
            good, found = await guest.outcome(future)
            assert (good, guest("[method]incoming-response.status", found)) == (True, 204)
            assert peer.got.startswith((method[1] or "POST").encode())
            assert peer.got.endswith(b"\r\n\r\nabc")

    sending(test)


def test_request_and_response_are_streamed_at_the_same_time() -> None:
    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Transfer-Encoding: chunked" in await head(peer, reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            data = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%s" % (size, data.upper()))
        writer.write(b"0\r\n\r\n")
        await reader.readline()

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            request = guest.make(peer.authority, method=("post", None))
            body = guest.good("[method]outgoing-request.body", request)
            _, future = guest.send(request)
            out = guest.good("[method]outgoing-body.write", body)
            await until(lambda: peer.got)
            _, response = await guest.outcome(future)
            source = guest.good("[method]incoming-response.consume", response)
            stream = guest.good("[method]incoming-body.stream", source)
            for piece in (b"one", b"two"):
                assert guest(WRITE, out, piece) == OK
                await until(lambda: stream.readiness() is None)
                assert guest(READ, stream, 100) == (True, piece.upper())
            out.close()
            assert guest("[static]outgoing-body.finish", body, None) == OK
            await until(lambda: stream.readiness() is None)
            assert guest(READ, stream, 100) == (False, ("closed", None))

    sending(test)


def test_a_peer_that_does_not_read_stops_the_guest() -> None:
    go = asyncio.Event()
    size = 0

    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal size
        await head(peer, reader)
        await go.wait()
        while length := int(await reader.readline(), 16):
            await reader.readexactly(length + 2)
            size += length
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            request = guest.make(peer.authority, method=("put", None))
            body = guest.good("[method]outgoing-request.body", request)
            _, future = guest.send(request)
            out = guest.good("[method]outgoing-body.write", body)
            written = 0
            for _ in range(100_000):
                room = guest.good(CHECK, out)
                if not room:
                    try:
                        await until(lambda: out.readiness() is None, 0.3)
                    except TimeoutError:
                        break
                    continue
                assert guest(WRITE, out, bytes(room)) == OK
                written += room
            assert guest.good(CHECK, out) == 0
            assert written < 32 * 1024 * 1024
            go.set()
            await until(lambda: out.readiness() is None)
            out.close()
            assert guest("[static]outgoing-body.finish", body, None) == OK
            good, _ = await guest.outcome(future)
            assert (good, size) == (True, written)

    sending(test)


def test_a_guest_that_does_not_read_stops_the_peer() -> None:
    size = 32 * 1024 * 1024
    sent = 0

    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head(peer, reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            response = await guest.get(peer.authority)
            await asyncio.sleep(0.3)
            stopped = sent
            assert stopped < size
            await asyncio.sleep(0.1)
            assert sent == stopped
            data, code = await guest.body(response)
            assert (len(data), code) == (size, None)

    sending(test)


def test_redirects_are_the_guests_to_follow() -> None:
    async def test(guest: Sender) -> None:
        moved = b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.test/\r\ncontent-length: 0\r\n\r\n"
        async with listening(says(moved)) as peer:
            found = await guest.get(peer.authority)
            assert guest("[method]incoming-response.status", found) == 302
            assert peer.connections == 1

    sending(test)


def test_connections_are_used_again_by_the_same_workload() -> None:
    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(peer, reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            for _ in range(5):
                assert await guest.body(await guest.get(peer.authority)) == (b"hi", None)
            assert peer.connections == 1
            await guest.outbox._client.close()

    sending(test)


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_body_of_which_some_was_taken_is_not_begun_again_over_another_connection(method: str) -> None:
    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        # The first connection is kept, and dropped when half a body has come over it.
        await reader.readuntil(b"first half")

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            assert await guest.body(await guest.get(peer.authority)) == (b"", None)
            request = guest.make(peer.authority, method=(method, None))
            body = guest.good("[method]outgoing-request.body", request)
            _, future = guest.send(request)
            guest.write(body, b"first half")
            assert await guest.outcome(future) == (False, ("connection-terminated", None))
            assert peer.connections == 1

    sending(test)


@pytest.mark.parametrize("length", [b"30", b"1"])
def test_a_request_that_promises_a_body_and_has_none_is_refused(length: bytes) -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as peer:
            request = guest.make(peer.authority, ("content-length", length), method=("post", None))
            assert guest.send(request) == (False, ("HTTP-request-body-size", 0))
            assert not peer.connections
            found = await guest.get(peer.authority, ("content-length", b"0"), method=("post", None))
            assert guest("[method]incoming-response.status", found) == 200

    sending(test)


def test_tls_is_checked_against_the_authorities_and_the_name(tmp_path: Path) -> None:
    server, trusted = certificates(tmp_path, "peer.test")

    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), server) as peer:
            for name, expected in (("peer.test", 200), ("other.test", "TLS-certificate-error")):
                request = guest.make(f"{name}:{peer.port}")
                assert guest("[method]outgoing-request.set-scheme", request, None) == OK  # https, if it is not said
                good, found = await guest.outcome(guest.send(request)[1])
                assert (guest("[method]incoming-response.status", found) if good else found[0]) == expected

    sending(test, trusted=trusted)


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "connection-terminated"),
        (b"rubbish\r\n\r\n", "HTTP-protocol-error"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", "HTTP-protocol-error"),
    ],
)
def test_answers_that_are_none_have_a_code(answer: bytes, code: str) -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(answer)) as peer:
            assert await guest.get(peer.authority) == code

    sending(test)


def test_a_response_that_ends_too_soon_is_an_error_in_its_body() -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")) as peer:
            found = await guest.get(peer.authority)
            assert await guest.body(found) == (b"abc", ("HTTP-response-incomplete", None))

    sending(test)


def test_nobody_listening_is_an_error() -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(b"")) as peer:
            authority = peer.authority
        assert await guest.get(authority) == "connection-refused"

    sending(test)


def test_names_that_are_not_found_are_an_error() -> None:
    def nothing(name: str, port: int, family: int) -> list[str]:
        raise OSError("no such name")

    async def test(guest: Sender) -> None:
        assert await guest.get("nowhere.test") == "DNS-error"

    sending(test, lookup=nothing)


@pytest.mark.parametrize(
    ("option", "answer", "code"),
    [
        ("first-byte-timeout", b"", "connection-read-timeout"),
        ("between-bytes-timeout", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "connection-read-timeout"),
    ],
)
def test_time_is_up_when_the_guest_says_so(option: str, answer: bytes, code: str) -> None:
    async def slow(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        writer.write(answer)
        await reader.read()

    async def test(guest: Sender) -> None:
        options = guest("[constructor]request-options")
        assert guest(f"[method]request-options.{option}", options) is None
        assert guest(f"[method]request-options.set-{option}", options, 100_000_000) == OK
        assert guest(f"[method]request-options.{option}", options) == 100_000_000
        async with listening(slow) as peer:
            async with asyncio.timeout(3):
                found = await guest.get(peer.authority, options=options)
                if answer:
                    assert await guest.body(found) == (b"abc", (code, None))
                else:
                    assert found == code

    sending(test)


def test_names_that_take_too_long_are_given_up() -> None:
    def slow(name: str, port: int, family: int) -> list[str]:
        time.sleep(1)
        return ["127.0.0.1"]

    async def test(guest: Sender) -> None:
        options = guest("[constructor]request-options")
        guest("[method]request-options.set-connect-timeout", options, 100_000_000)
        async with asyncio.timeout(0.8):
            assert await guest.get("slow.test:1", options=options) == "connection-timeout"

    sending(test, lookup=slow)


def test_lookups_that_were_given_up_leave_a_thread_to_other_workloads() -> None:
    over = threading.Event()

    def hangs(name: str, port: int, family: int) -> list[str]:
        if name == "hangs.test":
            over.wait(20)
        return ["127.0.0.1"]

    async def test(guest: Sender) -> None:
        try:
            options = guest("[constructor]request-options")
            guest("[method]request-options.set-connect-timeout", options, 20_000_000)
            for _ in range(6):
                assert await guest.get("hangs.test:1", options=options) == "connection-timeout"
            other = Client(guest.outbox._client._network, ALL, loopback=lambda address, port: True)
            async with listening(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as peer, asyncio.timeout(10):
                found = await Sender(other).get(peer.authority)
                assert guest("[method]incoming-response.status", found) == 204
                await other.close()
        finally:
            over.set()

    sending(test, lookup=hangs)


# ------------------------------------------------------------------------------------------------------- where it may
def test_hosts_that_are_not_allowed_are_denied_without_being_looked_up() -> None:
    asked: list[str] = []

    def lookup(name: str, port: int, family: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    async def test(guest: Sender) -> None:
        for authority in ("b.test", "a.test:81", "x.a.test", "a.test.evil", "suffix.test", "169.254.169.254"):
            assert await guest.get(authority) == "HTTP-request-denied"
        for authority in ("a.test:0", "a.test:99999"):
            assert await guest.get(authority) == "HTTP-request-URI-invalid"
        assert asked == []
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as peer:
            found = await guest.get(f"X.Suffix.test:{peer.port}")
            assert guest("[method]incoming-response.status", found) == 200
        assert asked == ["x.suffix.test"]

    sending(test, ("a.test:80", "*.suffix.test"), lookup=lookup)


def test_a_guest_without_an_outbox_is_denied() -> None:
    guest = Guest()
    request = guest("[constructor]outgoing-request", guest.fields())
    assert guest("wasi:http/outgoing-handler#handle", request, None) == (False, ("HTTP-request-denied", None))


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
     "0.0.0.0", "::", "224.0.0.1", "ff02::1", "127.0.0.1", "::1", "::ffff:127.0.0.1", "100.100.100.200"],  # noqa: S104
)  # fmt: skip
@pytest.mark.parametrize("literal", [False, True])
def test_forbidden_addresses_are_never_connected_to(address: str, literal: bool) -> None:
    async def test(guest: Sender) -> None:
        authority = "innocent.test" if not literal else f"[{address}]" if ":" in address else address
        assert await guest.get(authority) == "destination-IP-prohibited"

    sending(test, lookup=lambda *_: [address], own=None)


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_other_spellings_of_an_address_are_refused(spelling: str) -> None:
    async def test(guest: Sender) -> None:
        assert await guest.get(spelling) in {"destination-IP-prohibited", "HTTP-request-URI-invalid"}

    sending(test, lookup=None, own=None)


def test_this_machine_is_asked_only_at_an_address_and_port_that_are_listed_by_themselves() -> None:
    async def run() -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")) as peer:
            network = Network(lambda: AioSession, loopback)
            for hosts, expected in (
                (("*",), "destination-IP-prohibited"),
                (("*", f"127.0.0.1:{peer.port + 1}"), "destination-IP-prohibited"),
                (("*", "127.0.0.2"), "destination-IP-prohibited"),
                ((f"127.0.0.1:{peer.port}",), 200),
                (("127.0.0.1",), 200),
            ):
                client = Client(network, hosts)
                guest = Sender(client)
                found = await guest.get(f"127.0.0.1:{peer.port}")
                told = found if isinstance(found, str) else guest("[method]incoming-response.status", found)
                assert told == expected, hosts
                await client.close()
            network.close()

    asyncio.run(run())


def test_a_name_that_changes_its_mind_is_refused_when_it_does() -> None:
    addresses = ["127.0.0.1"]

    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")) as peer:
            found = await guest.get(f"rebind.test:{peer.port}")
            assert guest("[method]incoming-response.status", found) == 200
            addresses[:] = ["169.254.169.254"]
            assert await guest.get(f"rebind.test:{peer.port}") == "destination-IP-prohibited"
            assert peer.connections == 1

    sending(test, lookup=lambda *_: list(addresses))


def test_of_a_names_addresses_those_that_may_be_asked_are() -> None:
    async def test(guest: Sender) -> None:
        async with listening(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as peer:
            found = await guest.get(peer.authority)
            assert guest("[method]incoming-response.status", found) == 200

    sending(test, lookup=lambda *_: ["169.254.169.254", "fe80::1", "127.0.0.1"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authority", "user@host"),
        ("authority", "host/path"),
        ("authority", "a b"),
        ("authority", "h\r\nx: y"),
        ("path-with-query", "/a\r\nx: y"),
        ("path-with-query", "/a b"),
        ("path-with-query", "/a#b"),
        ("path-with-query", "a"),
        ("method", ("other", "G T")),
        ("method", ("other", "")),
        ("scheme", ("other", "ht tp")),
    ],
)
def test_parts_of_a_request_that_could_not_be_sent_are_refused(name: str, value: object) -> None:
    guest = Guest()
    request = guest("[constructor]outgoing-request", guest.fields())
    before = guest(f"[method]outgoing-request.{name}", request)
    assert guest(f"[method]outgoing-request.set-{name}", request, value) == ERR
    assert guest(f"[method]outgoing-request.{name}", request) == before


# ---------------------------------------------------------------------------------------------------------- the end
def test_a_body_that_is_not_as_long_as_declared_ends_the_request() -> None:
    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        peer.got += await reader.read()

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            request = guest.make(peer.authority, ("content-length", b"3"), method=("post", None))
            body = guest.good("[method]outgoing-request.body", request)
            _, future = guest.send(request)
            await until(lambda: peer.got)
            guest.write(body, b"ab")
            found = guest("[static]outgoing-body.finish", body, None)
            assert found == (False, ("HTTP-request-body-size", 2))
            assert await guest.outcome(future) == (False, ("connection-terminated", None))

    sending(test)


def test_a_request_that_is_dropped_as_soon_as_it_was_made_takes_no_more_of_its_body() -> None:
    async def test(guest: Sender) -> None:
        request = guest.make("peer.test:1", method=("post", None))
        guest.good("[method]outgoing-request.body", request)
        upload = request.upload
        _, future = guest.send(request)
        future.close()
        with pytest.raises(StreamClosed):
            upload.check_write()
        assert upload.readiness() is None

    sending(test)


@pytest.mark.parametrize("what", ["future", "response", "body", "request body", "instance"])
def test_what_the_guest_drops_is_not_gone_on_with(what: str) -> None:
    left = asyncio.Event()

    async def answer(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        if what in {"response", "body"}:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc")
        try:
            while await reader.read(4096):
                pass
        finally:
            left.set()

    async def test(guest: Sender) -> None:
        async with listening(answer) as peer:
            request = guest.make(peer.authority, method=("post", None))
            body = guest.good("[method]outgoing-request.body", request)
            _, future = guest.send(request)
            await until(lambda: peer.got)
            if what == "future":
                future.close()
            elif what == "request body":
                body.close()
            elif what == "instance":
                guest.host.http.close()
            else:
                _, response = await guest.outcome(future)
                if what == "response":
                    response.close()
                else:
                    guest.good("[method]incoming-response.consume", response).close()
            await asyncio.wait_for(left.wait(), 2.0)
            await until(lambda: not guest.outbox._sending)

    sending(test)


def test_an_instance_sends_so_many_requests_at_a_time() -> None:
    async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(peer, reader)
        await reader.read()

    async def test(guest: Sender) -> None:
        async with listening(silent) as peer:
            futures = [guest.good("wasi:http/outgoing-handler#handle", guest.make(peer.authority), None) for _ in "ab"]
            assert guest.send(guest.make(peer.authority)) == (False, ("connection-limit-reached", None))
            futures[0].close()
            await until(lambda: len(guest.outbox._sending) == 1)
            assert guest.send(guest.make(peer.authority))[0]

    sending(test, most=2)


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server of that name, and for clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("10.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    chain = folder / "chain.pem"
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    chain.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cafile=chain)
