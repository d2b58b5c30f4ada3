"""Instances for requests: made ahead, made when asked for, queued for; over a real slot table and real stores.

Covers: an instance made ahead is used first, and once, and replaced when nobody has to wait for that; the queue's order
and its end in time; a slot that comes free goes to who waits; giving way; a close that leaves nothing behind; instances
that can't be made.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import wasmtime

from wasmpool_agent.allocators import Slot
from wasmpool_agent.allocators.on_demand import OnDemandAllocator
from wasmpool_agent.engine import DEFAULT_TUNABLES
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_async import Call, HostFunctions, yield_every_tick
from wasmpool_agent.wasmtime_private import apply_tunables, disable_concurrency
from wasmpool_agent.worker.scheduler import Polled, Scheduler
from wasmpool_agent.worker.supply import Made, MakeFailure, Supply, Ticket
from wasmpool_agent.worker.ticker import Ticker

EMPTY = '(module (memory (export "memory") 1))'
SPINS = "(module (memory 1) (start $f) (func $f (loop (br 0))))"
TRAPS = "(module (memory 1) (start $f) (func $f unreachable))"


@dataclass
class Thing:
    """An instance, as far as a supply looks at it."""

    closed: int = 0

    def close(self) -> None:
        """Counted."""
        self.closed += 1


@dataclass
class CoreMaker:
    """Instances of a core module."""

    functions: HostFunctions[None]
    pre: wasmtime.InstancePre
    things: list[Thing] = field(default_factory=list[Thing])

    def store(self) -> wasmtime.Store:
        """With its epoch set."""
        store = wasmtime.Store(self.functions.linker.engine)
        yield_every_tick(store)
        return store

    def begin(self, made: Made, slot: Slot) -> Polled:
        """See `Maker`."""
        made.what = thing = Thing()
        self.things.append(thing)
        call: Call[None] = self.functions.instantiate(self.pre, made.store, None)
        return call


@dataclass
class Asked:
    """What came of it."""

    made: Made | None = None
    failure: MakeFailure | None = None
    expired: bool = False

    @property
    def served(self) -> bool:
        """Whether it has an instance."""
        return self.made is not None


@dataclass
class Bench:
    """A supply over so many slots."""

    table: SlotTable
    maker: CoreMaker
    supply: Supply
    starved: list[float]

    def ask(self) -> tuple[Asked, Ticket]:
        """With its answer, as far as there is one yet."""
        asked = Asked()

        def got(made: Made) -> None:
            asked.made = made

        def failed(error: MakeFailure) -> None:
            asked.failure = error

        def expired() -> None:
            asked.expired = True

        ticket = Ticket(got, failed, expired)
        self.supply.ask(ticket)
        return asked, ticket

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return self.table.slots - self.table.counts().free


@contextmanager
def bench(slots: int = 2, *, ready: int = 0, queue_seconds: float = 5.0, wat: str = EMPTY) -> Iterator[Bench]:
    """Everything real but the guest's purpose."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    disable_concurrency(config)
    apply_tunables(config, DEFAULT_TUNABLES)
    functions = HostFunctions[None](wasmtime.Engine(config))
    engine = functions.linker.engine
    with SlotTable.create(slots) as table:
        allocator = OnDemandAllocator(table, 1, memories=1, memory_pages=1)
        maker = CoreMaker(functions, functions.linker.instantiate_pre(wasmtime.Module(engine, wat)))
        starved: list[float] = []
        supply = Supply(
            allocator,
            Scheduler(lambda: None),
            maker,
            workload_id=7,
            module=1,
            queue_seconds=queue_seconds,
            most_ready=ready,
            on_starved=lambda: starved.append(asyncio.get_running_loop().time()),
        )
        yield Bench(table, maker, supply, starved)


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(test())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds
            await asyncio.sleep(0.001)


def test_an_instance_made_ahead_is_used_first_and_once() -> None:
    async def test() -> None:
        with bench(2, ready=1) as it:
            it.supply.replenish()
            await until(lambda: it.supply.ready == 1)
            first, _ = it.ask()
            assert first.made is not None
            assert first.made.ahead
            second, _ = it.ask()
            await until(lambda: second.made is not None)
            assert second.made is not None
            assert not second.made.ahead
            assert second.made.store is not first.made.store
            it.supply.retire(first.made)
            it.supply.retire(second.made)
            await until(lambda: it.supply.ready == 1)
            third, _ = it.ask()
            assert third.made not in {first.made, second.made}
            it.supply.close()
            assert third.made is not None
            it.supply.retire(third.made)
            assert it.used == 0

    run(test)


