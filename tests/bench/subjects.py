"""What is compared: our allocators, and what a user would take instead. Each lives in processes of its own.

A subject's processes are forked before anything of Wasmtime is made, share one region and one slot table as the workers
of an agent do, and wait for orders: `Crew.measure` sends one to all of them at once.
"""

import gc
import os
import resource
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

import wasmtime

from tests.allocation import shape_of
from wasmpool_agent.allocators import InstanceAllocator
from wasmpool_agent.allocators.base_pages import BasePagesAllocator, base_pages_tunables
from wasmpool_agent.allocators.compact import CompactAllocator
from wasmpool_agent.allocators.guarded import GuardedAllocator
from wasmpool_agent.allocators.on_demand import OnDemandAllocator
from wasmpool_agent.engine import engine_config
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import PoolingOptions, Tunables, install_pooling
from wasmpool_api.limits import WASM_PAGE_BYTES, ComponentLimits, ModuleLimits

HUGE: Final = 2 * 1024**2
SUBJECTS: Final = ("on-demand", "wasmtime-pool", "wasmtime-pool-resident", "compact", "guarded", "base-pages")
IN_REGION: Final = ("compact", "guarded")
WARM_UP: Final = 20


@dataclass(frozen=True)
class Sizes:
    """Of the pool. `memory_pages`: of 64 KiB, what a memory may grow to."""

    slots: int
    memory_pages: int

    @property
    def huge_pages(self) -> int:
        """That a region of either kind takes."""
        return self.slots * -(-self.memory_pages * WASM_PAGE_BYTES // HUGE)


@dataclass(frozen=True)
class Order:
    """`threads` of each process run `cycles` lives of the module; with `call`, one life in which it is called."""

    wat: str
    cycles: int
    threads: int = 1
    call: str = ""


@dataclass(frozen=True)
class Answer:
    """Of one process. `seconds`: of one life or call, on the average; `faults`: minor ones per life."""

    seconds: float
    faults: float
    mappings: int


class _Pool:
    """Wasmtime's pooling allocator alone, as an embedder would configure it: nothing of ours is in the way."""

    def __init__(self, sizes: Sizes, *, resident: bool) -> None:
        memory_bytes = sizes.memory_pages * WASM_PAGE_BYTES
        self._options = PoolingOptions(
            core_instances=sizes.slots,
            component_instances=sizes.slots,
            memories=sizes.slots,
            tables=sizes.slots,
            stacks=0,
            memory_bytes=memory_bytes,
            memories_per_module=1,
            tables_per_module=1,
            table_elements=10_000,
            keep_resident_bytes=memory_bytes if resident else 0,
            table_keep_resident_bytes=80_000 if resident else 0,
            warm_slots=100,
        )

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        return base_pages_tunables(tunables)

    def install(self, config: wasmtime.Config) -> None:
        install_pooling(config, self._options)


Life = Callable[[wasmtime.InstancePre], None]


@dataclass
class _Subject:
    """In one process: an engine, and one life of an instance on it."""

    engine: wasmtime.Engine
    life: Life
    allocator: InstanceAllocator | None

    def modules(self) -> Callable[[str], wasmtime.InstancePre]:
        """Compiles each text once."""
        known: dict[str, wasmtime.InstancePre] = {}

        def module(wat: str) -> wasmtime.InstancePre:
            if wat not in known:
                linker = wasmtime.Linker(self.engine)
                known[wat] = linker.instantiate_pre(wasmtime.Module(self.engine, wat))
            return known[wat]

        return module


def _without_slots(engine: wasmtime.Engine) -> Life:
    def life(pre: wasmtime.InstancePre) -> None:
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(1_000_000)
        pre.instantiate(store)
        store.close()

    return life


def _in_slots(engine: wasmtime.Engine, allocator: InstanceAllocator) -> Life:
    def life(pre: wasmtime.InstancePre) -> None:
        slot = allocator.allocate(1)
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(1_000_000)
        with allocator.initialize(slot):
            pre.instantiate(store)
        store.close()
        allocator.deallocate(slot)

    return life


def _subject(name: str, sizes: Sizes, region: Region | None, table: SlotTable, worker: int) -> _Subject:
    pages = sizes.memory_pages
    if name.startswith("wasmtime-pool"):
        pool = _Pool(sizes, resident=name.endswith("resident"))
        engine = wasmtime.Engine(engine_config(pool))  # type: ignore[arg-type]  # the two methods that are used
        return _Subject(engine, _without_slots(engine), None)
    allocator: InstanceAllocator
    match name:
        case "on-demand":
            allocator = OnDemandAllocator(table, worker, memories=1, memory_pages=pages)
        case "base-pages":
            limits = ModuleLimits(memory_pages=pages)
            allocator = BasePagesAllocator(table, worker, module=limits, component=ComponentLimits(memories=1))
        case _:
            assert region is not None
            make = CompactAllocator if name == "compact" else GuardedAllocator
            allocator = make(region, table, worker, memories=1, memory_pages=pages)
    engine = wasmtime.Engine(engine_config(allocator))
    # On demand stands for Wasmtime as it comes: without slots.
    life = _without_slots(engine) if name == "on-demand" else _in_slots(engine, allocator)
    return _Subject(engine, life, allocator)


def _call_once(subject: _Subject, pre: wasmtime.InstancePre, order: Order) -> float:
    store = wasmtime.Store(subject.engine)
    store.set_epoch_deadline(1_000_000)
    slot = subject.allocator.allocate(1) if subject.allocator is not None else None
    with ExitStack() as stack:
        if subject.allocator is not None and slot is not None:
            stack.enter_context(subject.allocator.initialize(slot))
        instance = pre.instantiate(store)
    function = instance.exports(store)[order.call]
    assert isinstance(function, wasmtime.Func)
    function(store)
    began = time.perf_counter()
    for _ in range(order.cycles):
        function(store)
    took = time.perf_counter() - began
    store.close()
    if subject.allocator is not None and slot is not None:
        subject.allocator.deallocate(slot)
    return took


def _lives(subject: _Subject, pre: wasmtime.InstancePre, order: Order) -> float:
    ready, done = threading.Barrier(order.threads + 1), threading.Barrier(order.threads + 1)

    def run() -> None:
        life = subject.life
        ready.wait()
        for _ in range(order.cycles):
            life(pre)
        done.wait()

    threads = [threading.Thread(target=run) for _ in range(order.threads)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    done.wait()
    took = time.perf_counter() - began
    for thread in threads:
        thread.join()
    return took / order.threads


def _serve(name: str, sizes: Sizes, region: Region | None, table: SlotTable, worker: int, orders: Connection) -> None:
    subject = _subject(name, sizes, region, table, worker)
    module = subject.modules()
    while True:
        order: Order | None = orders.recv()
        if order is None:
            break
        pre = module(order.wat)
        gc.collect()
        gc.disable()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        took = _call_once(subject, pre, order) if order.call else _lives(subject, pre, order)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        gc.enable()
        lives = 1 if order.call else order.cycles * order.threads
        mappings = Path("/proc/self/maps").read_text().count("\n")
        orders.send(Answer(took / order.cycles, faults / lives, mappings))
    orders.close()
    os._exit(0)  # NB: the engine's memory goes with the process; taking it apart first would only take time


@dataclass
class Crew:
    """The processes of one subject."""

    name: str
    orders: Sequence[Connection]

    def measure(self, order: Order, processes: int = 1) -> list[Answer]:
        """Of the first so many processes, at the same time."""
        chosen = self.orders[:processes]
        for connection in chosen:
            connection.send(order)
        return [connection.recv() for connection in chosen]


@contextmanager
def crew(name: str, sizes: Sizes, processes: int = 1) -> Generator[Crew]:
    """Raises ReserveError where there are not enough huge pages for a region."""
    shape = shape_of(
        name if name in IN_REGION else "compact",
        slots=sizes.slots,
        memories=1,
        memory_pages=sizes.memory_pages,
        page_bytes=HUGE,
    )
    forking = get_context("fork")
    with ExitStack() as stack:
        region = stack.enter_context(Region.reserve(shape)) if name in IN_REGION else None
        table = stack.enter_context(SlotTable.create(sizes.slots))
        connections: list[Connection] = []
        started = list[ForkProcess]()
        for worker in range(1, processes + 1):
            ours, theirs = forking.Pipe()
            process = forking.Process(target=_serve, args=(name, sizes, region, table, worker, theirs), daemon=True)
            process.start()
            theirs.close()
            connections.append(ours)
            started.append(process)
        try:
            yield Crew(name, connections)
        finally:
            for connection, process in zip(connections, started, strict=True):
                connection.send(None)
                process.join(10)
                if process.is_alive():
                    process.kill()
                    process.join()
                connection.close()
