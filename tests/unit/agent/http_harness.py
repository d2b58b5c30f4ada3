"""A site on a real socket of the loopback, and clients that say exactly what a test wants said."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from wasmpool_agent.http import Connection, Exchange, Limits
from wasmpool_agent.wasi.signals import StreamFailed

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
QUICK = Limits(head_seconds=0.2, idle_seconds=0.2, body_seconds=0.2, write_seconds=0.3, linger_seconds=0.2)
"""Everything that takes long in life happens soon."""
MOST_SECONDS = 10.0


@dataclass
class Answer:
    """What a client got. `body` as it came: chunks are not unpacked."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Answer":
        head, separator, body = data.partition(b"\r\n\r\n")
        assert separator, data
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return cls(int(status.split(" ")[1]), headers, body)


@dataclass
class Client:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def all(self) -> bytes:
        """Until the server ends the connection."""
        return await asyncio.wait_for(self.reader.read(), MOST_SECONDS)

    async def answer(self) -> Answer:
        """One answer with a content-length, or without a body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), MOST_SECONDS)
        found = Answer.parse(head)
        length = int(found.headers.get("content-length", "0"))
        found.body = await asyncio.wait_for(self.reader.readexactly(length), MOST_SECONDS)
        return found

    def reset(self) -> None:
        """Goes without a word: the server gets a reset."""
        sock = self.writer.get_extra_info("socket")
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Server:
    """Implements http.Site. `handler` answers; `exchanges`: all that came."""

    port: int
    handler: Callable[[Exchange], None]
    limits: Limits
    exchanges: list[Exchange] = field(default_factory=list)
    connections: set[Connection] = field(default_factory=set)
    clients: list[Client] = field(default_factory=list)
    seen: int = 0

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.handler(exchange)

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.seen += 1

    def closed(self, connection: Connection) -> None:
        self.connections.remove(connection)

    async def client(self, data: bytes = b"", receive_bytes: int | None = None) -> Client:
        """A new one, which has sent this. `receive_bytes`: of its socket's buffer."""
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self.port))
        client = Client(*await asyncio.open_connection(sock=sock, limit=1024 * 1024))
        self.clients.append(client)
        client.send(data)
        return client

    async def ask(self, data: bytes) -> Answer:
        """Of a client of its own; reads to the end of the connection."""
        client = await self.client(data)
        found = Answer.parse(await client.all())
        client.writer.close()
        return found

    async def no_connection(self) -> None:
        """Waits until the server has none left."""
        await until(lambda: self.seen > 0 and not self.connections)


async def until(condition: Callable[[], object], seconds: float = MOST_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it waits for what has no event
            await asyncio.sleep(0.002)


def hello(exchange: Exchange) -> None:
    """Answers with the target, and wants no body."""
    exchange.body.abandon()
    exchange.respond(200, [("content-type", b"text/plain")])
    exchange.answer.write(exchange.path_with_query.encode())
    exchange.answer.finish()


@asynccontextmanager
async def serving(handler: Callable[[Exchange], None] = hello, limits: Limits | None = None) -> AsyncGenerator[Server]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = Server(listener.getsockname()[1], handler, limits or Limits())
        tasks: set[asyncio.Task[Any]] = set()

        def accept() -> None:
            client, _ = listener.accept()
            client.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(lambda: Connection(server, loop), client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        loop.add_reader(listener, accept)
        try:
            yield server
        finally:
            loop.remove_reader(listener)
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in server.clients:
                client.reset()
            await until(lambda: not server.connections)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test's coroutine with a limit of its own."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


def whole_body(exchange: Exchange, then: Callable[[bytes], None]) -> None:
    """Reads it to its end as a guest does: as much as there is, and then waits."""
    data = bytearray()

    def more() -> None:
        while True:
            try:
                piece = exchange.body.read(64 * 1024)
            except StreamFailed:
                return
            if piece is None:
                then(bytes(data))
                return
            if not piece:
                break
            data.extend(piece)
        wait = exchange.body.readiness()
        if wait is None:
            more()
        else:
            wait.arm(more)

    more()


def echo(exchange: Exchange) -> None:
    """Answers with the body, once it is whole."""

    def answer(data: bytes) -> None:
        exchange.respond(200, [("content-length", b"%d" % len(data))])
        exchange.answer.write(data)
        exchange.answer.finish(exchange.body.trailers)

    whole_body(exchange, answer)


class Streamed:
    """A guest that writes for ever, whenever there is room. `written`: bytes that were taken from it."""

    def __init__(self, piece: bytes = b"x" * 4096) -> None:
        self.piece = piece
        self.written = 0

    def __call__(self, exchange: Exchange) -> None:
        exchange.respond(200, [])

        def more() -> None:
            answer = exchange.answer
            while not answer.closed and answer.check_write() >= len(self.piece):
                answer.write(self.piece)
                self.written += len(self.piece)
            if not answer.closed:
                wait = answer.readiness()
                if wait is not None:
                    wait.arm(more)
                else:
                    answer.flush()
                    asyncio.get_running_loop().call_soon(more)

        more()
