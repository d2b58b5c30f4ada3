"""The reconcile queue, on a clock that the test turns.

We test these aspects: one run at a time per key; no addition is lost; additions in a row cost one run; failures are
retried with growing pauses that events do not shorten; a wanted recheck comes, or sooner if something happens.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

from wasmpool_operator.queue import Handle, ReconcileQueue


class Call:
    """A call that is due at a time."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Time that stands still until `advance`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        self.calls.append(Call(self.now + delay, callback))
        return self.calls[-1]

    async def advance(self, seconds: float) -> None:
        await settle()
        end = self.now + seconds
        while due := sorted((it for it in self.calls if it.due <= end and not it.cancelled), key=lambda it: it.due):
            self.calls.remove(due[0])
            self.now = due[0].due
            due[0].callback()
            await settle()
        self.now = end
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def play(
    reconcile: Callable[[str], Awaitable[float | None]],
    story: Callable[[ReconcileQueue[str], Clock], Awaitable[None]],
    workers: int = 3,
) -> None:
    async def run() -> None:
        clock = Clock()
        rng = random.Random(1)  # noqa: S311 - jitter, no secret
        queue = ReconcileQueue(reconcile, timers=clock, rng=rng, spacing=1.0, base=2.0, cap=10.0)
        tasks = [asyncio.create_task(queue.work()) for _ in range(workers)]
        try:
            await story(queue, clock)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_a_key_never_runs_twice_at_a_time_and_no_addition_is_lost() -> None:
    gate = asyncio.Event()
    running: list[str] = []
    runs: list[str] = []

    async def reconcile(key: str) -> float | None:
        assert key not in running
        running.append(key)
        runs.append(key)
        await gate.wait()
        running.remove(key)
        return None

    async def story(queue: ReconcileQueue[str], clock: Clock) -> None:
        queue.add("a")
        await settle()
        for _ in range(100):
            queue.add("a")
        queue.add("b")
        await settle()
        assert runs == ["a", "b"]
        gate.set()
        await clock.advance(5)
        assert sorted(runs) == ["a", "a", "b"]

    play(reconcile, story)


def test_additions_right_after_a_run_wait_for_the_spacing() -> None:
    runs: list[float] = []
    clocks: list[Clock] = []

    async def reconcile(_key: str) -> float | None:
        runs.append(clocks[0].now)
        return None

    async def story(queue: ReconcileQueue[str], clock: Clock) -> None:
        clocks.append(clock)
        queue.add("a")
        await clock.advance(0.1)
        for _ in range(10):
            queue.add("a")
            await clock.advance(0.05)
        await clock.advance(3)
        assert runs == [0.0, 1.0]

    play(reconcile, story)


def test_failures_are_retried_ever_later_and_events_do_not_hurry_them() -> None:
    runs: list[float] = []
    clocks: list[Clock] = []

    async def reconcile(_key: str) -> float | None:
        runs.append(clocks[0].now)
        raise RuntimeError

    async def story(queue: ReconcileQueue[str], clock: Clock) -> None:
        clocks.append(clock)
        queue.add("a")
        for _ in range(400):
            await clock.advance(0.1)
            queue.add("a")
        pauses = [after - before for before, after in itertools.pairwise(runs)]
        assert 1.0 <= pauses[0] <= 2.1
        assert 2.0 <= pauses[1] <= 4.1
        assert all(pause <= 10.1 for pause in pauses)
        assert len(runs) < 12

    play(reconcile, story)


def test_a_recheck_comes_when_it_was_wanted_or_sooner_when_something_happens() -> None:
    runs: list[float] = []
    clocks: list[Clock] = []

    async def reconcile(_key: str) -> float | None:
        runs.append(clocks[0].now)
        return 30.0

    async def story(queue: ReconcileQueue[str], clock: Clock) -> None:
        clocks.append(clock)
        queue.add("a")
        await clock.advance(29)
        assert runs == [0.0]
        await clock.advance(2)
        assert runs == [0.0, 30.0]
        await clock.advance(9)
        queue.add("a")
        await clock.advance(1)
        assert runs == [0.0, 30.0, 40.0]

    play(reconcile, story)
