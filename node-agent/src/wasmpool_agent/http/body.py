"""The streams of an exchange: what the client sends, and what it is sent. Both implement those of wasi.p2.streams."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from wasmpool_agent.wasi.signals import Signal, StreamClosed, StreamFailed
from wasmpool_agent.wasmtime_async import Wait

HIGH_BYTES: Final = 128 * 1024
LOW_BYTES: Final = 32 * 1024
GATHER_BYTES: Final = 16 * 1024
"""What is written in smaller pieces goes out together, at the latest when the guest's slice is over."""
ROOM_BYTES: Final = 64 * 1024

TERMINATED: Final = ("connection-terminated", None)

Field = tuple[str, bytes]


class Source(Protocol):
    """Where a body comes from."""

    def want(self) -> None:
        """Some of what has come was read: there is room again."""
        ...

    def enough(self) -> None:
        """Too much has come that nobody has read yet."""
        ...

    def wanted(self) -> None:
        """Somebody waits for more than has come."""
        ...

    def abandoned(self) -> None:
        """Nobody will read the rest."""
        ...


class Incoming:
    """A body as it comes. Invariant: what is kept is more than HIGH_BYTES only by what came before `enough` was heard.

    `trailers` are whole once `ended` is True; `failure` says why it never will be. `forsaken`: nobody reads it.
    """

    __slots__ = (
        "_at",
        "_paused",
        "_pieces",
        "_size",
        "_source",
        "changed",
        "ended",
        "failure",
        "failure_code",
        "forsaken",
        "trailers",
    )

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: deque[bytes] = deque()
        self._at = 0  # bytes of the first piece that were read
        self._size = 0
        self._paused = False
        self.ended = self.forsaken = False
        self.failure = ""
        self.failure_code: object = None
        self.trailers: list[Field] = []
        self.changed = Signal(self._changed)

    def feed(self, data: bytes) -> None:
        """More of it has come."""
        if self.forsaken:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_BYTES and not self._paused:
            self._paused = True
            self._source.enough()
        self.changed.set()

    def end(self) -> None:
        """All of it has come."""
        self.ended = True
        self.changed.set()

    def fail(self, why: str, code: object = TERMINATED) -> None:
        """No more of it will come. `code`: WASI's error-code."""
        if not self.ended and not self.failure:
            self.failure, self.failure_code = why, code
            self.changed.set()

    def read(self, limit: int) -> bytes | None:
        """See InputStream."""
        if not self._pieces:
            if self.failure:
                raise StreamFailed(self.failure, self.failure_code)
            if self.ended:
                return None
            self._source.wanted()
            return b""
        piece, at = self._pieces[0], self._at
        if len(piece) - at > limit:
            self._at = at + limit
            piece = piece[at : at + limit]
        else:
            self._pieces.popleft()
            self._at = 0
            piece = piece[at:]
        self._size -= len(piece)
        self._look()
        return piece

    def readiness(self) -> Wait | None:
        """See Pollable."""
        if self._changed():
            return None
        self._source.wanted()
        return self.changed

    def discard(self) -> int:
        """Forgets what has come and was not read; gives how much that was."""
        size, self._size, self._at = self._size, 0, 0
        self._pieces.clear()
        self._look()
        return size

    def abandon(self) -> None:
        """Nobody will read the rest of it. Idempotent."""
        if not self.forsaken:
            self.forsaken = True
            self.discard()
            if not self.ended and not self.failure:
                self._source.abandoned()

    def _look(self) -> None:
        if self._paused and self._size < LOW_BYTES:
            self._paused = False
            self._source.want()

    def _changed(self) -> bool:
        return bool(self._pieces or self.ended or self.failure)


class Sink(Protocol):
    """Where an answer's bytes go: the connection."""

    def send(self, data: bytes | bytearray) -> None:
        """To the client."""
        ...

    def soon(self, what: Callable[[], None]) -> None:
        """Once the guest's slice is over."""
        ...

    def ended(self, answer: "Outgoing") -> None:
        """It is whole."""
        ...

    def broken(self, answer: "Outgoing") -> None:
        """It can't be made whole any more."""
        ...


