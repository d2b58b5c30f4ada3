"""Room for modules in memory: whose turn it is, and that all of it comes back."""

import asyncio
from collections.abc import Callable, Coroutine

from wasmpool_agent.modules.budget import Budget


class Room:
    """A budget of 10, and the order in which it was had."""

    def __init__(self) -> None:
        self.budget = Budget(10)
        self.had: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, name: str, size: int, scope: str = "") -> tuple[asyncio.Task[None], asyncio.Event]:
        """Takes it until the event is set."""
        over = asyncio.Event()

        async def hold() -> None:
            async with self.budget.of(size, scope or name):
                self.had.append(name)
                await over.wait()

        task = asyncio.create_task(hold())
        self._tasks.append(task)
        await asyncio.sleep(0)
        return task, over


def with_room(test: Callable[[Room], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        room = Room()
        await test(room)
        for task in room._tasks:
            task.cancel()
        await asyncio.gather(*room._tasks, return_exceptions=True)
        assert room.budget.taken_bytes == 0
        async with asyncio.timeout(5), room.budget.of(10, "anybody"):
            pass

    asyncio.run(run())


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_scope_that_wants_much_keeps_nobody_else_waiting_for_all_of_it() -> None:
    async def test(room: Room) -> None:
        _, over = await room.ask("a0", 10, "a")
        ends = [over] + [(await room.ask(f"a{number}", 10, "a"))[1] for number in range(1, 6)]
        _, other = await room.ask("b0", 10, "b")
        for end in (ends[0], ends[1]):
            end.set()
            await turn()
        assert room.had == ["a0", "a1", "b0"]
        other.set()
        await turn()
        assert room.had == ["a0", "a1", "b0", "a2"]

    with_room(test)


def test_a_large_one_is_not_passed_by_small_ones() -> None:
    async def test(room: Room) -> None:
        _, first = await room.ask("first", 5)
        await room.ask("large", 10)
        await room.ask("small", 1)
        assert room.had == ["first"]
        first.set()
        await turn()
        assert room.had == ["first", "large"]

    with_room(test)


def test_holder_and_waiters_may_be_cancelled_in_one_tick() -> None:
    async def test(room: Room) -> None:
        holder, _ = await room.ask("holder", 10)
        waiters = [(await room.ask(f"waiter-{number}", 10, f"s{number % 2}"))[0] for number in range(4)]
        for task in (holder, *waiters):
            task.cancel()
        await asyncio.gather(holder, *waiters, return_exceptions=True)
        assert room.budget.taken_bytes == 0
        await room.ask("next", 10)
        assert room.had == ["holder", "next"]

    with_room(test)


def test_what_was_dealt_to_somebody_who_has_gone_goes_to_the_next() -> None:
    async def test(room: Room) -> None:
        _, over = await room.ask("holder", 10)
        waiter, _ = await room.ask("waiter", 10)
        await room.ask("next", 10)
        over.set()
        await asyncio.sleep(0)  # the holder lets go; the waiter has not come back yet
        waiter.cancel()
        await turn()
        assert room.had == ["holder", "next"]

    with_room(test)


def test_what_is_taken_stays_within_it_and_a_scope_has_it_in_order() -> None:
    async def run() -> tuple[int, list[int]]:
        budget, order, most = Budget(100), list[int](), 0

        async def use(number: int, size: int) -> None:
            nonlocal most
            async with budget.of(size, "one"):
                most = max(most, budget.taken_bytes)
                order.append(number)
                await asyncio.sleep(0)

        async with asyncio.timeout(5):
            await asyncio.gather(*(use(number, size) for number, size in enumerate((60, 60, 500, 10, 90, 30, 30, 30))))
        assert budget.taken_bytes == 0
        return most, order

    most, order = asyncio.run(run())
    assert most <= 100
    assert order == list(range(8))


def test_who_gives_up_waiting_takes_nothing_along() -> None:
    async def run() -> None:
        budget = Budget(100)

        async def use() -> None:
            async with budget.of(80, "one"):
                await asyncio.sleep(0.01)

        for after in range(8):  # at every point of its way
            async with asyncio.timeout(5):
                first = asyncio.create_task(use())
                second = asyncio.create_task(use())
                third = asyncio.create_task(use())
                for _ in range(after):
                    await asyncio.sleep(0.003)
                second.cancel()
                await asyncio.gather(first, second, third, return_exceptions=True)
            assert budget.taken_bytes == 0
        async with asyncio.timeout(1), budget.of(100, "one"):
            pass

    asyncio.run(run())
