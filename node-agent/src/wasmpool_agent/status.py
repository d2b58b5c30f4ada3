"""The status of an InstancePoolNode: how it is put together, and when it is worth a write. Pure.

Edges (a state, a reason, a reservation, an index that is done) are written at once: a few in a row, and one a second
where they go on; but what is only on the way to something else is not written unless it lasts. Live figures (slots
used, restarts) are metrics: they are written when `used` has moved by 5 % of capacity, or once a minute.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from wasmpool_agent.status_budget import within_budget
from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, Backing
from wasmpool_api.instance_pool_node import (
    AgentInfo,
    InstancePoolNodeStatus,
    NodeMemory,
    NodeSlots,
    NodeWorkload,
    WorkloadState,
)
from wasmpool_api.meta import Condition
from wasmpool_api.quantities import Quantity
from wasmpool_api.reasons import Progress
from wasmpool_api.region import RegionShape

EDGE_SECONDS: Final = 1.0
EDGES_AT_ONCE: Final = 6.0
"""Of a workload that comes alone, all: what it waits for at each is somebody who reads the status."""
FIGURES_SECONDS: Final = 60.0
PASSING_SECONDS: Final = 0.5
"""What lasts no longer is not written: each write costs the API server as much, and is read by all operators."""
_PASSING: Final[frozenset[str]] = frozenset(Progress)
USED_STEP_PERCENT: Final = 5
MESSAGE_MAX_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition says now. `truth`: True, False, or None for unknown."""

    type: str
    truth: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the slot table, and the sum of the claims' reservations."""

    capacity: int
    used: int
    quarantined: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Written:
    """The status that the API server has, and when it was written (monotonic seconds).

    `credit`: how many edges more could be written right then.
    """

    status: InstancePoolNodeStatus
    at: float
    credit: float = EDGES_AT_ONCE - 1

    def credit_at(self, now: float, edge_seconds: float = EDGE_SECONDS) -> float:
        """It grows by one in each `edge_seconds`."""
        return min(EDGES_AT_ONCE, self.credit + (now - self.at) / edge_seconds)


def written_now(
    before: Written | None, status: InstancePoolNodeStatus, now: float, *, edge_seconds: float = EDGE_SECONDS
) -> Written:
    """What is remembered of a write."""
    credit = before.credit_at(now, edge_seconds) if before is not None else EDGES_AT_ONCE
    return Written(status, now, max(0.0, credit - 1))


