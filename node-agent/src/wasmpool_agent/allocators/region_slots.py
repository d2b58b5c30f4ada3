"""Slots in the region: what compact and guarded slots have in common."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import wasmtime

from wasmpool_agent import _native
from wasmpool_agent.allocators.interface import Slot
from wasmpool_agent.refusals import EngineRefusedError, ModuleRefusedError, NoFreeSlotError, QuotaReachedError
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import error_new_address, install_memory_creator, install_stack_creator
from wasmpool_api.limits import WASM_PAGE_BYTES
from wasmpool_api.wasm import UNSUPPORTED
from wasmpool_api.wasm_workload import ModuleNeeds

_IDLE_STACKS: Final = 16
"""Kept mapped for the next asynchronous guest: a few KiB each, of which a guest that recurses deeply makes 512."""


@dataclass(frozen=True, slots=True)
class CreatorStats:
    """Since the allocator was made. `refused`: memories; `deferred`: slots that were given back by a late store."""

    memories: int
    refused: int
    grown: int
    grow_refused: int
    deferred: int


def refuse_unless_it_fits(needs: ModuleNeeds, memories: int, memory_pages: int) -> None:
    """Raises ModuleRefusedError with every reason why a slot of so many memories of so many pages can't hold it."""

    def problems() -> Iterator[str]:
        for feature in needs.features:
            if feature in UNSUPPORTED:
                yield f"the module needs {feature}, which this agent does not support"
        if needs.memories > memories:
            yield f"memories: the module needs {needs.memories}, a slot holds {memories}"
        if needs.memory_pages > memory_pages:
            yield f"memoryPages: the module needs {needs.memory_pages}, a slot's memory has {memory_pages}"

    if found := tuple(problems()):
        raise ModuleRefusedError(found)


def take_slot(table: SlotTable, worker_id: int, workload_id: int, module: int) -> Slot:
    """Raises NoFreeSlotError, or QuotaReachedError, which is one."""
    taken = table.take(worker_id, workload_id, module)
    if isinstance(taken, int):
        return Slot(taken, workload_id)
    if taken is None:
        raise NoFreeSlotError(table.counts())
    raise QuotaReachedError(taken)


class RegionSlots:
    """Takes slots from the table and puts memories into them. `memory_pages`: what one memory may grow to."""

    def __init__(
        self, region: Region, table: SlotTable, worker_id: int, *, memories: int, memory_pages: int, guarded: bool
    ) -> None:
        if memories < 1 or memory_pages < 1:
            raise EngineRefusedError(
                f"moduleLimits: memories {memories}, memoryPages {memory_pages}: a slot needs 1 or more of each"
            )
        shape = region.shape
        self._region = region
        self._table = table
        self._worker_id = worker_id
        self._memories = memories
        self._memory_pages = memory_pages
        try:
            self._creator = _native.MemoryCreator(
                region.native,
                table.native,
                worker=worker_id,
                memories=memories,
                area_bytes=shape.slot_bytes // memories,
                memory_bytes=memory_pages * WASM_PAGE_BYTES,
                page_bytes=shape.page_bytes,
                guarded=guarded,
                error_new=error_new_address(),
            )
        except OSError as error:
            raise EngineRefusedError(
                f"{table.slots} {'guarded' if guarded else 'compact'} slots of {memories} memories "
                f"of {memory_pages} pages in a region of {shape.region_bytes} bytes: {error.strerror}"
            ) from error

        self._stacks = _native.StackCreator(idle_max=_IDLE_STACKS, error_new=error_new_address())

    def validate_module(self, needs: ModuleNeeds) -> None:
        """See InstanceAllocator."""
        refuse_unless_it_fits(needs, self._memories, self._memory_pages)

    def install(self, config: wasmtime.Config) -> None:
        """See InstanceAllocator."""
        install_memory_creator(config, self._creator)
        install_stack_creator(config, self._stacks)

    def allocate(self, workload_id: int, module: int = 0) -> Slot:
        """See InstanceAllocator."""
        return take_slot(self._table, self._worker_id, workload_id, module)

    def initialize(self, slot: Slot) -> AbstractContextManager[None]:
        """See InstanceAllocator."""
        return self._creator.placement(slot.index)

    def deallocate(self, slot: Slot) -> bool:
        """See InstanceAllocator."""
        return self._creator.finish(slot.index)

    def live_memories(self, slot: Slot) -> int:
        """How many memories live in the slot now."""
        return self._creator.live(slot.index)

    def stats(self) -> CreatorStats:
        """What the creator has counted."""
        return CreatorStats(*self._creator.stats())
