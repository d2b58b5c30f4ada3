"""Guarded slots: 4 GiB and a guard of address space each, so that compiled code needs no checks.

A memory begins so that what it starts with ends exactly where the slot's huge pages end; right behind it nothing is
mapped. That makes traps exact at 64 KiB on pages of 2 MiB, with nothing to map or unmap for an instance that does not
grow. Growth is described, with a picture, in native/creator.h.
"""

from wasmpool_agent import _native
from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import Tunables

_LARGEST_ARENA_BYTES = 85 * 1024**4
"""Two thirds of 128 TiB lie in one piece below a position-independent program: 21,727 slots were had, not 21,728."""


def guarded_tunables(_tunables: Tunables) -> Tunables:
    """All that a 32-bit index reaches is reserved. NB: copy-on-write images abort with a creator."""
    return Tunables(
        memory_reservation=_native.GUARDED_RESERVATION_BYTES,
        memory_guard_size=_native.GUARDED_GUARD_BYTES,
        memory_reservation_for_growth=0,
        memory_may_move=False,
        memory_init_cow=False,
    )


class GuardedAllocator(RegionSlots):
    """InstanceAllocator over guarded slots."""

    def __init__(self, region: Region, table: SlotTable, worker_id: int, *, memories: int, memory_pages: int) -> None:
        memories = max(memories, 1)
        stride = region.shape.slot_bytes // memories + _native.GUARDED_RESERVATION_BYTES + _native.GUARDED_GUARD_BYTES
        if (arena := table.slots * memories * stride) > _LARGEST_ARENA_BYTES:
            raise EngineRefusedError(
                f"instanceLimits: count {table.slots} with {memories} memories of {stride} bytes of address space each "
                f"takes {arena} bytes, {_LARGEST_ARENA_BYTES} are to be had; "
                "lower count, or set addressSpaceSize below 4Gi for compact slots"
            )
        super().__init__(region, table, worker_id, memories=memories, memory_pages=memory_pages, guarded=True)

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """See InstanceAllocator."""
        return guarded_tunables(tunables)
