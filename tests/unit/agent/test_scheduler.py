"""Who runs next in a worker: short guests in order, long ones in slices in between; and clients to whoever is free."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import wasmtime

from wasmpool_agent import canonical, component_api
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_agent.wasi.p2.streams import AnyOf
from wasmpool_agent.wasi.signals import Signal
from wasmpool_agent.wasmtime_async import Wait
from wasmpool_agent.worker import heap
from wasmpool_agent.worker.heap import Heap
from wasmpool_agent.worker.scheduler import SLICE_NS, CpuClock, Scheduler
from wasmpool_agent.worker.site import Site

if TYPE_CHECKING:
    from wasmpool_agent.worker.revision import Revision

MILLISECOND = 1_000_000


class Guest:
    """Gives the thread back after each of its `slices`, in nanoseconds; then it ends."""

    waits_for: Wait | None = None

    def __init__(self, turns: "Turns", name: str, *slices: int) -> None:
        self._turns = turns
        self._name = name
        self._slices = list(slices)

    def poll(self) -> bool:
        self._turns.order.append(self._name)
        self._turns.now_ns += self._slices.pop(0)
        return not self._slices

    def close(self) -> None:
        pass


class Turns:
    """The order in which guests had the thread, on a clock of their own."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.ended: list[str] = []
        self.now_ns = 1
        self.scheduler = Scheduler(lambda: None)

    def begin(self, name: str, *slices: int) -> None:
        def on_end(_: Exception | None) -> None:
            self.ended.append(name)

        self.scheduler.begin(Guest(self, name, *slices), CpuClock(lambda: self.now_ns), on_end)

    async def until_ended(self, count: int) -> None:
        while len(self.ended) < count:  # noqa: ASYNC110 - turns of the loop are what it is about
            await asyncio.sleep(0)


