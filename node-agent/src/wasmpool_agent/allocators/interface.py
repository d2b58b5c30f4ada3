"""InstanceAllocator: the five methods of Wasmtime's RFC "Add instance allocator support", as a Protocol.

An instance's life, for whoever uses one:

    slot = allocator.allocate(workload_id)          # before the store
    try:
        store = wasmtime.Store(engine)
        with allocator.initialize(slot):            # on the thread that instantiates, around nothing else
            instance = pre.instantiate(store)
        ...
        store.close()                               # the memories end here, and are wiped
    finally:
        allocator.deallocate(slot)

NB: an asynchronous instantiation makes its memories in the first poll: `initialize` goes around that one, and not
around later ones, for another guest may be instantiated between them.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import msgspec
import wasmtime

from wasmpool_agent.wasmtime_private import Tunables
from wasmpool_api.wasm_workload import ModuleNeeds


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A slot that an instance holds, from allocate to deallocate. `index`: which of the region's."""

    index: int
    workload_id: int


class InstanceAllocator(Protocol):
    """Where instances get their memory from. One allocator serves one engine in one worker process."""

    def validate_module(self, needs: ModuleNeeds) -> None:
        """Raises ModuleRefusedError unless an instance of such a module fits a slot, however empty the pool is.

        Promises: a module that passes is never refused by `initialize` for its size or its features, and one that does
        not pass is refused here, before it is compiled. Has no effects.
        """
        ...

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """The settings that compiled code must have to run in this allocator's memory.

        Promises: with them, an access beyond the end of a memory traps, at every byte. Pure; the same for all workers
        of a pool, so code is compiled once.
        """
        ...

    def install(self, config: wasmtime.Config) -> None:
        """Makes an engine of this configuration take its memory from here. (In the RFC: `with_allocation_strategy`.)

        Promises: the engine may outlive the allocator's Python object.
        """
        ...

    def allocate(self, workload_id: int, module: int = 0) -> Slot:
        """Takes a slot for one instance. `module`: equal numbers mean equal modules, for ModuleAffinity.

        Promises: no other live instance, in whatever process, holds that slot; all of its bytes are zero by the time a
        memory is made in it; a workload with a quota (SlotTable.set_quota) never has more slots than that allows,
        counted over all processes, and borrows none that another has reserved. A slot counts until its deallocate.
        Raises, at once, NoFreeSlotError when all are taken, and QuotaReachedError (which is one) when the workload may
        have no more.
        """
        ...

    def initialize(self, slot: Slot) -> AbstractContextManager[None]:
        """While it is entered, what this thread instantiates gets its memories in the slot.

        Promises: no memory is made in a slot that the worker does not hold, none beyond the slot's end, and none of an
        instance outside of its slot: each of these is an error from the instantiation, never a memory elsewhere.
        """
        ...

    def deallocate(self, slot: Slot) -> bool:
        """Gives the slot back, after the store is closed. False: its memories still live, and the last one will do it.

        Promises: another tenant gets the slot only after every byte that this one could write is zero again. Call it
        exactly once for each `allocate`, also when the instantiation failed; a second time raises PermissionError.
        """
        ...
