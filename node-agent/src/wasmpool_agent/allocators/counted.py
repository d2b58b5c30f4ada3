"""Slots that are only counted: the memory is Wasmtime's, the right to have some comes from the slot table."""

from contextlib import AbstractContextManager, nullcontext

from wasmpool_agent.allocators.interface import Slot
from wasmpool_agent.allocators.region_slots import refuse_unless_it_fits, take_slot
from wasmpool_agent.slots import SlotTable
from wasmpool_api.wasm_workload import ModuleNeeds


class CountedSlots:
    """What base pages and on-demand have in common. NB: Wasmtime's own wipe is what keeps tenants apart here."""

    def __init__(self, table: SlotTable, worker_id: int, *, memories: int, memory_pages: int) -> None:
        self._table = table
        self._worker_id = worker_id
        self._memories = memories
        self._memory_pages = memory_pages

    def validate_module(self, needs: ModuleNeeds) -> None:
        """See InstanceAllocator."""
        refuse_unless_it_fits(needs, self._memories, self._memory_pages)

    def allocate(self, workload_id: int, module: int = 0) -> Slot:
        """See InstanceAllocator."""
        return take_slot(self._table, self._worker_id, workload_id, module)

    def initialize(self, slot: Slot) -> AbstractContextManager[None]:
        """See InstanceAllocator. Wasmtime chooses the place."""
        del slot
        return nullcontext()

    def deallocate(self, slot: Slot) -> bool:
        """See InstanceAllocator. NB: the caller must have closed the store; here nobody can tell."""
        self._table.release(slot.index, self._worker_id)
        return True
