"""The status of an InstancePool: sums over its nodes, and what is wrong where. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from wasmpool_api.instance_pool import (
    HUGE_PAGE_RESOURCE,
    InstancePool,
    InstancePoolStatus,
    PoolMemory,
    PoolNodes,
    PoolSlots,
    PoolWorkloads,
    UnreadyNode,
)
from wasmpool_api.reasons import NodeReason, PoolReason, RegionReason
from wasmpool_api.region import RegionShape, overhead_bytes_per_node
from wasmpool_operator.conditions import Finding, Truth, merged
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.plan import Problem, unavailable_allowed

UNREADY_NODES_SHOWN = 10


def pool_status(
    pool: InstancePool,
    members: Sequence[Member],
    *,
    shape: RegionShape | None,
    desired: int,
    workloads: PoolWorkloads,
    problem: Problem | None,
    refused_nodes: Mapping[str, str],
    now: datetime,
) -> InstancePoolStatus:
    """The whole status. `refused_nodes`: those whose outdated agent can't be replaced, and why."""
    ready = [member for member in members if member.ready]
    unready = [member for member in members if not member.ready]
    updated = [member for member in members if member.updated]
    findings = (
        _ready(pool, members, desired, problem),
        _regions_reserved(members, desired, problem),
        _agents_available(members, desired),
        _reconciling(members, desired, problem),
        _stalled(problem),
        _degraded(members, desired, refused_nodes),
    )
    return InstancePoolStatus(
        observed_generation=pool.metadata.generation,
        nodes=PoolNodes(desired=desired, ready=len(ready), updated=len(updated)),
        slots=slots_of(ready),
        memory=_memory(pool, ready, shape) if shape is not None else None,
        workloads=workloads,
        unready_nodes=tuple(
            UnreadyNode(node_name=member.name, reason=str(member.reason), message=member.message)
            for member in unready[:UNREADY_NODES_SHOWN]
        ),
        conditions=merged(pool.status.conditions, findings, generation=pool.metadata.generation, now=now),
    )


def slots_of(ready: Sequence[Member]) -> PoolSlots:
    """Sums over ready nodes. Invariant: allocatable = free + reserved."""
    statuses = [
        member.status.slots for member in ready if member.status is not None and member.status.slots is not None
    ]
    capacity = sum(slots.capacity for slots in statuses)
    allocatable = sum(slots.allocatable for slots in statuses)
    reserved = sum(slots.reserved for slots in statuses)
    used = sum(slots.used for slots in statuses)
    return PoolSlots(
        capacity=capacity, allocatable=allocatable, reserved=reserved, used=used, free=allocatable - reserved
    )


def _memory(pool: InstancePool, ready: Sequence[Member], shape: RegionShape) -> PoolMemory:
    regions = [member.status.memory for member in ready if member.status is not None]
    resource = HUGE_PAGE_RESOURCE.get(shape.backing)
    return PoolMemory(
        slot_bytes=shape.slot_bytes,
        region_bytes_per_node=shape.region_bytes,
        region_bytes=sum(memory.region_bytes for memory in regions if memory is not None),
        overhead_bytes_per_node=overhead_bytes_per_node(pool.spec, shape),
        page_size=resource.removeprefix("hugepages-") if resource is not None else "4Ki",
    )


def _ready(pool: InstancePool, members: Sequence[Member], desired: int, problem: Problem | None) -> Finding:
    ready = sum(member.ready for member in members)
    if problem is not None and not ready:
        return Finding("Ready", Truth.FALSE, problem.reason, problem.message)
    if not desired:
        return Finding(
            "Ready",
            Truth.FALSE,
            PoolReason.NO_NODES,
            "no node matches the pool's nodeSelector, affinity and tolerations",
        )
    if ready >= desired:
        return Finding("Ready", Truth.TRUE, PoolReason.ALL_NODES_READY, f"{_count(desired)} ready")
    if ready and desired - ready <= unavailable_allowed(pool, desired):
        return Finding("Ready", Truth.TRUE, PoolReason.ENOUGH_NODES_READY, _unready_summary(members, desired))
    reason = _commonest(members) or PoolReason.NODES_NOT_READY
    return Finding("Ready", Truth.FALSE, reason, _unready_summary(members, desired))


