"""The keyed reconcile queue: the one piece that kopf lacks.

A key is never reconciled twice at the same time, and an addition is never lost: a key added while it runs is run once
more. Failures are retried with growing, jittered pauses. A key that keeps being added runs at most once per `spacing`,
so that a thousand nodes reporting at once cost one reconcile and not a thousand.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Protocol):
    """What the queue needs of an event loop."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Handle":
        """Calls `callback` once, `delay` seconds from now."""
        ...


class Handle(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Takes it back."""
        ...


class LoopTimers:
    """Timers of the running event loop."""

    def time(self) -> float:
        """See `Timers`."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        """See `Timers`."""
        return asyncio.get_running_loop().call_later(delay, callback)


class ReconcileQueue(Generic[K]):
    """Runs `reconcile(key)` for every key added, in the order of their additions.

    `reconcile` may return the number of seconds after which it wants to be called again.
    """

    # Invariant: a key is in at most one of {_ready, _running}; a key in _dirty is in _running; a key in _timers is not
    # in _ready and not in _dirty.

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        timers: Timers | None = None,
        rng: random.Random | None = None,
        base: float = 0.5,
        cap: float = 120.0,
        spacing: float = 0.1,
        on_error: Callable[[K, Exception], None] = lambda _key, _error: None,
    ) -> None:
        self._reconcile = reconcile
        self._timers_source = timers or LoopTimers()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._base = base
        self._cap = cap
        self._spacing = spacing
        self._on_error = on_error
        self._ready: dict[K, None] = {}
        self._running: set[K] = set()
        self._dirty: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[float, Handle]] = {}
        self._finished_at: dict[K, float] = {}
        self._wake = asyncio.Event()

    @property
    def depth(self) -> int:
        """Keys that wait to be run now."""
        return len(self._ready) + len(self._dirty)

    def add(self, key: K) -> None:
        """Runs the key soon: at once, or `spacing` after its last run, or its back-off after a failure."""
        if key in self._failures and key in self._timers:
            return  # NB: events must not shorten a back-off, or a failing write that causes events loops hot
        finished = self._finished_at.get(key)
        delay = 0.0 if finished is None else finished + self._spacing - self._timers_source.time()
        if key in self._running:
            self._dirty.add(key)
        elif delay > 0:
            self.add_after(key, delay)
        else:
            self._make_ready(key)

    def add_after(self, key: K, delay: float) -> None:
        """Runs the key in `delay` seconds, or sooner if something asks for it sooner."""
        if key in self._ready or key in self._dirty:
            return
        due = self._timers_source.time() + delay
        if (waiting := self._timers.get(key)) is not None:
            if waiting[0] <= due:
                return
            waiting[1].cancel()
        self._timers[key] = (due, self._timers_source.call_later(delay, lambda: self._due(key)))

    def forget(self, key: K) -> None:
        """Drops what is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        self._finished_at.pop(key, None)

    async def work(self) -> None:
        """Takes keys for ever. Any number of these may run."""
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key = next(iter(self._ready))
            del self._ready[key]
            await self._run(key)

    async def _run(self, key: K) -> None:
        self._running.add(key)
        after: float | None = None
        try:
            after = await self._reconcile(key)
        except Exception as error:  # noqa: BLE001 - the worker outlives every reconcile
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            after = min(self._cap, self._base * 2 ** min(failures - 1, 16)) * self._rng.uniform(0.5, 1.0)
            self._on_error(key, error)
        else:
            self._failures.pop(key, None)
        finally:
            self._running.discard(key)
            self._finished_at[key] = self._timers_source.time()
        dirty = key in self._dirty
        self._dirty.discard(key)
        if after is not None:
            self.add_after(key, after)
        if dirty:
            self.add(key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        if key in self._running:
            self._dirty.add(key)
        else:
            self._make_ready(key)

    def _make_ready(self, key: K) -> None:
        if (waiting := self._timers.pop(key, None)) is not None:
            waiting[1].cancel()
        self._ready[key] = None
        self._wake.set()
