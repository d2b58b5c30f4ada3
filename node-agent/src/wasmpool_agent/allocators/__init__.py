"""The instance allocators, all behind the five methods of Wasmtime's RFC (see `interface`)."""

from enum import StrEnum

import msgspec

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.allocators.base_pages import BasePagesAllocator, base_pages_tunables
from wasmpool_agent.allocators.compact import CompactAllocator, compact_tunables
from wasmpool_agent.allocators.guarded import GuardedAllocator, guarded_tunables
from wasmpool_agent.allocators.interface import InstanceAllocator, Slot
from wasmpool_agent.allocators.on_demand import OnDemandAllocator, on_demand_tunables
from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_agent.refusals import EngineRefusedError, ModuleRefusedError, NoFreeSlotError, QuotaReachedError
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import Tunables
from wasmpool_api.instance_pool import AllocationType, Backing, InstancePoolSpec

__all__ = [
    "AllocatorKind",
    "EngineRefusedError",
    "InstanceAllocator",
    "ModuleRefusedError",
    "NoFreeSlotError",
    "QuotaReachedError",
    "Slot",
    "allocator_for",
    "allocator_kind",
    "counts_of",
    "tunables_for",
]


class AllocatorKind(StrEnum):
    """Which of the allocators; part of the key of compiled code, for each needs code of its own."""

    ON_DEMAND = "on-demand"
    COMPACT = "compact"
    GUARDED = "guarded"
    BASE_PAGES = "base-pages"


def allocator_kind(spec: InstancePoolSpec, backing: Backing | None = None) -> AllocatorKind:
    """`backing`: the region's, where it is not what the spec asks for (fallback)."""
    if spec.allocation.type is AllocationType.ON_DEMAND:
        return AllocatorKind.ON_DEMAND
    if (backing or spec.allocation.backing) is Backing.BASE_PAGES:
        return AllocatorKind.BASE_PAGES
    return AllocatorKind.GUARDED if spec.instance_limits.guarded else AllocatorKind.COMPACT


_TUNABLES = {
    AllocatorKind.ON_DEMAND: on_demand_tunables,
    AllocatorKind.COMPACT: compact_tunables,
    AllocatorKind.GUARDED: guarded_tunables,
    AllocatorKind.BASE_PAGES: base_pages_tunables,
}


def tunables_for(kind: AllocatorKind, tunables: Tunables) -> Tunables:
    """What `adjust_tunables` of that allocator says, without making one: a compiler has no region."""
    return _TUNABLES[kind](tunables)


def counts_of(allocator: InstanceAllocator, table: SlotTable) -> AllocationCounts:
    """What the allocator of this process has done, and what it took from its table."""
    counts = table.taken()
    if not isinstance(allocator, RegionSlots):
        return counts
    stats = allocator.stats()
    return msgspec.structs.replace(
        counts, memories_refused=stats.refused, grown=stats.grown, grow_refused=stats.grow_refused
    )


def allocator_for(spec: InstancePoolSpec, region: Region, table: SlotTable, worker_id: int) -> InstanceAllocator:
    """The allocator that the pool asks for, over the region as it is. Raises EngineRefusedError."""
    limits = spec.module_limits
    kind = allocator_kind(spec, region.shape.backing)
    if kind is AllocatorKind.BASE_PAGES:
        return BasePagesAllocator(table, worker_id, module=limits, component=spec.component_limits)
    if kind is AllocatorKind.ON_DEMAND:
        memories = max(limits.memories, spec.component_limits.memories)
        return OnDemandAllocator(table, worker_id, memories=memories, memory_pages=limits.memory_pages)
    if table.slots * region.shape.slot_bytes > region.shape.region_bytes:
        raise EngineRefusedError(
            f"{table.slots} slots of {region.shape.slot_bytes} bytes are more than the region's "
            f"{region.shape.region_bytes} bytes"
        )
    memories = limits.memories
    make = GuardedAllocator if kind is AllocatorKind.GUARDED else CompactAllocator
    return make(region, table, worker_id, memories=memories, memory_pages=limits.memory_pages)
