"""A moment that is put off far more often than it comes."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `on_due` once the time is up. The loop's timer is set anew only when it fires, or must come sooner."""

    __slots__ = ("_due", "_loop", "_on_due", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """So many from now, whatever was set before."""
        due = self._due = self._loop.time() + seconds
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_at(due, self._fire)
        elif timer.when() > due:
            timer.cancel()
            self._timer = self._loop.call_at(due, self._fire)

    def clear(self) -> None:
        """It does not come."""
        self._due = 0.0

    def close(self) -> None:
        """It never comes, and nothing is kept."""
        self._due = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if not self._due:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
            return
        self._due = 0.0
        self._on_due()
