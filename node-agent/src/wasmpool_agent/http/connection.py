"""One client: its requests in order, its timeouts, and the end.

What is never let through: two lengths, a length and chunks, chunks that are none, folded headers, bare line ends,
codings that nobody knows. llhttp refuses these, and nothing behind it parses again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import httptools

from wasmpool_agent.http.body import Field, Incoming
from wasmpool_agent.http.exchange import FORBIDDEN, Exchange
from wasmpool_agent.http.limits import Limits

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HIGH_WATER_BYTES: Final = 64 * 1024
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


class Connection(asyncio.Protocol):
    """Invariant: the first of `_exchanges` is being answered, the others wait for it; the last one is being read."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self._limits = site.limits
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._target = b""
        self._headers: list[Field] = []
        self._head_size = self._body_size = 0
        self._in_head = self._expects = self._unread = False
        self._full = self._closing = self._ended = False
        self._due = 0.0
        self._due_what: Callable[[], None] = self._too_long_idle
        self._timer: asyncio.TimerHandle | None = None

    # ---------------------------------------------------------------------------------------- from the transport
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket has
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._site.opened(self)
        self._in(self._limits.head_seconds, self._too_long_head)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        del error
        self._closing = self._ended = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in list(self._exchanges):
            exchange.client_gone()
        self._exchanges.clear()
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._closing:
            return
        if self._reading is None or self._in_head:
            if not self._head_size:
                self._in(self._limits.head_seconds, self._too_long_head)
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Another protocol was offered, and is not taken up: what follows is no request.
            if self._exchanges:
                self._exchanges[-1].close_after()
            self._stop_reading()
            return
        except (httptools.HttpParserError, _RefusedError) as error:
            status, text = (error.status, str(error)) if isinstance(error, _RefusedError) else (400, f"{error}")
            self._refuse(status, text)
            return
        # What is left of the data belongs to a body, or to a head of which so much is known to be there.
        if self._in_head or self._reading is None:
            if self._head_size > self._limits.head_bytes and (self._in_head or not self._exchanges):
                self._refuse(431, f"the request's head has more than {self._limits.head_bytes} bytes")
        elif self._reading is not None:
            self._wait_for_body()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Who has sent everything may still read."""
        self._ended = True
        if self._reading is not None:
            self._reading.body.fail("the client's request ended too soon")
            self._reading.close_after()
        if self._exchanges:
            self._exchanges[-1].close_after()
        return bool(self._exchanges)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._full = True
        if self._exchanges:
            self._exchanges[0].answer.full(is_full=True)
        self._in(self._limits.write_seconds, self._too_long_write)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._full = False
        self._never()
        if self._exchanges:
            self._exchanges[0].answer.full(is_full=False)

    # ---------------------------------------------------------------------------------------- from the parser
    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._expects = True, False
        self._target, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._target += url
        if len(self._target) > self._limits.head_bytes:
            raise _RefusedError(414, f"the request's target has more than {self._limits.head_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if len(self._headers) >= self._limits.headers:
            raise _RefusedError(431, f"the request has more than {self._limits.headers} headers")
        self._headers.append((name.lower().decode("latin-1"), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._head_size, self._body_size = False, 0, 0
        self._never()
        method = self._parser.get_method().decode("ascii")
        version = self._parser.get_http_version()
        body = Incoming(self._want, self._enough, self._wanted)
        exchange = Exchange(self, body)
        target = self._target.decode("latin-1")
        authority: str | None = None
        fields: list[Field] = []
        for name, value in self._headers:
            if name == "host":
                if authority is not None:
                    raise _RefusedError(400, "the request has more than one host header")
                authority = value.decode("latin-1")
            elif name == "expect":
                if value.lower() != b"100-continue":
                    raise _RefusedError(417, "the only expectation that is known is 100-continue")
                self._expects = True
            elif name not in FORBIDDEN:
                fields.append((name, value))
        if authority is None and version == "1.1":
            raise _RefusedError(400, "the request has no host header")
        if method == "CONNECT":
            raise _RefusedError(405, "CONNECT is for proxies")
        if target.startswith(("http://", "https://")):  # as to a proxy
            rest = target.partition("://")[2]
            authority, slash, path = rest.partition("/")
            target = slash + path or "/"
        elif not target.startswith("/") and target != "*":
            raise _RefusedError(400, "the request's target is neither a path nor a URL")
        close = not self._parser.should_keep_alive()
        exchange.begin(method=method, target=target, http10=version == "1.0", close=close)
        exchange.authority, exchange.headers = authority, fields
        self._headers = []
        self._reading = exchange
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            self._begin(exchange)
        elif len(self._exchanges) >= _PIPELINED_MOST:
            self._enough()
            self._unread = True

    def on_body(self, data: bytes) -> None:
        """A piece of its body."""
        self._body_size += len(data)
        exchange = self._reading
        if exchange is None:
            return
        if self._body_size > self._limits.body_bytes:
            raise _RefusedError(413, f"the request's body has more than {self._limits.body_bytes} bytes")
        exchange.body.feed(data)

    def on_message_complete(self) -> None:
        """It is whole."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.body.trailers = [(name, value) for name, value in self._headers if name not in FORBIDDEN]
        self._headers = []
        exchange.body.end()
        if exchange not in self._exchanges:  # answered before it was read
            self._never()
            self._next()

    # ---------------------------------------------------------------------------------------- from the exchange
    def send(self, data: bytes) -> None:
        """See Sink."""
        if self._transport is not None:
            self._transport.write(data)

    def soon(self, what: Callable[[], None]) -> None:
        """See Sink."""
        self._loop.call_soon(what)

    def ended(self) -> None:
        """See Sink: the first exchange has its answer."""
        exchange = self._exchanges.popleft()
        if exchange.done is not None:
            exchange.done()
        if exchange.closes or self._ended:
            self._finish()
        elif exchange.body.ended:
            self._next()
        elif exchange.body.discard() + self._body_size > self._limits.discard_bytes or self._expects:
            # The rest of the request is not worth reading.
            self._finish()
        else:
            self._in(self._limits.body_seconds, self._too_long_idle)
            self._want()

    def broken(self) -> None:
        """See Sink."""
        transport = self._transport
        if self._exchanges:
            exchange = self._exchanges.popleft()
            if exchange.done is not None:
                exchange.done()
        self._closing = True
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """No more requests; the one that is being answered is."""
        if self._exchanges:
            self._exchanges[-1].close_after()
            self._stop_reading()
        else:
            self._finish()

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, or read."""
        return not self._exchanges and not self._in_head

    # ---------------------------------------------------------------------------------------- inside
    def _begin(self, exchange: Exchange) -> None:
        if self._full:
            exchange.answer.full(is_full=True)
        self._site.handle(exchange)

    def _next(self) -> None:
        if self._unread and len(self._exchanges) < _PIPELINED_MOST // 2:
            self._unread = False
            self._want()
        if self._exchanges:
            # NB: not from inside of the answer before it: a client with many requests would be as many calls deep.
            self._loop.call_soon(self._begin_next)
        elif not self._in_head:
            self._in(self._limits.idle_seconds, self._too_long_idle)

    def _begin_next(self) -> None:
        if self._exchanges and not self._closing:
            self._begin(self._exchanges[0])

    def _refuse(self, status: int, text: str) -> None:
        """What came can't be taken, and nothing after it can be understood."""
        self._stop_reading()
        if self._exchanges and (self._reading is None or self._exchanges[0] is not self._reading):
            self._exchanges[-1].close_after()  # those before it have their answers
            if self._reading is not None and self._reading in self._exchanges:
                self._exchanges.remove(self._reading)
            return
        exchange = self._exchanges.popleft() if self._exchanges else None
        self._closing = True
        if exchange is not None:
            responded = exchange.responded
            exchange.client_gone()
            if responded:
                self.broken()
                return
        answer = Exchange(self, Incoming(_nothing, _nothing, _nothing))
        answer.close_after()
        self._exchanges.appendleft(answer)
        answer.plain(status, text)

    def _stop_reading(self) -> None:
        self._ended = True
        self._enough()

    def _finish(self) -> None:
        self._closing = True
        self._never()
        if self._transport is not None:
            self._transport.close()

    def _want(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _enough(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _wanted(self) -> None:
        """Somebody waits for the body."""
        if self._expects:
            self._expects = False
            self.send(_CONTINUE)
        self._wait_for_body()

    def _wait_for_body(self) -> None:
        if self._reading is not None and not self._full:
            self._in(self._limits.body_seconds, self._too_long_body)

    # ---------------------------------------------------------------------------------------- timeouts
    def _in(self, seconds: float, what: Callable[[], None]) -> None:
        """One at a time. The timer is set anew only when it fires, for most of them are called off."""
        self._due, self._due_what = self._loop.time() + seconds, what
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._fire)
        elif self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._fire)

    def _never(self) -> None:
        self._due = 0.0

    def _fire(self) -> None:
        self._timer = None
        if not self._due or self._transport is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
            return
        self._due_what()

    def _too_long_head(self) -> None:
        if self._in_head:
            self._refuse(408, f"the request's head did not come within {self._limits.head_seconds:g} s")
        elif not self._exchanges:
            self._finish()

    def _too_long_idle(self) -> None:
        if not self._exchanges:
            self._finish()

    def _too_long_body(self) -> None:
        if self._reading is not None:
            self._refuse(408, f"no more of the body came within {self._limits.body_seconds:g} s")

    def _too_long_write(self) -> None:
        if self._full and self._transport is not None:
            self._transport.abort()


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _nothing() -> None:
    return None