def test_an_instantiation_that_spins_ends_in_time_and_gives_its_slot_back() -> None:
    async def test() -> None:
        with bench(1, wat=SPINS) as it, Ticker(it.maker.functions.linker.engine.increment_epoch) as ticker:
            it.supply.scheduler = Scheduler(ticker.touch)
            it.supply.making_seconds = 0.1
            first, _ = it.ask()
            second, _ = it.ask()  # for the slot that the first one has
            await until(lambda: second.failure is not None)
            for asked in (first, second):
                assert isinstance(asked.failure, TimeoutError)
                assert str(asked.failure) == "its instantiation took more than 0.1 s"
            assert (it.used, len(it.supply.live)) == (0, 0)

    run(test)


def test_who_waits_is_served_in_order_as_slots_come_free() -> None:
    async def test() -> None:
        with bench(1) as it:
            first, _ = it.ask()
            await until(lambda: first.made is not None)
            second, third = it.ask()[0], it.ask()[0]
            assert it.supply.queued == 2
            assert len(it.starved) == 1
            assert first.made is not None
            it.supply.retire(first.made)
            await until(lambda: second.made is not None)
            assert not third.served
            assert second.made is not None
            it.supply.retire(second.made)
            await until(lambda: third.made is not None)
            assert third.made is not None
            it.supply.retire(third.made)
            assert it.used == 0

    run(test)


def test_a_slot_that_another_worker_gives_back_is_found() -> None:
    async def test() -> None:
        with bench(1) as it:
            taken = it.table.take(2, 7)
            assert taken is not None
            asked, _ = it.ask()
            await asyncio.sleep(0.02)
            assert not asked.served
            it.table.native.release(taken, 2)
            await until(lambda: asked.made is not None)
            assert asked.made is not None
            it.supply.retire(asked.made)

    run(test)


def test_waiting_ends_in_time_and_leaves_no_place_in_the_queue() -> None:
    async def test() -> None:
        with bench(1, queue_seconds=0.03) as it:
            first, _ = it.ask()
            await until(lambda: first.made is not None)
            second, _ = it.ask()
            await until(lambda: second.expired)
            assert it.supply.queued == 0
            assert first.made is not None
            it.supply.retire(first.made)
            await asyncio.sleep(0.01)
            assert second.made is None
            assert it.used == 0

    run(test)


def test_an_instance_for_somebody_who_has_gone_goes_to_the_next() -> None:
    async def test() -> None:
        with bench(1) as it:
            gone, ticket = it.ask()
            next_one, _ = it.ask()
            ticket.cancel()
            await until(lambda: next_one.made is not None)
            assert gone.made is None
            assert next_one.made is not None
            it.supply.retire(next_one.made)
            assert it.used == 0

    run(test)


def test_one_that_was_taken_is_replaced_after_its_request_and_not_while_that_runs() -> None:
    async def test() -> None:
        with bench(2, ready=1) as it:
            it.supply.replace_seconds = 3600
            it.supply.replenish()
            await until(lambda: it.supply.ready == 1)
            taken, _ = it.ask()
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(it.maker.things) == 1
            assert taken.made is not None
            it.supply.retire(taken.made)
            await until(lambda: it.supply.ready == 1)
            it.supply.close()

    run(test)


def test_one_that_was_taken_for_long_is_replaced_meanwhile() -> None:
    async def test() -> None:
        with bench(2, ready=1) as it:
            it.supply.replenish()
            await until(lambda: it.supply.ready == 1)
            taken, _ = it.ask()
            await until(lambda: it.supply.ready == 1)
            assert taken.made is not None
            assert it.used == 2

    run(test)


def test_giving_way_frees_what_was_made_ahead_and_makes_nothing_for_a_while() -> None:
    async def test() -> None:
        with bench(2, ready=2) as it:
            it.supply.replenish()
            await until(lambda: it.supply.ready >= 1)
            it.supply.give_way()
            assert (it.supply.ready, it.used) == (0, 0)
            it.supply.replenish()
            await asyncio.sleep(0.01)
            assert it.used == 0
            assert all(thing.closed == 1 for thing in it.maker.things)

    run(test)


def test_closing_answers_all_who_wait_and_keeps_what_is_in_use() -> None:
    async def test() -> None:
        with bench(1, ready=1) as it:
            used, _ = it.ask()
            await until(lambda: used.made is not None)
            waiting, _ = it.ask()
            it.supply.close()
            assert waiting.expired
            assert it.used == 1
            assert used.made is not None
            it.supply.retire(used.made)
            await asyncio.sleep(0.01)
            assert it.used == 0

    run(test)


@pytest.mark.parametrize("ready", [0, 1])
def test_an_instance_that_can_not_be_made_is_said_and_leaves_no_slot(ready: int) -> None:
    async def test() -> None:
        with bench(2, ready=ready, wat=TRAPS) as it:
            it.supply.replenish()
            asked, _ = it.ask()
            await until(lambda: asked.failure is not None)
            assert "unreachable" in str(asked.failure)
            await until(lambda: it.used == 0)

    run(test)
