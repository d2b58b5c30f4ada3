"""The slot table: which worker holds which slot, shared by all processes of the agent."""

import errno
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


@dataclass(frozen=True, slots=True)
class Quota:
    """What a workload may use, and what it does, at one moment. Slots count from their take until they are given back.

    `reserved`: slots that are its own; `burst`: how many it may borrow beyond them; `used`: how many it holds.
    `borrowed` and `unreserved` are of the whole table: slots held beyond what is reserved, also by workloads without a
    quota, and usable slots that nobody has reserved.
    """

    workload_id: int
    reserved: int
    burst: int
    used: int
    borrowed: int
    unreserved: int


class QuotaRefusedError(Exception):
    """The table can't keep such a promise; the message says how many slots are wanted and how many there are."""


class SlotTable:
    """The table, mapped in this process, and its descriptor, which it owns.

    Workloads with a quota are bounded by it in all processes at once: none holds more than `reserved + burst` slots,
    and none borrows a slot that another has reserved. NB: that what is reserved can be had at any time holds while all
    workloads have quotas; those without take what is free, and the others can borrow the less.

    A process that dies inside a call harms nobody: the next caller puts the table in order first. A process that is
    *stopped* inside a call (about a microsecond) makes the others' calls fail with TimeoutError after 10 s.
    """

    def __init__(self, fd: int, native: _native.SlotTable, strategy: AllocationStrategy) -> None:
        """Not for callers: `create` makes a table, `attach` maps it in another process."""
        self._fd = fd
        self.native = native
        self._strategy = _STRATEGY[strategy]
        self._taken = self._affine = self._exhausted = self._quota_reached = 0

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

    def take(self, worker_id: int, workload_id: int, module: int = 0) -> int | Quota | None:
        """A slot for the worker; None if none is free; the workload's quota, if that allows it no more now.

        `module`: equal numbers are the same, for ModuleAffinity.
        """
        taken = self.native.take(worker_id, workload_id, module, self._strategy)
        if taken is None:
            self._exhausted += 1
            return None
        if len(taken) != 2:
            self._quota_reached += 1
            return Quota(workload_id, *taken)
        index, affine = taken
        self._taken += 1
        self._affine += affine
        return index

    def set_quota(self, workload_id: int, reserved: int, burst: int) -> None:
        """Bounds a workload from now on, or changes its bounds; slots that it holds already count, and stay its own.

        Others may hold, borrowed, what it newly reserves: that can be had as they give it back. Raises
        QuotaRefusedError if `reserved` grows beyond what nobody else has reserved, or beyond the quotas there can be;
        the former bounds are in force then. NB: shrink one before another grows into it.
        """
        try:
            self.native.set_quota(workload_id, reserved, burst)
        except OSError as error:
            match error.errno:
                case errno.ENOSPC:
                    counts = self.counts()
                    raise QuotaRefusedError(
                        f"{reserved} slots can't be reserved: of {counts.total - counts.quarantined} usable ones, "
                        f"the others leave too few"
                    ) from error
                case errno.EDQUOT:
                    raise QuotaRefusedError(
                        f"{_native.QUOTAS_MAX} workloads have quotas, no more is possible"
                    ) from error
                case _:
                    raise

    def clear_quota(self, workload_id: int) -> None:
        """Takes the bounds away; slots that the workload holds count as borrowed then. Nothing if it has none."""
        self.native.clear_quota(workload_id)

    def quota(self, workload_id: int) -> Quota | None:
        """The workload's, or None if nothing bounds it here."""
        found = self.native.quota(workload_id)
        return None if found is None else Quota(workload_id, *found)

    def used_by(self, workload_id: int) -> int:
        """How many slots the workload holds, in all processes, with a quota or without."""
        return self.native.used_by(workload_id)

    def taken(self) -> AllocationCounts:
        """By this process."""
        return AllocationCounts(
            taken=self._taken, affine=self._affine, exhausted=self._exhausted, quota_reached=self._quota_reached
        )

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