def test_a_slice_that_a_tick_has_cut_short_does_not_make_a_guest_a_long_one() -> None:
    async def run() -> None:
        turns = Turns()
        for number in range(50):
            turns.begin(str(number), MILLISECOND // 10, MILLISECOND // 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.ended == [str(number) for number in range(50)], "all of them, in one batch and in order"

    asyncio.run(run())


def test_a_long_guest_waits_for_the_short_ones_and_gets_its_slices_in_between() -> None:
    async def run() -> None:
        turns = Turns()
        turns.begin("long", *[SLICE_NS] * 4)
        turns.begin("short", MILLISECOND, MILLISECOND // 10)
        await turns.until_ended(2)
        assert turns.order == ["long", "short", "short", "long", "long", "long"]

    asyncio.run(run())


def test_many_short_slices_make_a_guest_a_long_one() -> None:
    async def run() -> None:
        turns = Turns()
        turns.begin("bits", *[SLICE_NS // 4] * 40)
        await asyncio.sleep(0)
        assert turns.order.count("bits") == 5, "a slice's worth in the batch, and one turn of the long ones"
        await turns.until_ended(1)

    asyncio.run(run())


class Waits:
    """A guest that waits `times` times, for the same signal in several ways; then it ends."""

    def __init__(self, times: int, ways: int) -> None:
        self.polls = 0
        self.happened = False
        self.signal = Signal(lambda: self.happened)
        self.waits_for: Wait | None = AnyOf([AnyOf([self.signal]) for _ in range(ways)])
        self._times = times

    def poll(self) -> bool:
        self.polls += 1
        if self.happened:
            self.happened = False
            self._times -= 1
        return not self._times

    def close(self) -> None:
        pass

    def happen(self) -> None:
        self.happened = True
        self.signal.set()


def test_a_guest_that_waits_for_one_thing_in_several_ways_is_woken_once() -> None:
    async def run() -> None:
        guest, ended = Waits(5, 100), asyncio.Event()
        scheduler = Scheduler(lambda: None)
        scheduler.begin(guest, CpuClock(lambda: 1), lambda _: ended.set())
        await asyncio.sleep(0)
        for number in range(5):
            assert (guest.polls, len(guest.signal._wakes)) == (1 + number, 100)
            guest.happen()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert ended.is_set()
        assert not guest.signal._wakes

    asyncio.run(run())


def test_a_wake_of_an_earlier_wait_is_none_of_the_present_one() -> None:
    class Kept:
        """A wait that goes on calling whoever has ever armed it."""

        def __init__(self) -> None:
            self.wakes: list[Callable[[], None]] = []

        def ready(self) -> bool:
            return False

        def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
            self.wakes.append(wake)
            return lambda: None

    async def run() -> None:
        guest, kept = Waits(1, 1), Kept()
        guest.waits_for = kept
        scheduler = Scheduler(lambda: None)
        entry = scheduler.begin(guest, CpuClock(lambda: 1), lambda _: None)
        for number in range(4):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (guest.polls, len(kept.wakes)) == (1 + number, 1 + number)
            for wake in kept.wakes:
                wake()
        scheduler.end(entry)

    asyncio.run(run())


def test_an_end_that_fails_keeps_nobody_else_waiting() -> None:
    async def run() -> None:
        turns, said = Turns(), list[str]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(str(context["exception"])))

        def fails(_: Exception | None) -> None:
            raise RuntimeError("of its own")

        turns.scheduler.begin(Guest(turns, "one", 1), CpuClock(lambda: turns.now_ns), fails)
        turns.begin("other", 1)
        await turns.until_ended(1)
        assert said == ["of its own"]

    asyncio.run(run())


COUNT = """(component
  (core module $m (func (export "count") (loop)))
  (core instance $i (instantiate $m))
  (func (export "count") (canon lift (core func $i "count"))))"""


@pytest.mark.parametrize("host", [canonical, component_api], ids=["canonical", "component API"])
@pytest.mark.parametrize("ticks", [0, 1, 100])
def test_ticks_before_its_use_are_not_taken_from_an_instance_that_was_made_ahead(ticks: int, host: Any) -> None:
    engine = wasmtime.Engine(_config(DEFAULT_TUNABLES))
    component = bytes(wasmtime.wat2wasm(COUNT))
    if host is canonical:
        plan, *codes = canonical.compile_component(engine, component, ())
        modules = [wasmtime.Module.deserialize(engine, code) for code in codes]
        program: Any = canonical.Program.load(engine, plan, modules, {})
    else:
        program = component_api.Program.load(engine, component_api.compile_component(engine, component))
    store = wasmtime.Store(engine)
    instance = program.instance(store, SimpleNamespace())
    making = instance.instantiate(nullcontext)
    assert making.poll()
    making.close()
    for _ in range(ticks):
        engine.increment_epoch()
    call = instance.call("", "count")
    assert call.poll(), "in one slice"
    call.close()
    instance.close()
    store.close()


def test_of_clients_that_come_together_each_worker_takes_its_share() -> None:
    """Two sites of one loop stand for two workers' that share the listener."""
    always = SimpleNamespace(
        answering=True, told=SimpleNamespace(outdated=False, workload_id=1), supply=SimpleNamespace(able=_able)
    )

    async def run() -> list[int]:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            listener.setblocking(False)
            sites = [Site(listener.dup()), Site(listener.dup())]
            clients = [socket.create_connection(listener.getsockname()) for _ in range(16)]
            for site in sites:
                site.revisions["r"] = cast("Revision", always)
                site.answers()
            async with asyncio.timeout(5):
                while sum(len(site._clients) for site in sites) < len(clients):  # noqa: ASYNC110 - no event says it
                    await asyncio.sleep(0.001)
            found = [len(site._clients) for site in sites]
            for client in clients:
                client.close()
            for site in sites:
                site.close()
            await asyncio.sleep(0.01)
            return found

    assert min(asyncio.run(run())) >= 4


def _able(_: int) -> bool:
    return True


@pytest.fixture
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_modules_that_are_dropped_all_the_time_are_looked_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_SECONDS", 0.02)
    looks: list[float] = []

    async def run() -> None:
        kept = Heap()
        monkeypatch.setattr(kept, "grown", lambda: looks.append(asyncio.get_running_loop().time()))
        async with asyncio.timeout(20):
            while len(looks) < 3:
                kept.shrunk()
                await asyncio.sleep(0.005)

    asyncio.run(run())


@pytest.mark.usefixtures("thawed")
def test_what_was_loaded_is_looked_at_no_more_until_some_of_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_SECONDS", 0.0)
    gone: list[str] = []

    class Loaded:
        def __init__(self) -> None:
            self.cycle: Callable[[], object] = lambda: self

        def __del__(self) -> None:
            gone.append("it")

    async def run() -> None:
        kept = Heap()
        loaded = Loaded()
        before = gc.get_freeze_count()
        kept.grown()
        assert gc.get_freeze_count() > before
        del loaded
        gc.collect()
        assert not gone, "set aside"
        kept.shrunk()
        kept.shrunk()
        await asyncio.sleep(0.01)
        assert gone == ["it"]

    asyncio.run(run())
