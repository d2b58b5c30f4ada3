"""One request and its answer."""

import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from wasmpool_agent.http.body import Field, Incoming, Outgoing, Sink

FORBIDDEN: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to the connection, not to the exchange: neither shown to guests nor taken from them."""
_REASONS: Final = {int(status): status.phrase.encode() for status in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})


class Exchange:
    """What came, and what goes back. `path_with_query`, `authority`: as the client wrote them.

    `gone` is called once, if the client goes before it has its answer; `done` once that is whole, or never will be.
    """

    __slots__ = (
        "_close", "_gone_already", "_http10", "_sink", "answer", "authority", "body", "done", "gone", "headers",
        "method", "path_with_query", "responded", "scheme", "status",
    )  # fmt: skip

    def __init__(self, sink: Sink, body: Incoming) -> None:
        self._sink = sink
        self._http10 = self._close = self._gone_already = False
        self.body = body
        self.answer = Outgoing(sink)
        self.method = ""
        self.path_with_query = ""
        self.scheme = "http"
        self.authority: str | None = None
        self.headers: list[Field] = []
        self.responded = False
        self.status = 0
        self.gone: Callable[[], None] | None = None
        self.done: Callable[[], None] | None = None

    def begin(self, *, method: str, target: str, http10: bool, close: bool) -> None:
        """For Connection: the head has come."""
        self.method, self.path_with_query, self._http10, self._close = method, target, http10, close

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._close = True

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return self._close

    def respond(self, status: int, headers: Sequence[Field]) -> None:
        """The answer's head: once, before or after its body is begun. Field names are in lower case, values checked."""
        assert not self.responded, "an exchange has one answer"  # noqa: S101
        self.responded, self.status = True, status
        declared = next((int(value) for name, value in headers if name == "content-length"), None)
        none = self.method == "HEAD" or status in _BODILESS

        def head(length: int | None, trailers: bool) -> tuple[bytes, bool]:
            lines = [b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b""))]
            dated = False
            for name, value in headers:
                if name == "content-length" and trailers:
                    continue
                dated = dated or name == "date"
                lines.append(b"%s: %s\r\n" % (name.encode("ascii"), value))
            chunked = False
            if declared is None or trailers:
                if status in _BODILESS:
                    pass
                elif length is not None and not trailers and self.method != "HEAD":
                    lines.append(b"content-length: %d\r\n" % length)
                elif self._http10:
                    self._close = True
                else:
                    lines.append(b"transfer-encoding: chunked\r\n")
                    chunked = not none
            if not dated:
                lines.append(_date())
            if self._close:
                lines.append(b"connection: close\r\n")
            elif self._http10:
                lines.append(b"connection: keep-alive\r\n")
            lines.append(b"\r\n")
            return b"".join(lines), chunked

        self.answer.open(head, declared, none=none)

    def plain(self, status: int, text: str, headers: Iterable[Field] = ()) -> None:
        """A whole answer in words. Nothing where the head has gone out already: then it is broken."""
        if self.responded:
            self.abort()
            return
        data = text.encode() + b"\n"
        fields = [("content-type", b"text/plain; charset=utf-8"), ("content-length", b"%d" % len(data)), *headers]
        self.answer = Outgoing(self._sink)  # what a guest may have begun is forgotten
        self.respond(status, fields)
        self.answer.write(data)
        self.answer.finish()

    def abort(self) -> None:
        """The answer can't be made whole: the client sees that, for the connection ends."""
        self._sink.broken()

    def client_gone(self) -> None:
        """For Connection."""
        if self._gone_already:
            return
        self._gone_already = True
        self.body.fail("the client has gone")
        self.answer.close()
        if self.gone is not None:
            self.gone()


class _Date:
    second = -1
    line = b""


def _date() -> bytes:
    second = int(time.time())  # noqa: TID251 - what a header says is the wall's time
    if second != _Date.second:
        _Date.second, _Date.line = second, b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
    return _Date.line
