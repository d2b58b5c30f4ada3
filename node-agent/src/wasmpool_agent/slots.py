"""The slot table: which worker holds which slot, shared by all processes of the agent."""

import os
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Self

from wasmpool_agent import _native
from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.region import Region
from wasmpool_api.instance_pool import AllocationStrategy


class SlotState(IntEnum):
    """As the C extension numbers them. UNKNOWN: given back without a proof that it was wiped; wiped before use."""

    FREE = 0
    USED = 1
    WIPING = 2
    UNKNOWN = 3
    QUARANTINED = 4


_STRATEGY = {
    AllocationStrategy.NEXT_AVAILABLE: 0,
    AllocationStrategy.RANDOM: 1,
    AllocationStrategy.MODULE_AFFINITY: 2,
}


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """How many slots are in which state. Invariant: the four add up to the table's slots.

    `wiping` includes those that will be wiped before their next use.
    """

    free: int
    used: int
    wiping: int
    quarantined: int

    @property
    def total(self) -> int:
        """All slots."""
        return self.free + self.used + self.wiping + self.quarantined


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One row. `worker` and `workload` mean something while it is USED or WIPING; `generation` counts its tenants."""

    state: SlotState
    worker: int
    generation: int
    workload: int
    dirty_bytes: int
    module: int


class SlotTable:
    """The table, mapped in this process, and its descriptor, which it owns.

    A process that dies inside a call harms nobody: the next caller puts the table in order first. A process that is
    *stopped* inside a call (about a microsecond) makes the others' calls fail with TimeoutError after 10 s.
    """

    def __init__(self, fd: int, native: _native.SlotTable, strategy: AllocationStrategy) -> None:
        """Not for callers: `create` makes a table, `attach` maps it in another process."""
        self._fd = fd
        self.native = native
        self._strategy = _STRATEGY[strategy]
        self._taken = self._affine = self._exhausted = 0

    @classmethod
    def create(
        cls, slots: int, strategy: AllocationStrategy = AllocationStrategy.NEXT_AVAILABLE, *, seed: int = 1
    ) -> Self:
        """A table of free, clean slots. `seed` decides the order that Random takes. Raises OSError."""
        if not 0 < slots <= _native.SLOTS_MAX:
            raise ValueError(f"instanceLimits.count is {slots}, 1 to {_native.SLOTS_MAX} is allowed")
        return cls.attach(_native.create_slot_table(slots, seed), strategy)

    @classmethod
    def attach(cls, fd: int, strategy: AllocationStrategy = AllocationStrategy.NEXT_AVAILABLE) -> Self:
        """Maps the table that another process created. Takes over the descriptor. Raises OSError."""
        return cls(fd, _native.SlotTable(fd), strategy)

    @property
    def fd(self) -> int:
        """The memfd; valid until `close`."""
        return self._fd

    @property
    def slots(self) -> int:
        """How many slots there are, in whatever state."""
        return self.native.slots

    def take(self, worker_id: int, workload_id: int, module: int = 0) -> int | None:
        """A slot for the worker, or None if none is free. `module`: equal numbers are the same, for ModuleAffinity."""
        taken = self.native.take(worker_id, workload_id, module, self._strategy)
        if taken is None:
            self._exhausted += 1
            return None
        index, affine = taken
        self._taken += 1
        self._affine += affine
        return index

    def taken(self) -> AllocationCounts:
        """By this process."""
        return AllocationCounts(taken=self._taken, affine=self._affine, exhausted=self._exhausted)

    def release(self, index: int, worker_id: int | None = None) -> None:
        """Gives a slot back after its wipe; without one it is UNKNOWN. PermissionError: the worker holds it not."""
        if worker_id is None:
            worker_id = self.record(index).worker
        self.native.release(index, worker_id)

    def quarantine(self, index: int) -> None:
        """Takes the slot out of use for as long as the table lives. Its holder, if any, may go on to its end."""
        self.native.quarantine(index)

    def counts(self) -> SlotCounts:
        """One consistent count."""
        free, used, wiping, unknown, quarantined = self.native.counts()
        return SlotCounts(free=free, used=used, wiping=wiping + unknown, quarantined=quarantined)

    def owned_by(self, worker_id: int) -> list[int]:
        """The slots that the worker holds, in ascending order."""
        return self.native.owned_by(worker_id)

    def record(self, index: int) -> SlotRecord:
        """The slot's row now."""
        state, worker, generation, workload, dirty_bytes, module = self.native.record(index)
        return SlotRecord(SlotState(state), worker, generation, workload, dirty_bytes, module)

    def reclaim(self, worker_id: int, region: Region) -> int:
        """Wipes whole, proves clean and frees all slots of a dead worker, and counts them; others are quarantined.

        NB: the worker must have been waited for. A worker that still lives would go on writing into slots of others.
        Slots in which no memory was made are freed without a wipe.
        """
        return self.native.reclaim(worker_id, region.native, region.shape.slot_bytes)

    def close(self) -> None:
        """Unmaps it here, as soon as no engine uses it any more; may be called again."""
        self.native.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
