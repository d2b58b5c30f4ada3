"""Streams and pollables, as WASI's functions use them and as whoever has bytes implements them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from wasmpool_agent.wasi.guest import Output
from wasmpool_agent.wasi.signals import Signal, StreamClosed, StreamFailed
from wasmpool_agent.wasmtime_async import Wait

__all__ = [
    "LINES_MOST_BYTES",
    "READ_MOST_BYTES",
    "WRITE_MOST_BYTES",
    "Always",
    "AnyOf",
    "InputStream",
    "IoError",
    "NoInput",
    "OutputStream",
    "Pollable",
    "Signal",
    "StreamClosed",
    "StreamFailed",
    "Written",
]

READ_MOST_BYTES: Final = 64 * 1024
WRITE_MOST_BYTES: Final = 64 * 1024
LINES_MOST_BYTES: Final = 1024
"""Of one write to standard output or error. All of it may be newlines, of which a thousand take some 3 ms."""


class Pollable(Protocol):
    """Something that becomes ready."""

    def readiness(self) -> Wait | None:
        """What to wait for; None: it is ready now."""
        ...


class InputStream(Pollable, Protocol):
    """Bytes that come."""

    def read(self, limit: int) -> bytes | None:
        """At most so many; empty: nothing now; None: at its end. Raises StreamFailed."""
        ...


class OutputStream(Pollable, Protocol):
    """Bytes that go."""

    def check_write(self) -> int:
        """How many would be taken now; 0: none. Raises StreamClosed, StreamFailed."""
        ...

    def write(self, data: bytes) -> None:
        """Takes all of it, which is no more than `check_write` said. Raises StreamClosed, StreamFailed."""
        ...

    def flush(self) -> None:
        """Sends on what was taken; readiness says when that has happened. Raises StreamClosed, StreamFailed."""
        ...


@dataclass(frozen=True, slots=True)
class IoError:
    """The resource wasi:io/error.error. `code`: as StreamFailed's."""

    message: str
    code: object = None


class Always:
    """A pollable that is ready."""

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None


class NoInput(Always):
    """An input that is at its end."""

    def read(self, limit: int) -> bytes | None:
        """See InputStream."""
        del limit
        return None


class Written:
    """Standard output or error as an output stream. Not ready while the reader of the lines is behind.

    One for each instance and stream, however often the guest asks for it: a second one would not know what to wait for.
    """

    __slots__ = ("_output", "_wait")

    def __init__(self, output: Output) -> None:
        self._output = output
        self._wait: Wait | None = None

    def readiness(self) -> Wait | None:
        """See Pollable."""
        if self._wait is not None and self._wait.ready():
            self._wait = None
        return self._wait

    def check_write(self) -> int:
        """See OutputStream."""
        return 0 if self.readiness() is not None else LINES_MOST_BYTES

    def write(self, data: bytes) -> None:
        """See OutputStream."""
        self._wait = self._output.write(bytes(data))

    def flush(self) -> None:
        """See OutputStream: lines go on as they are whole."""


class AnyOf:
    """A wait for the first of several."""

    __slots__ = ("_waits",)

    def __init__(self, waits: list[Wait]) -> None:
        # Several pollables of one stream wait for the same.
        self._waits = list({id(wait): wait for wait in waits}.values())

    def ready(self) -> bool:
        """See Wait."""
        return any(wait.ready() for wait in self._waits)

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        calls_off: list[Callable[[], None]] = []
        woken = False

        def call_off() -> None:
            armed = calls_off[:]
            calls_off.clear()
            for each in armed:
                each()

        def wake_once() -> None:
            nonlocal woken
            if not woken:
                woken = True
                call_off()
                wake()

        calls_off.extend(wait.arm(wake_once) for wait in self._waits)
        return call_off
