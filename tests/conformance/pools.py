"""The four pools that the scripts run in: made as the agent makes them, but over ordinary pages."""

import errno
import gc
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import wasmtime

from wasmpool_agent.allocators import AllocatorKind, InstanceAllocator, allocator_for
from wasmpool_agent.engine import engine_config
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_api.instance_pool import Allocation, AllocationType, Backing, InstancePoolSpec
from wasmpool_api.limits import WASM_PAGE_BYTES, ComponentLimits, InstanceLimits, ModuleLimits
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionShape, region_shape
from wasmpool_api.sizes import BASE_PAGE_BYTES

BASELINE: Final = AllocatorKind.ON_DEMAND
OTHERS: Final = (AllocatorKind.COMPACT, AllocatorKind.GUARDED, AllocatorKind.BASE_PAGES)


@dataclass(frozen=True)
class Sizes:
    """What the pool's limits allow. `slots`: of the whole pool; the others: of one module."""

    slots: int
    memories: int
    memory_pages: int
    tables: int = 1
    table_elements: int = 10_000

    def spec(self, kind: AllocatorKind) -> InstancePoolSpec:
        """A pool that gets this allocator."""
        space = 2 * 1024**3 if kind is AllocatorKind.COMPACT else 6 * 1024**3
        return InstancePoolSpec(
            instance_limits=InstanceLimits(count=self.slots, address_space_size=Quantity(space)),
            allocation=Allocation(
                type=AllocationType.ON_DEMAND if kind is AllocatorKind.ON_DEMAND else AllocationType.POOLING,
                backing=Backing.BASE_PAGES if kind is AllocatorKind.BASE_PAGES else Backing.HUGE_PAGES_2MI,
            ),
            module_limits=ModuleLimits(
                memories=self.memories,
                memory_pages=self.memory_pages,
                tables=self.tables,
                table_elements=self.table_elements,
            ),
            component_limits=ComponentLimits(core_instances=1, memories=self.memories, tables=self.tables),
        )


SIZES: Final = Sizes(slots=512, memories=10, memory_pages=1024, tables=16, table_elements=100_000)
"""Enough for every script: one keeps 493 instances, one has 9 memories, one grows a memory to 803 pages."""

FEW_PAGES: Final = Sizes(slots=192, memories=3, memory_pages=8, tables=16, table_elements=100_000)
"""For scripts in which memories grow; all bytes of the slots take memory. What needs more is refused by all alike."""


@dataclass
class Pool:
    """One allocator, with the engine that uses it."""

    kind: AllocatorKind
    sizes: Sizes
    table: SlotTable
    region: Region
    allocator: InstanceAllocator
    engine: wasmtime.Engine

    def store(self) -> wasmtime.Store:
        """One whose guests may run for as long as they like.

        Its limits are those that the worker sets, but for how many instances, memories and tables there may be.
        """
        store = wasmtime.Store(self.engine)
        store.set_epoch_deadline(1_000_000)
        store.set_limits(
            memory_size=self.sizes.memory_pages * WASM_PAGE_BYTES, table_elements=self.sizes.table_elements
        )
        return store


def first_dirty(region: Region) -> int | None:
    """Offset of the first byte that is not zero. NB: reads the pages that exist; reading a hole would make them."""
    at = 0
    while True:
        try:
            at = os.lseek(region.fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but holes from here on
                return None
            raise
        end = os.lseek(region.fd, at, os.SEEK_HOLE)
        found = region.native.first_dirty(at, end - at)
        if found is not None:
            return found
        at = end


def _over_ordinary_pages(shape: RegionShape, sizes: Sizes, page_bytes: int) -> RegionShape:
    if page_bytes != BASE_PAGE_BYTES:
        area = -(-sizes.memory_pages * WASM_PAGE_BYTES // page_bytes) * page_bytes
        shape = replace(shape, slot_bytes=area * sizes.memories, region_bytes=area * sizes.memories * sizes.slots)
    return replace(shape, backing=Backing.BASE_PAGES, page_bytes=BASE_PAGE_BYTES)


@contextmanager
def open_pool(kind: AllocatorKind, sizes: Sizes, page_bytes: int = BASE_PAGE_BYTES) -> Generator[Pool]:
    """A pool of its own. At its end all slots must be free, clean and accounted for.

    `page_bytes`: what guarded slots count in. From more than an ordinary page on, all of the region takes memory.
    """
    spec = sizes.spec(kind)
    shape = region_shape(spec)
    stand_in = _over_ordinary_pages(shape, sizes, page_bytes)
    gc.collect()  # NB: an engine keeps its region, and wasmtime's objects refer to each other in circles
    with Region.reserve(stand_in) as region, SlotTable.create(sizes.slots) as table:
        region.shape = replace(stand_in, backing=shape.backing, page_bytes=page_bytes)
        allocator = allocator_for(spec, region, table, worker_id=1)
        yield Pool(kind, sizes, table, region, allocator, wasmtime.Engine(engine_config(allocator)))
        assert table.native.broken() is None
        assert table.counts().free == sizes.slots
        if kind in {AllocatorKind.COMPACT, AllocatorKind.GUARDED}:
            assert first_dirty(region) is None
