"""The pool as placement sees it, and which nodes its answer empties."""

from collections.abc import Mapping, Sequence

from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.placement import Claim, NamespaceLimit, Node, NodeState, Placement, Request
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import Observed
from wasmpool_operator.workload import tenancy
from wasmpool_operator.workload.assess import Assessment


def node_of(pool: InstancePool, member: Member, state: NodeState, observed: Observed) -> Node:
    """A member as placement sees it."""
    slots = member.status.slots if member.status is not None else None
    promised = observed.promised.get(member.pool_node.metadata.name) if member.pool_node is not None else None
    return Node(
        name=member.name,
        slots=slots.allocatable if slots is not None else 0,
        capacity=slots.capacity if slots is not None and slots.capacity else pool.spec.instance_limits.count,
        state=state,
        labels=member.node.metadata.labels if member.node is not None else {},
        promised=promised,
    )


def possible(workload: WasmWorkload, members: Sequence[Member], states: Mapping[str, NodeState]) -> list[Member]:
    """Nodes that it could be on, those included that take nothing now."""
    selector = workload.spec.placement.node_selector.items()
    return [
        it
        for it in members
        if it.node is not None and states[it.name] is not NodeState.LOST and selector <= it.node.metadata.labels.items()
    ]


def limits(
    observed: Observed, pool: InstancePool, nodes: Sequence[Node], assessments: Sequence[Assessment]
) -> dict[str, NamespaceLimit]:
    """Of the namespaces that have workloads here."""
    slots = sum(node.slots for node in nodes if node.state in {NodeState.READY, NodeState.DRAINING})
    namespaces = {it.workload.metadata.namespace for it in assessments}
    return tenancy.namespace_limits(pool, namespaces, observed.namespace_labels, slots)


def movements(
    requests: Mapping[str, Sequence[Request]],
    placements: Mapping[Claim, Placement],
    states: Mapping[str, NodeState],
    replacing: frozenset[str],
) -> tuple[frozenset[str], frozenset[str]]:
    """Names of nodes: those whose instances are about to run elsewhere, and those that hold what can't be moved."""
    moving: set[str] = set()
    pinned: set[str] = set()
    for found in requests.values():
        for request in found:
            slots = placements[request.claim].slots
            draining = [name for name in slots if states.get(name) is NodeState.DRAINING]
            if not request.movable:
                # An agent that is not ready for a moment runs what it runs all the same.
                pinned.update(draining, replacing.intersection(slots))
                continue
            if not draining:
                continue
            elsewhere = {name: count for name, count in slots.items() if name not in draining}
            running = sum(min(count, request.running.get(name, 0)) for name, count in elsewhere.items())
            if running < min(sum(elsewhere.values()), request.wanted):
                moving.update(draining)
    return frozenset(moving), frozenset(pinned)
