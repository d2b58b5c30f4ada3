"""A request that a guest sends: its body as it is written, and its response as it comes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wasmpool_agent.http.body import ROOM_BYTES, TERMINATED, Field, Incoming
from wasmpool_agent.wasi.signals import Signal, StreamClosed, StreamFailed
from wasmpool_agent.wasmtime_async import Wait

ErrorCode = tuple[str, object]
"""WASI's error-code."""


class SendingError(Exception):
    """No response, or no more of it; the message says why."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. `target`: path with query. `fields`: without those of the connection and the host.

    `connect_seconds`: for the name, the connection and TLS. The others: without any byte of the response.
    """

    method: str
    scheme: str
    authority: str
    target: str
    fields: Sequence[Field]
    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    between_bytes_seconds: float = 600.0


class Upload:
    """A request's body, as the guest writes it. Implements Outlet. `declared`: what its content-length says."""

    def __init__(self, declared: int | None) -> None:
        self.declared = declared
        self.written = 0
        self.finished = self.closed = False
        self.failed: Callable[[], None] | None = None
        self._kept = bytearray()
        self._more = asyncio.Event()
        self._room = Signal(lambda: self.closed or len(self._kept) < ROOM_BYTES)

    def check_write(self) -> int:
        """See OutputStream."""
        if self.closed or self.finished:
            raise StreamClosed
        return max(0, ROOM_BYTES - len(self._kept))

    def write(self, data: bytes) -> None:
        """See OutputStream."""
        if self.closed or self.finished:
            raise StreamClosed
        self.written += len(data)
        if self.declared is not None and self.written > self.declared:
            raise StreamFailed(f"more than the {self.declared} bytes of content-length are written")
        self._kept += data
        self._more.set()

    def flush(self) -> None:
        """See OutputStream: everything goes as soon as it can."""

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None if self._room.ready() else self._room

    def finish(self, trailers: Iterable[Field] = ()) -> bool:
        """See Outlet. Trailers can't be sent: with some of them it fails, for nobody should believe that they were."""
        self.finished = True
        whole = (self.declared is None or self.written == self.declared) and not tuple(trailers)
        if whole:
            self._more.set()
        else:
            self.break_off()
        return whole

    def break_off(self) -> None:
        """It never becomes whole: neither does the request."""
        self.close()
        if self.failed is not None:
            self.failed()

    def close(self) -> None:
        """Nobody takes it any more. Idempotent."""
        self.closed = True
        self._more.set()
        self._room.set()

    def whole(self) -> bytes | None:
        """All of it, if that is there already."""
        return bytes(self._kept) if self.finished and not self.closed else None

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they come."""
        while not self.closed:
            if self._kept:
                data, self._kept = bytes(self._kept), bytearray()
                self._room.set()
                yield data
            elif self.finished:
                return
            else:
                self._more.clear()
                await self._more.wait()
        raise ConnectionAbortedError("the request's body was broken off")


@dataclass(slots=True)
class Response:
    """What has come. The body goes on coming."""

    status: int
    fields: list[Field]
    body: Incoming


class Exchanged(Protocol):
    """Sends a request and receives its response. Raises SendingError."""

    def __call__(self, sending: "Sending") -> Awaitable[None]: ...


class Sending:
    """One request. `outcome`: the response, or why there is none; None while that is not known.

    Whoever made it closes it. Also a body's Source: a guest that does not read keeps the other side from sending.
    """

    def __init__(
        self, exchanged: Exchanged, request: Request, upload: Upload | None, on_end: Callable[[], None]
    ) -> None:
        """`on_end`: called once, when nothing of it goes on."""
        self.outcome: Response | ErrorCode | None = None
        self.changed = Signal(lambda: self.outcome is not None)
        self.request = request
        self.upload = upload
        self._room = asyncio.Event()
        self._room.set()
        if upload is not None:
            upload.failed = self.close
        self._task = asyncio.ensure_future(self._run(exchanged))
        self._task.add_done_callback(lambda _: on_end())

    async def receive(self, status: int, fields: list[Field], pieces: AsyncIterator[bytes]) -> None:
        """For Exchanged: the head has come. Returns when the body has."""
        body = Incoming(self)
        self.outcome = Response(status, fields, body)
        self.changed.set()
        async for piece in pieces:
            body.feed(piece)
            await self._room.wait()
        body.end()

    def close(self) -> None:
        """At once. Idempotent."""
        self._task.cancel()
        if self.upload is not None:  # NB: a task that is cancelled before its first step does nothing at its end
            self.upload.close()
        self._fail(TERMINATED, "the request was given up")

    def want(self) -> None:
        """See Source."""
        self._room.set()

    def enough(self) -> None:
        """See Source."""
        self._room.clear()

    def wanted(self) -> None:
        """See Source."""

    def abandoned(self) -> None:
        """See Source."""
        self.close()

    async def _run(self, exchanged: "Exchanged") -> None:
        try:
            await exchanged(self)
        except SendingError as error:
            self._fail(error.code, str(error))
        finally:
            if self.upload is not None:
                self.upload.close()
            self._fail(TERMINATED, "the request was given up")

    def _fail(self, code: ErrorCode, why: str) -> None:
        if self.outcome is None:
            self.outcome = code
            self.changed.set()
        elif isinstance(self.outcome, Response):
            self.outcome.body.fail(why, code)