MakeHead = Callable[[int | None, bool], tuple[bytes, bool]]
"""(length of the body where it is known, whether trailers follow) -> (the head, whether the body goes in chunks)."""


class Outgoing:
    """An answer's body. Before it is opened, so much of it is kept that there is room for.

    `declared`: what its content-length says, once it is open. `written`: bytes so far. `begun`: the head is out.
    `is_full`: nobody takes anything now.
    """

    __slots__ = (
        "_chunked", "_due", "_head", "_kept", "_none", "_open", "_sink", "_trailers",
        "begun", "changed", "closed", "declared", "finished", "is_full", "written",
    )  # fmt: skip

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._kept = bytearray()
        self._head: MakeHead | None = None
        self._open = self._chunked = self._none = self._due = self.is_full = False
        self._trailers: tuple[Field, ...] = ()
        self.declared: int | None = None
        self.written = 0
        self.begun = False
        self.finished = False
        self.closed = False
        self.changed = Signal(self._changed)

    def open(self, head: MakeHead, declared: int | None, *, none: bool) -> None:
        """The head is known. `none`: the client is sent no body, whatever is written."""
        self._head, self.declared, self._none, self._open = head, declared, none, True
        if self.finished:
            self._complete()
        elif self._kept:
            self._push_soon()

    def check_write(self) -> int:
        """See OutputStream."""
        if self.closed or self.finished:
            raise StreamClosed
        return 0 if self._waits() else ROOM_BYTES - len(self._kept)

    def write(self, data: bytes) -> None:
        """See OutputStream. StreamFailed for more than was declared."""
        if self.closed or self.finished:
            raise StreamClosed
        self.written += len(data)
        if self.declared is not None and self.written > self.declared and not self._none:
            raise StreamFailed(f"more than the {self.declared} bytes of content-length are written")
        self._kept += data
        if len(self._kept) >= GATHER_BYTES and self._open:
            self._push()

    def flush(self) -> None:
        """See OutputStream. Sends the head, too."""
        if self._open and not self.closed and not self.finished:
            self._push_soon()

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None if self._changed() else self.changed

    def finish(self, trailers: Iterable[Field] = ()) -> bool:
        """It is whole. False where it is not as long as was declared: then the answer is broken."""
        if not self.finished and not self.closed:
            self.finished, self._trailers = True, tuple(trailers)
            if self._open:
                return self._complete()
        return True

    def full(self, *, is_full: bool) -> None:
        """Whether the client takes nothing now."""
        self.is_full = is_full
        if not is_full:
            self.changed.set()

    def close(self) -> None:
        """Nobody takes it any more. Idempotent."""
        self.closed = True
        self._kept.clear()
        self.changed.set()

    def _complete(self) -> bool:
        if self.declared is not None and self.written != self.declared and not self._none:
            self.closed = True
            self._sink.broken(self)
            return False
        data = self._begin(None if self._trailers else len(self._kept)) + self._take()
        if self._chunked:
            fields = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in self._trailers)
            data += b"0\r\n%s\r\n" % fields
        if data:
            self._sink.send(data)
        self._sink.ended(self)
        return True

    def _push(self) -> None:
        data = self._begin(None) + self._take()
        if data:
            self._sink.send(data)

    def _push_soon(self) -> None:
        if not self._due:
            self._due = True
            self._sink.soon(self._pushed)

    def _pushed(self) -> None:
        self._due = False
        if not self.finished and not self.closed:
            self._push()
            self.changed.set()

    def _waits(self) -> bool:
        return self.is_full or len(self._kept) >= ROOM_BYTES

    def _changed(self) -> bool:
        return self.closed or not self._waits()

    def _begin(self, length: int | None) -> bytes:
        """The head, the first time. `length`: where the whole body is there already."""
        if self._head is None:
            return b""
        head, self._head, self.begun = self._head, None, True
        data, self._chunked = head(self.declared if self.declared is not None else length, bool(self._trailers))
        return data

    def _take(self) -> bytes | bytearray:
        kept = self._kept
        if not kept:
            return b""
        self._kept = bytearray()
        if self._none:
            return b""
        return b"".join((b"%x\r\n" % len(kept), kept, b"\r\n")) if self._chunked else kept
