"""One client: its requests in order, its timeouts, and the end.

A client that has sent its last byte is taken for gone, as by most servers: nothing tells it from one that has left, and
a guest should not go on for nobody.
"""

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from wasmpool_agent.http.body import Field, Incoming, Outgoing
from wasmpool_agent.http.deadline import Deadline
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.http.head import Head, Refused
from wasmpool_agent.http.limits import Limits
from wasmpool_agent.http.parser import STEP_BYTES, RequestParser
from wasmpool_agent.http.presence import Presence

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HIGH_WATER_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024
_PIPELINED_MOST: Final = 64
"""Requests that have come before the first of them is answered; then no more is read."""


class Site(Protocol):
    """Who answers."""

    limits: Limits

    def handle(self, exchange: Exchange) -> None:
        """Its head has come. Answers now or later; never raises."""
        ...

    def opened(self, connection: "Connection") -> None:
        """A client has come."""
        ...

    def closed(self, connection: "Connection") -> None:
        """It has gone."""
        ...


class _Scratch(threading.local):
    """What sockets are read into, and parsed from before the next one is. A thread has one loop."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_READ_BYTES))


_scratch: Final = _Scratch()


class Connection(asyncio.BufferedProtocol):
    """Invariants: the first of `_exchanges` is being answered, the others wait for it; the last one may still be read.

    `_reading`: whose body comes; it stays so when the answer is whole before the request is. `last`: no request is
    parsed any more. `_held`: read, and not parsed yet; nothing more is read meanwhile. `_unheard`: bytes that
    came and will never be parsed.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self._limits = site.limits
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = RequestParser(self, self._limits)
        self._exchanges: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self.last = False
        self._full = self._paused = self._closing = False
        self._unheard = 0
        self._held: memoryview | None = None
        self._read_due = Deadline(loop, self._too_long)
        self._write_due: Deadline | None = None
        self._presence = Presence(loop, self._abort)
        self._read_due.set(self._limits.head_seconds)

    # ---------------------------------------------------------------------------------------- from the transport
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket has
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._site.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        del exc
        self.last = self._closing = True
        self._transport = self._held = None
        self._read_due.close()
        if self._write_due is not None:
            self._write_due.close()
        self._presence.stop()
        exchanges, self._exchanges = self._exchanges, deque()
        for exchange in exchanges:
            exchange.client_gone()
            _done(exchange)
        self._reading = None
        self._site.closed(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        del sizehint
        return _scratch.view

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        if not self.last:
            self._parse(_scratch.view[:nbytes])
            return
        self._unheard += nbytes
        if not self._closing or self._unheard > self._limits.discard_bytes:
            self.enough()  # nothing is wanted any more, but the answers are

    def eof_received(self) -> bool:
        """See asyncio.BufferedProtocol."""
        self.last = True
        if self._exchanges:
            self._abort()
        else:
            self._finish()
        return False

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._full = True
        if self._exchanges:
            self._exchanges[0].answer.full(is_full=True)
        if self._write_due is None:
            self._write_due = Deadline(self._loop, self._abort)
        self._write_due.set(self._limits.write_seconds)

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._full = False
        if self._write_due is not None:
            self._write_due.clear()
        if self._exchanges:
            self._exchanges[0].answer.full(is_full=False)

    # ---------------------------------------------------------------------------------------- from the parser
    def head_begins(self) -> None:
        """See Requests."""
        self._read_due.set(self._limits.head_seconds)

    def head_came(self, method: str, head: Head, *, http10: bool, close: bool) -> None:
        """See Requests."""
        self._read_due.clear()
        exchange = Exchange(self, Incoming(self))
        exchange.begin(method, head, http10=http10, close=close)
        self._reading = exchange
        self._exchanges.append(exchange)
        if head.length == 0:
            exchange.body.ended = True
        if len(self._exchanges) == 1:
            self._site.handle(exchange)

    def body_came(self, data: bytes) -> None:
        """See Requests."""
        exchange = self._reading
        if exchange is None:
            return
        if exchange.body.forsaken:
            if self._parser.body_bytes > self._limits.discard_bytes:
                if self._exchanges:
                    self.enough()
                else:
                    self._finish()
            return
        if self._exchanges:
            self._read_due.clear()
        exchange.body.feed(data)

    def request_ends(self, trailers: list[Field]) -> None:
        """See Requests."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.body.trailers = trailers
        if not exchange.body.ended:
            exchange.body.end()
        self._read_due.clear()
        if not self._exchanges or self._exchanges[-1] is not exchange:  # answered before it was read
            self._next()

    # ---------------------------------------------------------------------------------------- from the exchange
    def send(self, data: bytes | bytearray) -> None:
        """See Sink."""
        if self._transport is not None:
            self._transport.write(data)

    def soon(self, what: Callable[[], None]) -> None:
        """See Sink."""
        self._loop.call_soon(what)

    def ended(self, answer: Outgoing) -> None:
        """See Sink."""
        if not self._exchanges or self._exchanges[0].answer is not answer:
            return
        exchange = self._exchanges.popleft()
        _done(exchange)
        if exchange.closes:
            self._finish()
        elif exchange is not self._reading or exchange.body.ended:
            self._next()
        elif exchange.expects:
            self._finish()  # the rest of the request will never come
        else:
            self._read_due.set(self._limits.body_seconds)
            if exchange.body.forsaken:
                self.abandoned()

    def broken(self, answer: Outgoing) -> None:
        """See Sink."""
        if self._exchanges and self._exchanges[0].answer is answer:
            exchange = self._exchanges.popleft()
            exchange.body.fail("the answer was broken off")
            _done(exchange)
            if exchange.unframed and self._transport is not None:
                # Its end would be taken for that of the answer, were it not a reset.
                _reset_at_end(self._transport.get_extra_info("socket"))
            self._abort()

    def close(self) -> None:
        """No more requests; those that have come are answered."""
        self.last = True
        if self._exchanges:
            self._exchanges[-1].close_after()
        elif not self._closing:
            self._finish()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, or read."""
        return not self._exchanges and not self._parser.in_head and self._reading is None

    # ---------------------------------------------------------------------------------------- from the body
    def want(self) -> None:
        """See Source."""
        self._presence.stop()
        if self._paused and len(self._exchanges) < _PIPELINED_MOST:
            self._paused = False
            if self._held is not None:
                self._loop.call_soon(self._go_on)
            elif self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def enough(self) -> None:
        """See Source."""
        if not self._paused:
            self._paused = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
            self._presence.watch(self._transport)

    def wanted(self) -> None:
        """See Source: of the exchange that is being answered, or has its answer, if its body is not whole."""
        exchange = self._reading
        if exchange is None or (self._exchanges and exchange is not self._exchanges[0]):
            return
        if exchange.expects and not exchange.answer.begun:
            exchange.expects = False
            self.send(_CONTINUE)
        self._read_due.set(self._limits.body_seconds)

    def abandoned(self) -> None:
        """See Source. Once it is answered, the rest of a request is read if it is not much."""
        if self._reading is not None and not self._exchanges and self._parser.body_bytes > self._limits.discard_bytes:
            self._finish()

    # ---------------------------------------------------------------------------------------- inside
    def _parse(self, data: memoryview) -> None:
        for at in range(0, len(data), STEP_BYTES):
            if len(self._exchanges) >= _PIPELINED_MOST:
                self._held = memoryview(bytes(data[at:]))
                self.enough()
                return
            try:
                if not self._parser.feed(data[at : at + STEP_BYTES]):
                    self.close()
                else:
                    self._parser.look_at_size(in_body=self._reading is not None, answering=bool(self._exchanges))
            except Refused as refused:
                self._refuse(refused)
            if self.last:
                return

    def _go_on(self) -> None:
        held, self._held = self._held, None
        if held is None or self.last:
            return
        self._parse(held)
        if self._held is None and not self._paused and self._transport is not None:
            self._transport.resume_reading()

    def _next(self) -> None:
        if self._exchanges:
            # NB: not from inside of the answer before it: a client with many requests would be as many calls deep.
            self._loop.call_soon(self._begin_next)
        elif self.last:
            self._finish()
        elif not self._parser.in_head:
            self._read_due.set(self._limits.idle_seconds)
        if self._held is not None and len(self._exchanges) < _PIPELINED_MOST // 2:
            self.want()

    def _begin_next(self) -> None:
        if not self._exchanges or self._closing:
            return
        exchange = self._exchanges[0]
        if exchange.refusal is not None:
            exchange.plain(*exchange.refusal)
            return
        if self._full:
            exchange.answer.full(is_full=True)
        self._site.handle(exchange)

    def _refuse(self, refused: Refused) -> None:
        """What came can't be taken, and nothing after it is understood. What came before it has its answers."""
        self.last = True
        self._unheard += 1
        self._parser.in_head, self._held = False, None
        self._read_due.clear()
        reading, self._reading = self._reading, None
        if reading is not None:
            if not self._exchanges or self._exchanges[-1] is not reading:  # answered already
                self._finish()
                return
            if reading is self._exchanges[0] and reading.answer.begun:
                self._abort()
                return
            self._exchanges.pop()
            reading.client_gone()
            _done(reading)
        answer = Exchange(self, Incoming(self))
        answer.refusal = refused.status, str(refused)
        answer.close_after()
        self._exchanges.append(answer)
        if len(self._exchanges) == 1:
            answer.plain(*answer.refusal)

    def _finish(self) -> None:
        """All is said. A client that still sends is heard for a while, or it would lose what it was sent last."""
        transport = self._transport
        if self._closing or transport is None:
            return
        unread = self._unheard > 0 or self._reading is not None or self._parser.in_head or self._held is not None
        self.last = self._closing = True
        self._held = None
        self._presence.stop()
        if unread and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()
            if self._paused:
                self._paused = False
                transport.resume_reading()
            self._read_due.set(self._limits.linger_seconds)
        else:
            transport.close()
            self._read_due.set(self._limits.write_seconds)

    def _abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------------------------------- time
    def _too_long(self) -> None:
        if self._closing:
            self._abort()
        elif self._parser.in_head:
            if self._paused:
                self._read_due.set(self._limits.head_seconds)  # it is we who do not read
            else:
                self._refuse(Refused(408, f"the request's head did not come within {self._limits.head_seconds:g} s"))
        elif self._reading is not None:
            self._refuse(Refused(408, f"no more of the body came within {self._limits.body_seconds:g} s"))
        elif not self._exchanges:
            self._finish()


def _reset_at_end(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _done(exchange: Exchange) -> None:
    done, exchange.done = exchange.done, None
    if done is not None:
        done()