def _regions_reserved(members: Sequence[Member], desired: int, problem: Problem | None) -> Finding:
    kind = "RegionsReserved"
    if problem is not None and not members:
        return Finding(kind, Truth.FALSE, problem.reason, problem.message)
    reserved = [member for member in members if member.region is not None and member.region.status == "True"]
    region_reasons = {reason.value for reason in RegionReason}
    without = [member for member in members if member not in reserved]
    if desired and len(reserved) >= desired:
        fell_back = [it for it in reserved if it.region and it.region.reason == RegionReason.FELL_BACK_TO_BASE_PAGES]
        reason = fell_back[0].region if fell_back else reserved[0].region
        return Finding(kind, Truth.TRUE, reason.reason if reason else "", f"{_count(len(reserved))} reserved")
    failed = [member for member in without if str(member.reason) in region_reasons]
    failed_for_good = [member for member in failed if member.reason != RegionReason.RESERVING]
    if failed_for_good:
        return Finding(
            kind, Truth.FALSE, str(failed_for_good[0].reason), _summary(failed_for_good, desired, "without a region")
        )
    message = f"{len(reserved)} of {_count(desired)} reserved"
    return Finding(kind, Truth.UNKNOWN, RegionReason.RESERVING if desired else PoolReason.NO_NODES, message)


def _agents_available(members: Sequence[Member], desired: int) -> Finding:
    available = sum(member.pod is not None and member.pod.ready for member in members)
    message = f"{available} of {_count(desired)} with a ready agent pod"
    if not desired:
        return Finding("AgentsAvailable", Truth.FALSE, PoolReason.NO_NODES, message)
    if available >= desired:
        return Finding("AgentsAvailable", Truth.TRUE, NodeReason.AGENT_READY, message)
    return Finding("AgentsAvailable", Truth.FALSE, _commonest(members) or NodeReason.AGENT_PENDING, message)


def _reconciling(members: Sequence[Member], desired: int, problem: Problem | None) -> Finding:
    if problem is not None:
        return Finding("Reconciling", Truth.FALSE, problem.reason, "see Stalled")
    outdated = sum(not member.updated for member in members)
    if outdated:
        return Finding(
            "Reconciling",
            Truth.TRUE,
            PoolReason.REPLACING_AGENTS,
            f"{outdated} of {_count(desired)} with an outdated agent",
        )
    if len(members) < desired or any(not member.ready for member in members):
        return Finding("Reconciling", Truth.TRUE, PoolReason.WAITING_FOR_NODES, _unready_summary(members, desired))
    return Finding("Reconciling", Truth.FALSE, PoolReason.UP_TO_DATE)


def _stalled(problem: Problem | None) -> Finding:
    if problem is None:
        return Finding("Stalled", Truth.FALSE, PoolReason.NOT_STALLED)
    return Finding("Stalled", Truth.TRUE, problem.reason, problem.message)


def _degraded(members: Sequence[Member], desired: int, refused_nodes: Mapping[str, str]) -> Finding:
    if refused_nodes:
        node, why = min(refused_nodes.items())
        return Finding(
            "Degraded", Truth.TRUE, RegionReason.INSUFFICIENT_HUGE_PAGES,
            f"{_count(len(refused_nodes))} can't take the new version, {node}: {why}",
        )  # fmt: skip
    fell_back = [it for it in members if it.region and it.region.reason == RegionReason.FELL_BACK_TO_BASE_PAGES]
    if fell_back:
        return Finding(
            "Degraded", Truth.TRUE, RegionReason.FELL_BACK_TO_BASE_PAGES, _summary(fell_back, desired, "on base pages")
        )
    if any(not member.ready for member in members) or len(members) < desired:
        reason = _commonest(members) or PoolReason.NODES_NOT_READY
        return Finding("Degraded", Truth.TRUE, reason, _unready_summary(members, desired))
    return Finding("Degraded", Truth.FALSE, PoolReason.ALL_NODES_READY)


def _commonest(members: Sequence[Member]) -> str | None:
    """The reason of most unready nodes; of equally many the alphabetically first, so that it does not flicker."""
    counts = Counter(str(member.reason) for member in members if not member.ready)
    return min(counts, key=lambda reason: (-counts[reason], reason)) if counts else None


def _unready_summary(members: Sequence[Member], desired: int) -> str:
    unready = [member for member in members if not member.ready]
    missing = max(0, desired - len(members))
    if missing and not unready:
        return f"{missing} of {_count(desired)} not ready: no agent pod yet"
    return _summary(unready, desired, "not ready")


def _summary(members: Sequence[Member], desired: int, what: str) -> str:
    first = members[0] if members else None
    said = f"{first.message or first.reason}" if first is not None else ""
    where = "" if first is None or first.name in said else f"{first.name}: "
    more = f" (and {len(members) - 1} more)" if len(members) > 1 else ""
    return f"{len(members)} of {_count(desired)} {what}: {where}{said}{more}"


def _count(nodes: int) -> str:
    return f"{nodes} node" if nodes == 1 else f"{nodes} nodes"
