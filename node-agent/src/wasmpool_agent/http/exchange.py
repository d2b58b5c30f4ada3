"""One request and its answer."""

import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from wasmpool_agent.http.body import Field, Incoming, Outgoing, Sink
from wasmpool_agent.http.head import NOT_IN_TRAILERS, Head

_REASONS: Final = {int(status): status.phrase.encode() for status in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})


class Exchange:
    """What came, and what goes back. `path_with_query`, `authority`: as the client wrote them.

    `gone` is called once, if the client goes before its answer is whole; `done` once that is whole, or never will be.
    `unframed`: the answer ends where the connection does. `refusal`: what came in this one's place can't be taken, so
    this answer is given and nobody else is asked.
    """

    __slots__ = (
        "_close", "_http10", "_sink", "answer", "authority", "body", "done", "expects", "gone", "headers", "method",
        "path_with_query", "refusal", "responded", "scheme", "status", "unframed",
    )  # fmt: skip

    def __init__(self, sink: Sink, body: Incoming) -> None:
        self._sink = sink
        self._http10 = self._close = self.unframed = False
        self.body = body
        self.answer = Outgoing(sink)
        self.method = ""
        self.path_with_query = ""
        self.scheme = "http"
        self.authority: str | None = None
        self.headers: list[Field] = []
        self.expects = False
        self.responded = False
        self.status = 0
        self.refusal: tuple[int, str] | None = None
        self.gone: Callable[[], None] | None = None
        self.done: Callable[[], None] | None = None

    def begin(self, method: str, head: Head, *, http10: bool, close: bool) -> None:
        """For Connection: the head has come."""
        self.method, self._http10, self._close = method, http10, close
        self.path_with_query, self.authority, self.headers = head.target, head.authority, head.fields
        self.expects = head.expects

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._close = True

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return self._close

    def inform(self, status: int, headers: Sequence[Field]) -> bool:
        """An answer before the answer: 102 to 199. False where it can't be sent (any more)."""
        if self.responded or self._http10 or self.answer.closed or not 102 <= status <= 199:
            return False
        lines = [b"%s: %s\r\n" % (name.encode(), value) for name, value in headers if name not in NOT_IN_TRAILERS]
        self._sink.send(b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, _REASONS.get(status, b""), b"".join(lines)))
        return True

    def another_answer(self) -> Outgoing:
        """A body that may become this exchange's answer."""
        return Outgoing(self._sink)

    def adopt(self, answer: Outgoing) -> None:
        """It becomes that, before `respond`."""
        former, self.answer = self.answer, answer
        answer.full(is_full=former.is_full)
        if former.closed:
            answer.close()
        former.close()

    def respond(self, status: int, headers: Sequence[Field]) -> None:
        """The answer's head: once, before or after its body is begun. Field names are in lower case, values checked.

        ValueError, and nothing has happened, where the headers have several content-lengths that differ.
        """
        assert not self.responded, "an exchange has one answer"  # noqa: S101
        lengths = {int(value) for name, value in headers if name == "content-length"}
        if len(lengths) > 1:
            raise ValueError(f"the answer has {len(lengths)} content-lengths that differ")
        self.responded, self.status = True, status
        declared = lengths.pop() if lengths else None
        none = self.method == "HEAD" or status in _BODILESS

        def head(length: int | None, trailers: bool) -> tuple[bytes, bool]:
            lines = [b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b""))]
            dated = False
            for name, value in headers:
                if name == "content-length":
                    continue
                dated = dated or name == "date"
                lines.append(b"%s: %s\r\n" % (name.encode("ascii"), value))
            chunked = False
            if status == 204 or (none and declared is None):
                pass  # what HEAD has not said need not be said
            elif trailers and not none and not self._http10:
                chunked = True
            elif length is not None:
                lines.append(b"content-length: %d\r\n" % length)
            elif self._http10:
                self._close = self.unframed = True
            else:
                chunked = True
            if chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
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
        """A whole answer in words, in place of what was begun. Where that has gone out already, it is broken off."""
        if self.answer.begun:
            self.abort()
            return
        self.body.abandon()
        self.responded = False
        data = text.encode() + b"\n"
        fields = [("content-type", b"text/plain; charset=utf-8"), ("content-length", b"%d" % len(data)), *headers]
        self.adopt(self.another_answer())  # what a guest may have begun is forgotten
        self.respond(status, fields)
        if not self.answer.closed:
            self.answer.write(data)
            self.answer.finish()

    def abort(self) -> None:
        """The answer can't be made whole: the client sees that, for the connection ends. Nothing once it is whole."""
        if not self.answer.closed:
            self.answer.close()
            self._sink.broken(self.answer)

    def client_gone(self) -> None:
        """For Connection."""
        self.body.fail("the client has gone")
        self.answer.close()
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()


class _Date:
    second = -1
    line = b""


def _date() -> bytes:
    second = int(time.time())  # noqa: TID251 - what a header says is the wall's time
    if second != _Date.second:
        _Date.second, _Date.line = second, b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
    return _Date.line
