"""Small pools for tests: a region, a slot table, an allocator over them and its engine; and guests to run in them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import wasmtime

from wasmpool_agent.allocators import InstanceAllocator, Slot
from wasmpool_agent.allocators.base_pages import BasePagesAllocator
from wasmpool_agent.allocators.compact import CompactAllocator
from wasmpool_agent.allocators.guarded import GuardedAllocator
from wasmpool_agent.allocators.on_demand import OnDemandAllocator
from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_agent.engine import engine_config
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_api.instance_pool import AllocationStrategy, Backing
from wasmpool_api.limits import WASM_PAGE_BYTES, ComponentLimits, ModuleLimits
from wasmpool_api.region import RegionShape

IN_REGION = ("compact", "guarded")
_BACKINGS = {4096: Backing.BASE_PAGES, 2 * 1024**2: Backing.HUGE_PAGES_2MI, 1024**3: Backing.HUGE_PAGES_1GI}
ALL_KINDS = (*IN_REGION, "base-pages", "on-demand")

GUEST = """(module
 (memory (export "memory") {limits})
 (func (export "store8") (param i32) (i32.store8 (local.get 0) (i32.const 1)))
 (func (export "load8") (param i32) (result i32) (i32.load8_u (local.get 0)))
 (func (export "load32") (param i32) (result i32) (i32.load (local.get 0)))
 (func (export "load64") (param i32) (result i64) (i64.load (local.get 0)))
 (func (export "load32+64Ki") (param i32) (result i32) (i32.load offset=65536 (local.get 0)))
 (func (export "load32+30Mi") (param i32) (result i32) (i32.load offset=0x1e00000 (local.get 0)))
 (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
 (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
 (func (export "size") (result i32) (memory.size))
 (func (export "dirty") (param i32) (result i32) (local i32) ;; words that are not zero in the first so many bytes
   (block (loop
     (br_if 1 (i32.eqz (local.get 0)))
     (local.set 0 (i32.sub (local.get 0) (i32.const 8)))
     (local.set 1 (i32.add (local.get 1) (i64.ne (i64.load (local.get 0)) (i64.const 0))))
     (br 0)))
   (local.get 1)))
"""


def shape_of(
    kind: str, *, slots: int, memories: int, memory_pages: int, page_bytes: int, backing: Backing | None = None
) -> RegionShape:
    """As the pool's arithmetic makes it, but over any page size."""
    area = memory_pages * WASM_PAGE_BYTES
    if kind == "guarded":
        area = -(-area // page_bytes) * page_bytes
    return RegionShape(
        backing=backing or _BACKINGS[page_bytes],
        page_bytes=page_bytes,
        slot_bytes=area * memories,
        slots=slots,
        region_bytes=-(-area * memories * slots // page_bytes) * page_bytes,
        guarded=kind == "guarded",
    )


@dataclass
class Guest:
    """One instance in its slot; `exports` are callable without naming the store."""

    pool: "Pool"
    slot: Slot
    store: wasmtime.Store
    instance: wasmtime.Instance

    def call(self, name: str, *args: int) -> Any:
        """Calls an export; addresses above 2 GiB may be given as they are."""
        function = self.instance.exports(self.store)[name]
        assert isinstance(function, wasmtime.Func)
        return function(self.store, *((arg - (1 << 32) if arg >> 31 else arg) for arg in args))

    @property
    def memory(self) -> wasmtime.Memory:
        """Its first memory."""
        memory = self.instance.exports(self.store)["memory"]
        assert isinstance(memory, wasmtime.Memory)
        return memory

    def close(self) -> None:
        """Ends it and gives its slot back."""
        self.store.close()
        assert self.pool.allocator.deallocate(self.slot)


@dataclass
class Pool:
    """One worker's view. `region` is there for all kinds, and used by the two that put memories into it."""

    kind: str
    region: Region
    table: SlotTable
    allocator: InstanceAllocator
    engine: wasmtime.Engine

    @property
    def in_region(self) -> RegionSlots:
        """The allocator of a kind that uses the region."""
        assert isinstance(self.allocator, RegionSlots)
        return self.allocator

    def store(self) -> wasmtime.Store:
        """One whose guest may run for as long as it likes."""
        store = wasmtime.Store(self.engine)
        store.set_epoch_deadline(1_000_000)
        return store

    def compiled(self, wat: str) -> wasmtime.Module:
        """Of WebAssembly text."""
        return wasmtime.Module(self.engine, wat)

    def start(self, module: wasmtime.Module, workload: int = 1) -> Guest:
        """Instantiates without imports; a slot that could not be used is given back."""
        slot = self.allocator.allocate(workload)
        store = self.store()
        try:
            with self.allocator.initialize(slot):
                instance = wasmtime.Instance(store, module, [])
        except BaseException:
            store.close()
            self.allocator.deallocate(slot)
            raise
        return Guest(self, slot, store, instance)


@contextmanager
def open_pool(
    kind: str,
    *,
    slots: int = 2,
    memories: int = 1,
    memory_pages: int = 4,
    page_bytes: int = 4096,
    ordinary_memory: bool = False,
    strategy: AllocationStrategy = AllocationStrategy.NEXT_AVAILABLE,
) -> Iterator[Pool]:
    """A pool of its own. Ends with a check of the table's invariants.

    `ordinary_memory`: with the arithmetic of `page_bytes`, growth above all, but without pages of that size.
    """
    shape = shape_of(kind, slots=slots, memories=memories, memory_pages=memory_pages, page_bytes=page_bytes)
    limits = ModuleLimits(memories=memories, memory_pages=memory_pages)
    gc.collect()  # NB: an engine keeps its region, and wasmtime's objects refer to each other in circles
    allocator: InstanceAllocator
    reserved = replace(shape, backing=Backing.BASE_PAGES, page_bytes=4096) if ordinary_memory else shape
    with Region.reserve(reserved) as region, SlotTable.create(slots, strategy) as table:
        region.shape = shape
        match kind:
            case "compact":
                allocator = CompactAllocator(region, table, 1, memories=memories, memory_pages=memory_pages)
            case "guarded":
                allocator = GuardedAllocator(region, table, 1, memories=memories, memory_pages=memory_pages)
            case "base-pages":
                component = ComponentLimits(memories=memories)
                allocator = BasePagesAllocator(table, 1, module=limits, component=component)
            case _:
                allocator = OnDemandAllocator(table, 1, memories=memories, memory_pages=memory_pages)
        yield Pool(kind, region, table, allocator, wasmtime.Engine(engine_config(allocator)))
        assert table.native.broken() is None
