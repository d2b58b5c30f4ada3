"""The status of an InstancePoolNode: how it is put together, and when it is worth a write. Pure.

Edges (a state, a reason, a reservation, an index that is done) are written at once, but at most once a second. Live
figures (slots used, restarts) are metrics: they are written when `used` has moved by 5 % of capacity, or once a minute.
"""

from collections.abc import Sequence
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
)
from wasmpool_api.meta import Condition
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionShape

EDGE_SECONDS: Final = 1.0
FIGURES_SECONDS: Final = 60.0
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
    """The status that the API server has, and when it was written (monotonic seconds)."""

    status: InstancePoolNodeStatus
    at: float


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
    """Seconds until `status` should be written: 0 for now, None for not at all."""
    if written is None:
        return 0.0
    if status == written.status:
        return None
    if edges(status) != edges(written.status) or _used_moved(written.status, status):
        return max(0.0, written.at + edge_seconds - now)
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


def _used_moved(before: InstancePoolNodeStatus, after: InstancePoolNodeStatus) -> bool:
    if before.slots is None or after.slots is None:
        return before.slots is not after.slots
    step = max(1, after.slots.capacity * USED_STEP_PERCENT // 100)
    return abs(after.slots.used - before.slots.used) >= step and after.slots.used != before.slots.used


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX_LENGTH else message[: MESSAGE_MAX_LENGTH - 3] + "..."
