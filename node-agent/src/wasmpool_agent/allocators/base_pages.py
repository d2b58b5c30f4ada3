"""Base pages: Wasmtime's own pooling allocator, on ordinary memory, with copy-on-write images.

Slots are dealt by the same table as everywhere, so any worker may come to hold all of them: each worker's pool has room
for all, which costs address space and no memory.
"""

from typing import Final

import wasmtime

from wasmpool_agent.allocators.counted import CountedSlots
from wasmpool_agent.allocators.process_room import STACK_MAPPINGS, ProcessRoom
from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import PoolingOptions, Tunables, install_pooling
from wasmpool_api.limits import MAX_MEMORY_PAGES, WASM_PAGE_BYTES, ComponentLimits, ModuleLimits

_RESERVATION_BYTES: Final = 4 * 1024**3
_GUARD_BYTES: Final = 32 * 1024**2
_KEEP_RESIDENT_BYTES: Final = 64 * 1024
_WARM_SLOTS: Final = 100
_MAPPINGS_PER_MEMORY: Final = 4
"""Of one that has been used once, at most. A stack's are made with the engine."""


def base_pages_tunables(_tunables: Tunables) -> Tunables:
    """Guards all around, checks elided, images mapped copy-on-write."""
    return Tunables(
        memory_reservation=_RESERVATION_BYTES,
        memory_guard_size=_GUARD_BYTES,
        memory_reservation_for_growth=0,
        memory_may_move=False,
        memory_init_cow=True,
    )


def pooling_options(slots: int, module: ModuleLimits, component: ComponentLimits, room: ProcessRoom) -> PoolingOptions:
    """Pure. Raises EngineRefusedError for what would abort the process when the engine is made."""
    memories_per_slot = max(module.memories, component.memories)
    address_space = slots * memories_per_slot * (_RESERVATION_BYTES + _GUARD_BYTES)
    if address_space > room.address_space:
        raise EngineRefusedError(
            f"instanceLimits.count {slots} with {memories_per_slot} memories each takes {address_space} bytes "
            f"of address space, {room.address_space} are to be had"
        )
    mappings = STACK_MAPPINGS + memories_per_slot * _MAPPINGS_PER_MEMORY
    if slots > (allowed := room.slots_of(mappings)):
        raise EngineRefusedError(
            f"instanceLimits.count {slots} on base pages may take {slots * mappings} mappings beside the program's, "
            f"vm.max_map_count is {room.mappings}: at most {allowed} slots"
        )
    if not 0 <= module.memory_pages <= MAX_MEMORY_PAGES:
        raise EngineRefusedError(
            f"moduleLimits.memoryPages is {module.memory_pages}, 0 to {MAX_MEMORY_PAGES} is allowed"
        )
    return PoolingOptions(
        core_instances=slots * max(1, component.core_instances),
        component_instances=slots,
        memories=slots * memories_per_slot,
        tables=slots * max(module.tables, component.tables),
        stacks=slots,
        memory_bytes=module.memory_pages * WASM_PAGE_BYTES,
        memories_per_module=module.memories,
        tables_per_module=module.tables,
        table_elements=module.table_elements,
        keep_resident_bytes=_KEEP_RESIDENT_BYTES,
        table_keep_resident_bytes=_KEEP_RESIDENT_BYTES,
        warm_slots=min(slots, _WARM_SLOTS),
    )


class BasePagesAllocator(CountedSlots):
    """InstanceAllocator over Wasmtime's pool. Raises EngineRefusedError for what no process can have."""

    def __init__(self, table: SlotTable, worker_id: int, *, module: ModuleLimits, component: ComponentLimits) -> None:
        memories = max(module.memories, component.memories)
        super().__init__(table, worker_id, memories=memories, memory_pages=module.memory_pages)
        self._options = pooling_options(table.slots, module, component, ProcessRoom.here())

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """See InstanceAllocator."""
        return base_pages_tunables(tunables)

    def install(self, config: wasmtime.Config) -> None:
        """See InstanceAllocator."""
        install_pooling(config, self._options)
