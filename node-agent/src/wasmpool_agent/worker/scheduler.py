"""Which guest runs next. All of it happens on the event loop's thread, one slice at a time.

    fresh    just started, or woken from a wait: served first, in order
    spent    used up a slice of one tick: one of them after every batch of fresh ones

A batch is bounded in time, and between batches the loop looks at its timers and at the supervisor's socket. So neither
many short guests nor one that spins keep a deadline, a Stop or each other waiting for more than a batch and a slice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import wasmtime

from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasmtime_async import Call, GuestTrap

BATCH_SECONDS: Final = 0.010


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

    def stop(self) -> None:
        """It has ended."""
        self._used_ns += self._now_ns() - self._since_ns
        self._since_ns = 0

    def ns(self) -> int:
        """Used so far."""
        return self._used_ns + (self._now_ns() - self._since_ns if self._since_ns else 0)


@dataclass(slots=True, eq=False)
class _Entry:
    """`calls_off` is set exactly while the guest waits for something; `first` is left after the first slice."""

    call: Call[Guest]
    cpu: CpuClock
    ended: asyncio.Future[None]
    first: AbstractContextManager[None] | None
    calls_off: Callable[[], None] | None = None


class Scheduler:
    """Runs guests in slices. `before_slice` is called before each: the ticker's touch."""

    def __init__(self, before_slice: Callable[[], None]) -> None:
        self._before_slice = before_slice
        self._fresh: deque[_Entry] = deque()
        self._spent: deque[_Entry] = deque()
        self._scheduled = False

    async def run(self, call: Call[Guest], cpu: CpuClock, first: AbstractContextManager[None] | None = None) -> None:
        """Runs it to its end; what `Call.poll` raises comes out here. The first slice happens inside of `first`.

        When this returns, for whatever reason, the call is closed: a guest that was cancelled runs no further.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(call, cpu, loop.create_future(), first)
        self._enqueue(entry)
        try:
            await entry.ended
        finally:
            entry.ended.cancel()  # one that is still queued is skipped when its turn comes
            if entry.calls_off is not None:
                entry.calls_off()
            call.close()

    def _enqueue(self, entry: _Entry) -> None:
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
        while self._fresh and clock() < end:
            self._slice(self._fresh.popleft())
        if self._spent:
            self._slice(self._spent.popleft())
        if self._fresh or self._spent:
            self._schedule()

    def _slice(self, entry: _Entry) -> None:
        if entry.ended.done():
            return
        first, entry.first = entry.first, None
        self._before_slice()
        entry.cpu.start()
        try:
            with first or nullcontext():
                ended = entry.call.poll()
        except (GuestTrap, wasmtime.WasmtimeError, OSError) as error:
            entry.ended.set_exception(error)
            return
        finally:
            entry.cpu.stop()
        if ended:
            entry.ended.set_result(None)
        elif entry.call.waits_for is None:
            self._spent.append(entry)
        else:
            entry.calls_off = entry.call.waits_for.arm(partial(self._wake, entry))

    def _wake(self, entry: _Entry) -> None:
        entry.calls_off = None
        if not entry.ended.done():
            self._enqueue(entry)
