"""Which guest runs next. All of it happens on the event loop's thread, one slice at a time.

    fresh    just started, or woken from a wait: served first, in order
    spent    has run for SLICE_NS since: one of them after every batch of fresh ones

A batch is bounded in time, and between batches the loop looks at its timers and at the supervisor's socket. So neither
many short guests nor one that spins keep a deadline, a Stop or each other waiting for more than a batch and a slice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import wasmtime

from wasmpool_agent.wasmtime_async import GuestTrap, Wait

BATCH_SECONDS: Final = 0.010
SLICE_NS: Final = 2_500_000
"""What makes a guest a long one. A tick of the epoch says little: it may come just after a slice has begun."""


class CpuClock:
    """Nanoseconds that one guest has run, the present slice included."""

    __slots__ = ("_now_ns", "_since_ns", "_used_ns")

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._used_ns = 0
        self._since_ns = 0

    def start(self) -> None:
        """A slice begins."""
        self._since_ns = self._now_ns()

    def stop(self) -> int:
        """It has ended: it took so many nanoseconds."""
        took_ns = self._now_ns() - self._since_ns
        self._used_ns += took_ns
        self._since_ns = 0
        return took_ns

    def ns(self) -> int:
        """Used so far."""
        return self._used_ns + (self._now_ns() - self._since_ns if self._since_ns else 0)


class Polled(Protocol):
    """A guest that runs in an instantiation or in a call: `wasmtime_async.Call`, or several of them in a row."""

    @property
    def waits_for(self) -> Wait | None:
        """See `Call`."""
        ...

    def poll(self) -> bool:
        """See `Call.poll`."""
        ...

    def close(self) -> None:
        """See `Call.close`."""
        ...


@dataclass(slots=True, eq=False)
class Running:
    """A guest that the scheduler has. `calls_off` is set exactly while it waits for something.

    `on_end` is called once, unless `Scheduler.end` comes before it. `waits`: how often it has begun to wait; only the
    first wake of the present time counts, for what is waited for may be several things that happen at once.
    """

    call: Polled
    cpu: CpuClock
    on_end: Callable[[Exception | None], None]
    first: AbstractContextManager[None] | None
    calls_off: Callable[[], None] | None = None
    over: bool = False
    waits: int = 0
    woken: bool = True
    fresh_ns: int = 0
    """How long it has run since it was started or woken."""


class Scheduler:
    """Runs guests in slices. `before_slice` is called before each: the ticker's touch."""

    def __init__(self, before_slice: Callable[[], None]) -> None:
        self._before_slice = before_slice
        self._fresh: deque[Running] = deque()
        self._spent: deque[Running] = deque()
        self._scheduled = False

    def begin(
        self,
        call: Polled,
        cpu: CpuClock,
        on_end: Callable[[Exception | None], None],
        first: AbstractContextManager[None] | None = None,
    ) -> Running:
        """Runs it to its end; `on_end` gets what `poll` raised, or None. The first slice happens inside of `first`.

        The call is closed by the time `on_end` is called.
        """
        entry = Running(call, cpu, on_end, first)
        self._enqueue(entry)
        return entry

    def end(self, entry: Running) -> None:
        """Ends a guest at once, wherever it is; `on_end` is not called any more. Idempotent.

        NB: not from inside a host function of that guest.
        """
        entry.over = True
        if entry.calls_off is not None:
            entry.calls_off()
            entry.calls_off = None
        entry.call.close()

    async def run(self, call: Polled, cpu: CpuClock, first: AbstractContextManager[None] | None = None) -> None:
        """Runs it to its end; what `poll` raises comes out here. The first slice happens inside of `first`.

        When this returns, for whatever reason, the call is closed: a guest that was cancelled runs no further.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_end(error: Exception | None) -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        entry = self.begin(call, cpu, on_end, first)
        try:
            await ended
        finally:
            self.end(entry)

    def _enqueue(self, entry: Running) -> None:
        self._fresh.append(entry)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._batch)

    def _batch(self) -> None:
        self._scheduled = False
        clock = asyncio.get_running_loop().time
        end = clock() + BATCH_SECONDS
        try:
            while self._fresh and clock() < end:
                self._slice(self._fresh.popleft())
            if self._spent:
                self._slice(self._spent.popleft())
        finally:  # whatever became of one, the others want their turn
            if self._fresh or self._spent:
                self._schedule()

    def _slice(self, entry: Running) -> None:
        if entry.over:
            return
        first, entry.first = entry.first, None
        self._before_slice()
        entry.cpu.start()
        try:
            with first or nullcontext():
                ended = entry.call.poll()
        except (GuestTrap, wasmtime.WasmtimeError, OSError) as error:
            self._over(entry, error)
            return
        finally:
            entry.fresh_ns += entry.cpu.stop()
        if ended:
            self._over(entry, None)
        elif entry.call.waits_for is None:
            (self._fresh if entry.fresh_ns < SLICE_NS else self._spent).append(entry)
        else:
            self._wait(entry, entry.call.waits_for)

    def _over(self, entry: Running, error: Exception | None) -> None:
        entry.over = True
        entry.call.close()
        entry.on_end(error)

    def _wait(self, entry: Running, wait: Wait) -> None:
        entry.fresh_ns = 0
        entry.waits += 1
        entry.woken = False
        calls_off = wait.arm(partial(self._wake, entry, entry.waits))
        if entry.woken:  # while it was being armed
            calls_off()
        else:
            entry.calls_off = calls_off

    def _wake(self, entry: Running, waits: int) -> None:
        if entry.over or entry.woken or waits != entry.waits:
            return
        entry.woken = True
        calls_off, entry.calls_off = entry.calls_off, None
        if calls_off is not None:
            calls_off()
        self._enqueue(entry)