def conditions(
    before: Sequence[Condition], findings: Sequence[Finding], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """As metav1 has them: the time changes with the status alone."""
    known = {condition.type: condition for condition in before}
    result: list[Condition] = []
    for finding in findings:
        status = "Unknown" if finding.truth is None else str(finding.truth)
        old = known.get(finding.type)
        kept = old.last_transition_time if old is not None and old.status == status else ""
        result.append(
            Condition(
                type=finding.type,
                status=status,
                reason=finding.reason,
                message=_shortened(finding.message),
                last_transition_time=kept or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                observed_generation=generation,
            )
        )
    return tuple(result)


def node_slots(counts: Counts) -> NodeSlots:
    """Invariant: allocatable = capacity - quarantined, and free = allocatable - reserved."""
    allocatable = counts.capacity - counts.quarantined
    return NodeSlots(
        capacity=counts.capacity,
        allocatable=allocatable,
        reserved=counts.reserved,
        used=counts.used,
        free=allocatable - counts.reserved,
        quarantined=counts.quarantined,
    )


def node_memory(shape: RegionShape) -> NodeMemory:
    """The shape that the region really has."""
    resource = HUGE_PAGE_RESOURCE.get(shape.backing)
    size = resource.removeprefix("hugepages-") if resource is not None else str(Quantity(shape.page_bytes))
    return NodeMemory(
        backing=Backing(shape.backing).value,
        page_size=size,
        slot_bytes=shape.slot_bytes,
        region_bytes=shape.region_bytes,
    )


def build_status(
    *,
    before: InstancePoolNodeStatus | None,
    generation: int,
    agent: AgentInfo,
    findings: Sequence[Finding],
    counts: Counts | None,
    shape: RegionShape | None,
    workloads: Sequence[NodeWorkload],
    now: datetime,
) -> InstancePoolNodeStatus:
    """`before`: what was written last, by whomever. `counts` and `shape` are None while there is no region."""
    return InstancePoolNodeStatus(
        observed_generation=generation,
        agent=agent,
        conditions=conditions(before.conditions if before else (), findings, generation=generation, now=now),
        slots=node_slots(counts) if counts is not None else None,
        memory=node_memory(shape) if shape is not None else None,
        workloads=within_budget(
            [
                msgspec.structs.replace(entry, message=_shortened(entry.message))
                for entry in sorted(workloads, key=lambda entry: (entry.uid, entry.revision))
            ]
        ),
    )


def publish_in(
    written: Written | None, status: InstancePoolNodeStatus, now: float, *, edge_seconds: float = EDGE_SECONDS
) -> float | None:
    """Seconds until `status` should be written: 0 for now, None for not at all.

    Edges are written at once, EDGES_AT_ONCE of them, and one in each `edge_seconds` where they go on.
    """
    if written is None:
        return 0.0
    if status == written.status:
        return None
    if edges(status) != edges(written.status) or _used_moved(written.status, status):
        return max(0.0, 1 - written.credit_at(now, edge_seconds)) * edge_seconds
    return max(0.0, written.at + FIGURES_SECONDS - now)


def edges(status: InstancePoolNodeStatus) -> InstancePoolNodeStatus:
    """The status without its live figures."""
    return msgspec.structs.replace(
        status,
        slots=msgspec.structs.replace(status.slots, used=0) if status.slots is not None else None,
        workloads=tuple(
            msgspec.structs.replace(
                entry,
                # Whether all or only some run is an edge: a workload is ready by it.
                used_slots=int(entry.used_slots >= entry.reserved_slots),
                restarts=0,
            )
            for entry in status.workloads
        ),
    )


def is_passing(
    before: InstancePoolNodeStatus, after: InstancePoolNodeStatus, awaited: Set[tuple[str, str]] = frozenset()
) -> bool:
    """Whether all that is new is on the way to something else, which may be there before anybody has read of it.

    `awaited`: uid and revision of entries that something waits for to be written.
    """
    passing = {(entry.uid, entry.revision) for entry in after.workloads if entry.reason in _PASSING} - awaited
    there = {(entry.uid, entry.revision) for entry in after.workloads}
    # NB: who takes an inspection away has seen what it found.
    inspected = {(it.uid, it.revision) for it in before.workloads if it.state is WorkloadState.INSPECTED} - there
    return bool(passing) and _settled(before, passing | inspected) == _settled(after, passing)


def _settled(status: InstancePoolNodeStatus, passing: Set[tuple[str, str]]) -> InstancePoolNodeStatus:
    slots = status.slots
    return msgspec.structs.replace(
        edges(status),
        observed_generation=0,
        conditions=tuple(msgspec.structs.replace(it, observed_generation=0) for it in status.conditions),
        slots=msgspec.structs.replace(slots, used=0, reserved=0, free=0) if slots is not None else None,
        workloads=tuple(it for it in edges(status).workloads if (it.uid, it.revision) not in passing),
    )


def _used_moved(before: InstancePoolNodeStatus, after: InstancePoolNodeStatus) -> bool:
    if before.slots is None or after.slots is None:
        return before.slots is not after.slots
    step = max(1, after.slots.capacity * USED_STEP_PERCENT // 100)
    return abs(after.slots.used - before.slots.used) >= step and after.slots.used != before.slots.used


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX_LENGTH else message[: MESSAGE_MAX_LENGTH - 3] + "..."
