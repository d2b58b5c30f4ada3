"""wasi:clocks."""

from collections.abc import Callable
from typing import Final

from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import function
from wasmpool_agent.wasi.waits import Until
from wasmpool_agent.wasmtime_async import Wait

_SECOND: Final = 10**9
_FOREVER_NS: Final = 10 * 365 * 24 * 3600 * _SECOND
"""Ten years: more than a timer takes."""


class Timer:
    """A pollable: a moment of the monotonic clock, in nanoseconds."""

    __slots__ = ("_now_ns", "_when_ns")

    def __init__(self, when_ns: int, now_ns: Callable[[], int]) -> None:
        self._when_ns = min(when_ns, now_ns() + _FOREVER_NS)
        self._now_ns = now_ns

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None if self._now_ns() >= self._when_ns else Until(self._when_ns / _SECOND)


@function("wasi:clocks/monotonic-clock#now")
def now(host: Host) -> int:
    return host.clocks.monotonic_ns()


@function("wasi:clocks/monotonic-clock#resolution")
def resolution(_: Host) -> int:
    return 1


@function("wasi:clocks/monotonic-clock#subscribe-instant")
def subscribe_instant(host: Host, when: int) -> Timer:
    return Timer(when, host.clocks.monotonic_ns)


@function("wasi:clocks/monotonic-clock#subscribe-duration")
def subscribe_duration(host: Host, duration: int) -> Timer:
    return Timer(host.clocks.monotonic_ns() + duration, host.clocks.monotonic_ns)


@function("wasi:clocks/wall-clock#now")
def wall_now(host: Host) -> dict[str, int]:
    return datetime_of(host.clocks.realtime_ns())


@function("wasi:clocks/wall-clock#resolution")
def wall_resolution(_: Host) -> dict[str, int]:
    return {"seconds": 0, "nanoseconds": 1}


def datetime_of(nanoseconds: int) -> dict[str, int]:
    """As WIT's record."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return {"seconds": seconds, "nanoseconds": rest}
