"""Guarded slots: 4 GiB and a guard of address space each, so that compiled code needs no checks.

A memory begins so that what it starts with ends exactly where the slot's huge pages end; right behind it nothing is
mapped. That makes traps exact at 64 KiB on pages of 2 MiB, with nothing to map or unmap for an instance that does not
grow. Growth is described, with a picture, in native/creator.h.
"""

from wasmpool_agent import _native
from wasmpool_agent.allocators.process_room import STACK_MAPPINGS, ProcessRoom
from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import Tunables
from wasmpool_api.sizes import BASE_PAGE_BYTES


def guarded_tunables(_tunables: Tunables) -> Tunables:
    """All that a 32-bit index reaches is reserved. NB: copy-on-write images abort with a creator."""
    return Tunables(
        memory_reservation=_native.GUARDED_RESERVATION_BYTES,
        memory_guard_size=_native.GUARDED_GUARD_BYTES,
        memory_reservation_for_growth=0,
        memory_may_move=False,
        memory_init_cow=False,
    )


def mappings_of(area_bytes: int, page_bytes: int) -> int:
    """Pure: what one memory takes at most. Its pages, what it has grown by, what faults behind its end.

    NB: mappings of huge pages never become one, though they lie side by side: there is one for each page of growth. A
    tail of ordinary pages is there only while one of the huge pages is not.
    """
    return 2 + (area_bytes // page_bytes if page_bytes > BASE_PAGE_BYTES else 1)


def refuse_without_room(slots: int, memories: int, area_bytes: int, page_bytes: int, room: ProcessRoom) -> None:
    """Pure. Raises EngineRefusedError if all slots in use may take more than the process has, and so end it."""
    way_out = "lower count, or set addressSpaceSize below 4Gi for compact slots"
    stride = area_bytes + _native.GUARDED_RESERVATION_BYTES + _native.GUARDED_GUARD_BYTES
    if (arena := slots * memories * stride) > room.address_space:
        raise EngineRefusedError(
            f"instanceLimits: count {slots} with {memories} memories of {stride} bytes of address space each "
            f"takes {arena} bytes, {room.address_space} are to be had; {way_out}"
        )
    mappings = STACK_MAPPINGS + memories * mappings_of(area_bytes, page_bytes)
    if slots > (allowed := room.slots_of(mappings)):
        raise EngineRefusedError(
            f"instanceLimits: count {slots} with {memories} memories of {area_bytes} bytes each may take "
            f"{slots * mappings} mappings beside the program's, vm.max_map_count is {room.mappings}: at most {allowed} "
            f"slots; {way_out}, or raise vm.max_map_count"
        )


class GuardedAllocator(RegionSlots):
    """InstanceAllocator over guarded slots."""

    def __init__(self, region: Region, table: SlotTable, worker_id: int, *, memories: int, memory_pages: int) -> None:
        areas = max(memories, 1)
        refuse_without_room(
            table.slots, areas, region.shape.slot_bytes // areas, region.shape.page_bytes, ProcessRoom.here()
        )
        super().__init__(region, table, worker_id, memories=memories, memory_pages=memory_pages, guarded=True)

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """See InstanceAllocator."""
        return guarded_tunables(tunables)
