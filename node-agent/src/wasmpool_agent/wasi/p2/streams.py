"""Streams and pollables, as WASI's functions use them and as whoever has bytes implements them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from wasmpool_agent.wasmtime_async import Wait

READ_MOST_BYTES: Final = 64 * 1024
WRITE_MOST_BYTES: Final = 64 * 1024


class StreamClosed(Exception):  # noqa: N818 - it says what happened
    """Nobody takes, or gives, anything here any more."""


class StreamFailed(Exception):  # noqa: N818 - it says what happened
    """The last operation failed; the message says why."""


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
    """The resource wasi:io/error.error."""

    message: str


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


class AnyOf:
    """A wait for the first of several."""

    __slots__ = ("_waits",)

    def __init__(self, waits: list[Wait]) -> None:
        self._waits = waits

    def ready(self) -> bool:
        """See Wait."""
        return any(wait.ready() for wait in self._waits)

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        calls_off: list[Callable[[], None]] = []

        def call_off() -> None:
            for each in calls_off:
                each()
            calls_off.clear()

        def wake_once() -> None:
            call_off()
            wake()

        calls_off.extend(wait.arm(wake_once) for wait in self._waits)
        return call_off


class Signal:
    """A wait for something that happens once or again: whoever makes it happen calls `set`."""

    __slots__ = ("_is_ready", "_wakes")

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._wakes: list[Callable[[], None]] = []

    def set(self) -> None:
        """It may be ready now."""
        wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    def ready(self) -> bool:
        """See Wait."""
        return self._is_ready()

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        self._wakes.append(wake)

        def call_off() -> None:
            if wake in self._wakes:
                self._wakes.remove(wake)

        return call_off
