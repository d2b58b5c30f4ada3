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

import httptools

from wasmpool_agent.http.body import Field, Incoming, Outgoing
from wasmpool_agent.http.deadline import Deadline
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.http.head import NOT_IN_TRAILERS, Refused, request_head
from wasmpool_agent.http.limits import Limits

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HIGH_WATER_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024
_STEP_BYTES: Final = 8 * 1024
"""Parsed at once: so few that a flood of requests is noticed before it is parsed."""
_PIPELINED_MOST: Final = 64
"""Requests that have come before the first of them is answered; then no more is read."""
_FRAMING_MOST: Final = 16
"""Bytes around each byte of a body in chunks."""
_LOOK_SECONDS: Final = 0.5
"""How often a client of which nothing is read is looked after."""
_TCP_ESTABLISHED: Final = 1


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

    `_reading`: whose body comes; it stays so when the answer is whole before the request is. `_last`: no request is
    parsed any more. `_held`: read, and not parsed yet; nothing more is read meanwhile. `_unheard`: bytes that
    came and will never be parsed.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self._limits = site.limits
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._target = b""
        self._fields: list[Field] = []
        self._head_size = self._body_size = self._fed = 0
        self._in_head = self._full = self._paused = self._last = self._closing = False
        self._unheard = 0
        self._held: memoryview | None = None
        self._read_due = Deadline(loop, self._too_long)
        self._write_due: Deadline | None = None
        self._looks: asyncio.TimerHandle | None = None
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
        self._last = self._closing = True
        self._transport = self._held = None
        self._read_due.close()
        if self._write_due is not None:
            self._write_due.close()
        self._look_no_more()
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
        if not self._last:
            self._parse(_scratch.view[:nbytes])
            return
        self._unheard += nbytes
        if not self._closing or self._unheard > self._limits.discard_bytes:
            self.enough()  # nothing is wanted any more, but the answers are

    def eof_received(self) -> bool:
        """See asyncio.BufferedProtocol."""
        self._last = True
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
    def on_message_begin(self) -> None:
        """A request begins."""
        if self._last:  # in the same step as what was last
            return
        self._in_head = True
        self._target, self._fields = b"", []
        self._head_size = self._body_size = self._fed = 0
        self._read_due.set(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise Refused(414, f"the request's target has more than {self._limits.target_bytes} bytes")
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._limits.head_bytes or len(self._fields) >= self._limits.headers:
            raise self._too_large()
        self._fields.append((name.lower().decode("latin-1"), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._last:
            return
        self._in_head = False
        self._read_due.clear()
        parser = self._parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        fields, self._fields, self._head_size = self._fields, [], 0
        head = request_head(version, method, self._target, fields, self._limits)
        exchange = Exchange(self, Incoming(self))
        # What another protocol says would follow: it is not taken up, and no request can come after it.
        close = not parser.should_keep_alive() or parser.should_upgrade()
        exchange.begin(method, head, http10=version == "1.0", close=close)
        self._reading = exchange
        self._exchanges.append(exchange)
        if head.length == 0:
            exchange.body.ended = True
        if len(self._exchanges) == 1:
            self._site.handle(exchange)

    def on_body(self, data: bytes) -> None:
        """A piece of its body."""
        self._body_size += len(data)
        if self._body_size > self._limits.body_bytes:
            raise Refused(413, f"the request's body has more than {self._limits.body_bytes} bytes")
        exchange = self._reading
        if exchange is None:
            return
        if exchange.body.forsaken:
            if self._body_size > self._limits.discard_bytes:
                if self._exchanges:
                    self.enough()
                else:
                    self._finish()
            return
        if self._exchanges:
            self._read_due.clear()
        exchange.body.feed(data)

    def on_message_complete(self) -> None:
        """It is whole."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        if self._fields:
            exchange.body.trailers = [it for it in self._fields if it[0] not in NOT_IN_TRAILERS]
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
        self._last = True
        if self._exchanges:
            self._exchanges[-1].close_after()
        elif not self._closing:
            self._finish()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, or read."""
        return not self._exchanges and not self._in_head and self._reading is None

    # ---------------------------------------------------------------------------------------- from the body
    def want(self) -> None:
        """See Source."""
        self._look_no_more()
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
            if self._looks is None:
                self._looks = self._loop.call_later(_LOOK_SECONDS, self._look)

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
        if self._reading is not None and not self._exchanges and self._body_size > self._limits.discard_bytes:
            self._finish()

    # ---------------------------------------------------------------------------------------- inside
    def _parse(self, data: memoryview) -> None:
        for at in range(0, len(data), _STEP_BYTES):
            if len(self._exchanges) >= _PIPELINED_MOST:
                self._held = memoryview(bytes(data[at:]))
                self.enough()
                return
            step = data[at : at + _STEP_BYTES]
            self._fed += len(step)
            try:
                self._parser.feed_data(step)
            except httptools.HttpParserUpgrade:
                self.close()
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._refuse(cause if isinstance(cause, Refused) else Refused(400, str(error)))
            else:
                self._look_at_size()
            if self._last:
                return

    def _look_at_size(self) -> None:
        """Of what the parser has not given us yet, or never will."""
        limit = self._limits.head_bytes
        if self._in_head or self._reading is None:
            if self._fed > limit + _STEP_BYTES and (self._in_head or not self._exchanges):
                self._refuse(self._too_large())
        elif self._fed - self._body_size > 2 * limit + 2 * _STEP_BYTES + _FRAMING_MOST * self._body_size:
            self._refuse(Refused(400, "the request's body is mostly framing"))

    def _go_on(self) -> None:
        held, self._held = self._held, None
        if held is None or self._last:
            return
        self._parse(held)
        if self._held is None and not self._paused and self._transport is not None:
            self._transport.resume_reading()

    def _next(self) -> None:
        if self._exchanges:
            # NB: not from inside of the answer before it: a client with many requests would be as many calls deep.
            self._loop.call_soon(self._begin_next)
        elif self._last:
            self._finish()
        elif not self._in_head:
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
        self._last = True
        self._unheard += 1
        self._in_head, self._held = False, None
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

    def _too_large(self) -> Refused:
        limits = self._limits
        return Refused(
            431, f"the request's headers have more than {limits.head_bytes} bytes, or are more than {limits.headers}"
        )

    def _finish(self) -> None:
        """All is said. A client that still sends is heard for a while, or it would lose what it was sent last."""
        transport = self._transport
        if self._closing or transport is None:
            return
        unread = self._unheard > 0 or self._reading is not None or self._in_head or self._held is not None
        self._last = self._closing = True
        self._held = None
        self._look_no_more()
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
        elif self._in_head:
            if self._paused:
                self._read_due.set(self._limits.head_seconds)  # it is we who do not read
            else:
                self._refuse(Refused(408, f"the request's head did not come within {self._limits.head_seconds:g} s"))
        elif self._reading is not None:
            self._refuse(Refused(408, f"no more of the body came within {self._limits.body_seconds:g} s"))
        elif not self._exchanges:
            self._finish()

    def _look(self) -> None:
        """Whether the client is there: what is not read from does not tell."""
        self._looks = None
        transport = self._transport
        if not self._paused or transport is None:
            return
        if _has_left(transport.get_extra_info("socket")):
            self._abort()
        else:
            self._looks = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look_no_more(self) -> None:
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None


def _has_left(client: socket.socket) -> bool:
    if client.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED


def _reset_at_end(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _done(exchange: Exchange) -> None:
    done, exchange.done = exchange.done, None
    if done is not None:
        done()
