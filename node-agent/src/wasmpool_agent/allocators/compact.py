"""Compact slots: side by side in the region, with an explicit check before every access.

The least address space (a slot takes what it holds), and slots of any multiple of 64 KiB. Nothing between two slots
faults: exactness rests on compiled code that compares with the live length, which is what these tunables make it do.
Any guard, or a reservation with a base that may not move, would let it skip the check up to the end of a huge page.
"""

from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import Tunables


def compact_tunables(_tunables: Tunables) -> Tunables:
    """No address space is promised, so every access is checked. NB: copy-on-write images abort with a creator."""
    return Tunables(
        memory_reservation=0,
        memory_guard_size=0,
        memory_reservation_for_growth=0,
        memory_may_move=False,
        memory_init_cow=False,
    )


class CompactAllocator(RegionSlots):
    """InstanceAllocator over compact slots."""

    def __init__(self, region: Region, table: SlotTable, worker_id: int, *, memories: int, memory_pages: int) -> None:
        super().__init__(region, table, worker_id, memories=memories, memory_pages=memory_pages, guarded=False)

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """See InstanceAllocator."""
        return compact_tunables(tunables)
