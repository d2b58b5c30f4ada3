"""The streams of an exchange: what the client sends, and what it is sent. Both implement those of wasi.p2.streams."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from wasmpool_agent.wasi.p2.streams import Signal, StreamClosed, StreamFailed
from wasmpool_agent.wasmtime_async import Wait

HIGH_BYTES: Final = 128 * 1024
LOW_BYTES: Final = 32 * 1024
GATHER_BYTES: Final = 16 * 1024
"""What is written in smaller pieces goes out together, at the latest when the guest's slice is over."""
ROOM_BYTES: Final = 64 * 1024

Field = tuple[str, bytes]


class Incoming:
    """A request's body, as it comes. `want` and `enough` start and stop the client.

    `trailers` are whole once `ended` is True.
    """

    __slots__ = ("_begun", "_enough", "_paused", "_pieces", "_size", "_want", "changed", "ended", "failure", "trailers")

    def __init__(self, want: Callable[[], None], enough: Callable[[], None], begun: Callable[[], None]) -> None:
        """`begun` is called when somebody first wants some of it."""
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._want, self._enough, self._begun = want, enough, begun
        self.ended = False
        self.failure = ""
        self.trailers: list[Field] = []
        self.changed = Signal(lambda: bool(self._pieces or self.ended or self.failure))

    @property
    def size(self) -> int:
        """Bytes that have come and not been read."""
        return self._size

    def feed(self, data: bytes) -> None:
        """More of it has come."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_BYTES and not self._paused:
            self._paused = True
            self._enough()
        self.changed.set()

    def end(self) -> None:
        """All of it has come."""
        self.ended = True
        self.changed.set()

    def fail(self, why: str) -> None:
        """No more of it will come."""
        if not self.ended:
            self.failure = self.failure or why
            self.changed.set()

    def read(self, limit: int) -> bytes | None:
        """See InputStream."""
        self._begun()
        if not self._pieces:
            if self.failure:
                raise StreamFailed(self.failure)
            return None if self.ended else b""
        piece = self._pieces.popleft()
        if len(piece) > limit:
            self._pieces.appendleft(piece[limit:])
            piece = piece[:limit]
        self._size -= len(piece)
        if self._paused and self._size < LOW_BYTES:
            self._paused = False
            self._want()
        return piece

    def readiness(self) -> Wait | None:
        """See Pollable."""
        self._begun()
        return None if self.changed.ready() else self.changed

    def discard(self) -> int:
        """Forgets what has come; gives how much that was."""
        size, self._size = self._size, 0
        self._pieces.clear()
        if self._paused:
            self._paused = False
            self._want()
        return size


class Sink(Protocol):
    """Where an answer's bytes go: the connection."""

    def send(self, data: bytes) -> None:
        """To the client."""
        ...

    def soon(self, what: Callable[[], None]) -> None:
        """Once the guest's slice is over."""
        ...

    def ended(self) -> None:
        """The answer is whole."""
        ...

    def broken(self) -> None:
        """The answer can't be made whole any more."""
        ...


MakeHead = Callable[[int | None, bool], tuple[bytes, bool]]
"""(length of the body where it is known, whether trailers follow) -> (the head, whether the body goes in chunks)."""


class Outgoing:
    """An answer's body. Before it is opened, so much of it is kept that there is room for.

    `declared`: what its content-length says, once it is open.
    """

    __slots__ = (
        "_chunked", "_due", "_full", "_head", "_none", "_open", "_pieces", "_sink", "_size", "_trailers", "_written",
        "changed", "closed", "declared", "finished",
    )  # fmt: skip

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pieces: list[bytes] = []
        self._size = self._written = 0
        self._head: MakeHead | None = None
        self._open = self._chunked = self._none = self._due = self._full = False
        self._trailers: tuple[Field, ...] = ()
        self.declared: int | None = None
        self.finished = False
        self.closed = False
        self.changed = Signal(lambda: self.closed or not self._waits())

    def open(self, head: MakeHead, declared: int | None, *, none: bool) -> None:
        """The head is known. `none`: the client is sent no body, whatever is written."""
        self._head, self.declared, self._none, self._open = head, declared, none, True
        if self.finished:
            self._complete()
        elif self._size:
            self._push_soon()

    def check_write(self) -> int:
        """See OutputStream."""
        if self.closed or self.finished:
            raise StreamClosed
        return 0 if self._waits() else ROOM_BYTES - self._size

    def write(self, data: bytes) -> None:
        """See OutputStream. StreamFailed for more than was declared."""
        if self.closed or self.finished:
            raise StreamClosed
        self._written += len(data)
        if self.declared is not None and self._written > self.declared:
            raise StreamFailed(f"more than the {self.declared} bytes of content-length are written")
        if data:
            self._pieces.append(bytes(data))
            self._size += len(data)
        if self._size >= GATHER_BYTES and self._open:
            self._push()

    def flush(self) -> None:
        """See OutputStream."""
        if self._size and self._open:
            self._push_soon()

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self.changed if self._waits() and not self.closed else None

    def finish(self, trailers: Iterable[Field] = ()) -> bool:
        """It is whole. False where it is not as long as was declared: then the answer is broken."""
        if not self.finished and not self.closed:
            self.finished, self._trailers = True, tuple(trailers)
            if self._open:
                return self._complete()
        return not self.closed

    def full(self, *, is_full: bool) -> None:
        """Whether the client takes nothing now."""
        self._full = is_full
        if not is_full:
            self.changed.set()

    def close(self) -> None:
        """The client is gone."""
        self.closed = True
        self._pieces.clear()
        self.changed.set()

    def _complete(self) -> bool:
        if self.declared is not None and self._written != self.declared and not self._none:
            self._sink.broken()
            return False
        data = self._begin(None if self._trailers else self._size) + self._take()
        if self._chunked:
            fields = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in self._trailers)
            data += b"0\r\n" + fields + b"\r\n"
        if data:
            self._sink.send(data)
        self._sink.ended()
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
        return self._full or self._size >= ROOM_BYTES

    def _begin(self, length: int | None) -> bytes:
        """The head, the first time. `length`: where the whole body is there already."""
        if self._head is None:
            return b""
        head, self._head = self._head, None
        data, self._chunked = head(self.declared if self.declared is not None else length, bool(self._trailers))
        return data

    def _take(self) -> bytes:
        pieces, self._pieces, size, self._size = self._pieces, [], self._size, 0
        if self._none or not size:
            return b""
        data = b"".join(pieces)
        return b"%x\r\n%s\r\n" % (size, data) if self._chunked else data
