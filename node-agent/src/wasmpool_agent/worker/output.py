"""What guests write, as lines of JSON on the worker's standard output, each by one write of at most PIPE_BUF bytes.

A pipe that several workers share keeps writes of up to PIPE_BUF (4096) bytes whole and in one piece, so no lock is
needed and no line is torn. A longer line of a guest comes in several pieces, all but the last marked `"partial":true`.

A thread of its own writes, for a reader that does not read must not stop the guests' thread. Behind it:
* A guest whose lines wait for the reader in too large a number is suspended until they are fewer, as by a full pipe.
  Nobody else is, and its deadline goes on.
* When the reader has not taken a byte for STALL_SECONDS, lines of such guests are dropped instead, and counted.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

LINE_MAX_BYTES: Final = 4096
PIECE_MAX_BYTES: Final = 3 * 1024
BACKLOG_MAX_BYTES: Final = 64 * 1024
"""Of one guest, from which on it is suspended."""
STALL_SECONDS: Final = 5.0


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `time` is RFC 3339; `index` is that of a completion, where the workload counts them."""

    time: str
    namespace: str
    workload: str
    revision: str
    instance: int
    index: int | None = None
    stream: str
    message: str
    partial: bool = False


@dataclass(slots=True, eq=False)
class Backlog:
    """Bytes of one guest that are not written yet, and what to call when they are few again. Under LogWriter's lock."""

    size: int = 0
    wake: Callable[[], None] | None = None


class LogWriter:
    """Owns the writing thread; everything else is called from the event loop's thread.

    Invariant: a backlog's size is the sum of its lines in `_lines`, and of the one that is being written.
    """

    def __init__(self, fd: int, clock: Callable[[], float], stall_seconds: float = STALL_SECONDS) -> None:
        """`fd` stays the caller's. `clock`: monotonic seconds."""
        self._fd = fd
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._lock = threading.Condition()
        self._lines: deque[tuple[bytes, Backlog]] = deque()
        self._busy_since: float | None = None
        self._closing = False
        self._broken = False
        self.written = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes, backlog: Backlog) -> None:
        """Queues a line, or drops it."""
        with self._lock:
            if self._broken or (backlog.size > BACKLOG_MAX_BYTES and self._stalled()):
                self.dropped += 1
                return
            if self._busy_since is None:
                self._busy_since = self._clock()
            self._lines.append((line, backlog))
            backlog.size += len(line)
            self._lock.notify()

    def full(self, backlog: Backlog) -> bool:
        """Whether its guest had better wait."""
        with self._lock:
            return backlog.size > BACKLOG_MAX_BYTES and not self._broken and not self._stalled()

    def call_when_written(self, backlog: Backlog, wake: Callable[[], None]) -> Callable[[], None]:
        """Has `wake` called on this loop once most of it was written, or the reader may be taken for stalled."""
        loop = asyncio.get_running_loop()

        def call_off() -> None:
            timer.cancel()
            with self._lock:
                backlog.wake = None

        def wake_once() -> None:
            call_off()
            wake()

        timer = loop.call_later(self._stall_seconds, wake_once)
        with self._lock:
            backlog.wake = lambda: _call_on(loop, wake_once)
            if backlog.size <= BACKLOG_MAX_BYTES:  # written while we came here
                backlog.wake()
        return call_off

    def close(self, timeout: float) -> bool:
        """Writes what is left, for at most `timeout` seconds. True if all of it is written."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _stalled(self) -> bool:
        return self._busy_since is not None and self._clock() - self._busy_since >= self._stall_seconds

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._lines and not self._closing:
                    self._lock.wait()
                if not self._lines:
                    return
                line, backlog = self._lines.popleft()
            written = self._write(line)
            with self._lock:
                self.written += written
                self._took(line, backlog)
                if not written:
                    self._broken = True
                    self.dropped += 1 + len(self._lines)
                    while self._lines:
                        self._took(*self._lines.popleft())
                self._busy_since = self._clock() if self._lines else None

    def _took(self, line: bytes, backlog: Backlog) -> None:
        backlog.size -= len(line)
        if backlog.wake is not None and backlog.size <= BACKLOG_MAX_BYTES // 2:
            wake, backlog.wake = backlog.wake, None
            wake()

    def _write(self, line: bytes) -> bool:
        """False when the reader has gone for good."""
        try:
            while line:  # files and terminals may take a part of it
                line = line[os.write(self._fd, line) :]
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Room:
    """Wait: until the guest's backlog is small enough, or its reader is taken for stalled."""

    log: LogWriter
    backlog: Backlog

    def ready(self) -> bool:
        return not self.log.full(self.backlog)

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self.log.call_when_written(self.backlog, wake)


class LineStream:
    """One standard stream of one guest: gathers lines. Both streams of a guest share a backlog."""

    def __init__(
        self, log: LogWriter, backlog: Backlog, line: Callable[[str, bool], LogLine], encoder: msgspec.json.Encoder
    ) -> None:
        self._log = log
        self._backlog = backlog
        self._line = line
        self._encoder = encoder
        self._rest = b""

    def write(self, data: bytes) -> _Room | None:
        """See wasi.guest.Output."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(rest) > PIECE_MAX_BYTES:
            cut = _cut(rest)
            self._put(rest[:cut], partial=True)
            rest = rest[cut:]
        self._rest = rest
        return _Room(self._log, self._backlog) if self._log.full(self._backlog) else None

    def close(self) -> None:
        """At the guest's end: what has no newline is a line too."""
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        while len(line) > PIECE_MAX_BYTES:
            cut = _cut(line)
            self._put(line[:cut], partial=True)
            line = line[cut:]
        self._put(line, partial=False)

    def _put(self, piece: bytes, *, partial: bool) -> None:
        encoded = self._encoder.encode(self._line(piece.decode("utf-8", "replace"), partial)) + b"\n"
        if len(encoded) <= LINE_MAX_BYTES or len(piece) < 2:
            self._log.put(encoded, self._backlog)
            return
        # Control characters take six bytes in JSON.
        cut = _cut(piece, len(piece) // 2)
        self._put(piece[:cut], partial=True)
        self._put(piece[cut:], partial=partial)


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has been closed, and with it everybody who waited
        loop.call_soon_threadsafe(function)


def _cut(data: bytes, limit: int = PIECE_MAX_BYTES) -> int:
    """At most `limit`, at least 1, and not inside of a UTF-8 character where that can be helped."""
    for cut in range(limit, max(0, limit - 4), -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return limit


def rfc3339(now: datetime) -> str:
    """Of a time in UTC, with microseconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
