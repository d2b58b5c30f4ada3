"""The bytes of one client, as requests: `httptools` finds their parts, here they are limited and put together."""

from typing import Final, Protocol

import httptools

from wasmpool_agent.http.body import Field
from wasmpool_agent.http.head import NOT_IN_TRAILERS, Head, Refused, request_head
from wasmpool_agent.http.limits import Limits

STEP_BYTES: Final = 8 * 1024
"""Parsed at once: so few that a flood of requests is noticed before it is parsed."""
_FRAMING_MOST: Final = 16
"""Bytes around each byte of a body in chunks."""


class Requests(Protocol):
    """Who is told. All of it happens inside of `RequestParser.feed`; `Refused` may be raised."""

    last: bool
    """No request is wanted any more: what else is in the same step is passed over."""

    def head_begins(self) -> None:
        """A request begins."""
        ...

    def head_came(self, method: str, head: Head, *, http10: bool, close: bool) -> None:
        """Its head is whole. `close`: no other request comes after it."""
        ...

    def body_came(self, data: bytes) -> None:
        """A piece of its body."""
        ...

    def request_ends(self, trailers: list[Field]) -> None:
        """It is whole."""
        ...


class RequestParser:
    """`in_head`: a head has begun and is not whole. `body_bytes`: of the present request's body, so far."""

    def __init__(self, requests: Requests, limits: Limits) -> None:
        self.in_head = False
        self.body_bytes = 0
        self._requests = requests
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[Field] = []
        self._head_bytes = self._fed = 0

    def feed(self, data: memoryview) -> bool:
        """False where what follows is of another protocol. Raises Refused; then nothing more may be fed."""
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return False
        except httptools.HttpParserError as error:
            cause = error.__context__
            refused = cause if isinstance(cause, Refused) else Refused(400, str(error))
        else:
            return True
        raise refused  # out here: the one would hold the other, and it the first

    def look_at_size(self, *, in_body: bool, answering: bool) -> None:
        """Of what the parser has not given us yet, or never will. Raises Refused.

        `in_body`: of a request whose head is whole. `answering`: some request is being answered.
        """
        limit = self._limits.head_bytes
        if self.in_head or not in_body:
            if self._fed > limit + STEP_BYTES and (self.in_head or not answering):
                raise self._too_large()
        elif self._fed - self.body_bytes > 2 * limit + 2 * STEP_BYTES + _FRAMING_MOST * self.body_bytes:
            raise Refused(400, "the request's body is mostly framing")

    # ---------------------------------------------------------------------------------------- from httptools
    def on_message_begin(self) -> None:
        """A request begins."""
        if self._requests.last:
            return
        self.in_head = True
        self._target, self._fields = b"", []
        self._head_bytes = self.body_bytes = self._fed = 0
        self._requests.head_begins()

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise Refused(414, f"the request's target has more than {self._limits.target_bytes} bytes")
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or len(self._fields) >= self._limits.headers:
            raise self._too_large()
        self._fields.append((name.lower().decode("latin-1"), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._requests.last:
            return
        self.in_head = False
        parser = self._parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        fields, self._fields, self._head_bytes = self._fields, [], 0
        head = request_head(version, method, self._target, fields, self._limits)
        # What another protocol says would follow: it is not taken up, and no request can come after it.
        close = not parser.should_keep_alive() or parser.should_upgrade()
        self._requests.head_came(method, head, http10=version == "1.0", close=close)

    def on_body(self, data: bytes) -> None:
        """A piece of its body."""
        self.body_bytes += len(data)
        if self.body_bytes > self._limits.body_bytes:
            raise Refused(413, f"the request's body has more than {self._limits.body_bytes} bytes")
        self._requests.body_came(data)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._requests.request_ends([it for it in self._fields if it[0] not in NOT_IN_TRAILERS])

    def _too_large(self) -> Refused:
        limits = self._limits
        return Refused(
            431, f"the request's headers have more than {limits.head_bytes} bytes, or are more than {limits.headers}"
        )
