"""A pool's nodes, each with its agent's pod and what is wrong with it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, Backing
from wasmpool_api.instance_pool_node import InstancePoolNode, InstancePoolNodeStatus, WorkloadState
from wasmpool_api.meta import Condition
from wasmpool_api.placement import NodeState
from wasmpool_api.quantities import Quantity
from wasmpool_api.reasons import NodeReason, RegionReason
from wasmpool_api.region import RegionShape
from wasmpool_operator.conditions import condition_of, seconds_since
from wasmpool_operator.pool.manifests import TEMPLATE_ANNOTATION
from wasmpool_operator.views import ContainerStatus, Node, Pod

LOST_AFTER_SECONDS = 60.0
"""An agent that is not ready for this long has lost its instances: those that may are placed elsewhere."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a pool.

    `fresh`: the InstancePoolNode's status was written by the pod that is there now. `reason` and `message` say why it
    is not ready, or `AgentReady`. `lost`: not ready for so long that its instances count as gone.
    """

    name: str
    node: Node | None
    pod: Pod | None
    pool_node: InstancePoolNode | None
    ready: bool
    updated: bool
    lost: bool
    reason: str
    message: str = ""

    @property
    def fresh(self) -> bool:
        """Whether its status is that of the present pod."""
        return _fresh(self.pod, self.pool_node)

    @property
    def status(self) -> InstancePoolNodeStatus | None:
        """Its status, if that is the present pod's."""
        return self.pool_node.status if self.pool_node is not None and self.fresh else None

    @property
    def leaving(self) -> bool:
        """Cordoned, or about to be taken away."""
        return self.node is None or self.node.leaving

    @property
    def region(self) -> Condition | None:
        """What the agent says of its region."""
        return condition_of(self.status.conditions, "RegionReserved") if self.status is not None else None

    @property
    def empty(self) -> bool:
        """Whether nothing is lost with its agent: it is lost already, never had a region, or says that nothing runs."""
        if self.lost or self.status is None or self.status.slots is None or not _true(self.region):
            return True
        # NB: an agent may publish its used slots late, never the state.
        return not self.status.slots.used and all(
            it.state is not WorkloadState.RUNNING and not it.used_slots for it in self.status.workloads
        )

    def state(self, *, draining: bool) -> NodeState:
        """What placement may do with it."""
        if self.lost:
            return NodeState.LOST
        if not self.ready:
            return NodeState.UNREADY
        agent_drains = self.status is not None and _true(condition_of(self.status.conditions, "Draining"))
        return NodeState.DRAINING if draining or self.leaving or agent_drains else NodeState.READY


def members_of(
    *,
    pool: str,
    shape: RegionShape | None,
    template: str,
    nodes: Mapping[str, Node],
    pods: Iterable[Pod],
    pool_nodes: Iterable[InstancePoolNode],
    huge_pages_elsewhere: Mapping[str, int],
    absent_since: Mapping[str, datetime],
    now: datetime,
) -> tuple[Member, ...]:
    """Every node that has an agent's pod or an InstancePoolNode, by name.

    `huge_pages_elsewhere`: bytes of the region's page size that other pods are known to request, per node.
    `absent_since`: since when a node has no pod.
    """
    pod_of: dict[str, Pod] = {}
    for pod in pods:
        node = pod.target_node
        if node and not pod.finished:
            pod_of[node] = _better(pod_of.get(node), pod)
    known = {it.spec.node_name: it for it in pool_nodes if it.metadata.deletion_timestamp is None}
    members: list[Member] = []
    wanted = 0 if shape is None or shape.backing is Backing.BASE_PAGES else shape.region_bytes
    for name in sorted(pod_of.keys() | known.keys()):
        agent, pool_node, node_object = pod_of.get(name), known.get(name), nodes.get(name)
        problem = _problem(pool, shape, node_object, agent, pool_node, wanted, huge_pages_elsewhere.get(name, 0))
        members.append(
            Member(
                name=name,
                node=node_object,
                pod=agent,
                pool_node=pool_node,
                ready=problem is None,
                updated=agent is not None and agent.metadata.annotations.get(TEMPLATE_ANNOTATION) == template,
                lost=problem is not None and _lost(agent, absent_since.get(name), now),
                reason=problem[0] if problem else NodeReason.AGENT_READY,
                message=problem[1] if problem else "",
            )
        )
    return tuple(members)


def pages_missing(
    pool: str, node: Node, shape: RegionShape, wanted: int, elsewhere: int
) -> tuple[RegionReason, str] | None:
    """Why the node can't give the region its huge pages, with the numbers; None if it can."""
    resource = HUGE_PAGE_RESOURCE.get(shape.backing)
    if resource is None or not wanted:
        return None
    allocatable = Quantity.parse(node.status.allocatable.get(resource, "0"))
    needs = f"pool {pool} needs {Quantity(wanted)} ({wanted // shape.page_bytes} pages)"
    if not allocatable:
        return (
            RegionReason.HUGE_PAGES_NOT_CONFIGURED,
            f"node {node.metadata.name} has no {resource} (vm.nr_hugepages is 0 or its kubelet started before it was "
            f"set), {needs}",
        )
    if allocatable - elsewhere < wanted:
        taken = f", {Quantity(elsewhere)} of it taken by other pods" if elsewhere else ""
        return (
            RegionReason.INSUFFICIENT_HUGE_PAGES,
            f"node {node.metadata.name}: {allocatable} of {resource} allocatable{taken}, {needs}",
        )
    return None


def _problem(
    pool: str,
    shape: RegionShape | None,
    node: Node | None,
    pod: Pod | None,
    pool_node: InstancePoolNode | None,
    wanted: int,
    elsewhere: int,
) -> tuple[str, str] | None:
    """Reason and message for a node that is not ready; None for a ready one."""
    if node is None:
        return NodeReason.AGENT_NOT_READY, "the Node is gone"
    if pod is None:
        return NodeReason.AGENT_PENDING, "there is no agent pod yet"
    name = pod.metadata.name
    if pod.deleting:
        return NodeReason.AGENT_NOT_READY, f"agent pod {name} is ending"
    fresh = _fresh(pod, pool_node)
    if pod.ready and fresh and pool_node is not None:
        ready = condition_of(pool_node.status.conditions, "Ready")
        if _true(ready):
            return None
        if ready is not None:
            return ready.reason or NodeReason.AGENT_NOT_READY, ready.message
    if pod.status.phase in {"", "Pending"} and not pod.spec.node_name:
        missing = pages_missing(pool, node, shape, wanted, elsewhere) if shape is not None else None
        if missing is not None:
            return missing
        scheduled = pod.condition("PodScheduled")
        said = f": {scheduled.message}" if scheduled is not None and scheduled.message else ""
        resource = HUGE_PAGE_RESOURCE.get(shape.backing) if shape is not None and wanted else None
        if shape is not None and resource is not None and f"Insufficient {resource}" in said:
            has = Quantity.parse(node.status.allocatable.get(resource, "0"))
            return (
                RegionReason.INSUFFICIENT_HUGE_PAGES,
                f"node {node.metadata.name}: {has} of {resource} allocatable, pool {pool} needs {Quantity(wanted)} "
                f"({wanted // shape.page_bytes} pages), and other pods have taken too much of it{said}",
            )
        return NodeReason.AGENT_PENDING, f"agent pod {name} is not scheduled{said}"
    if pod.agent is not None and (trouble := _container_trouble(name, pod.agent)) is not None:
        return trouble
    if fresh and pool_node is not None:
        for kind in ("RegionReserved", "Ready"):
            condition = condition_of(pool_node.status.conditions, kind)
            if condition is not None and condition.status != "True":
                return condition.reason, condition.message
        return NodeReason.AGENT_NOT_READY, f"agent pod {name} is not ready"
    if pod.ready:
        return NodeReason.AGENT_NOT_READY, f"agent pod {name} has not reported yet"
    if pod.status.message:
        return NodeReason.AGENT_NOT_READY, f"agent pod {name}: {pod.status.message}"
    return NodeReason.AGENT_PENDING, f"agent pod {name} is starting"


def _container_trouble(pod: str, agent: ContainerStatus) -> tuple[str, str] | None:
    ended = agent.last_state.terminated or agent.state.terminated
    last = ""
    if ended is not None:
        detail = f": {ended.message.strip()}" if ended.message.strip() else ""
        last = f"; it last ended with {ended.reason or 'Error'}, exit code {ended.exit_code}{detail}"
    waiting = agent.state.waiting
    if waiting is not None and waiting.reason not in {"", "ContainerCreating", "PodInitializing"}:
        said = f": {waiting.message}" if waiting.message else ""
        return waiting.reason, f"agent pod {pod}{said}{last}"
    if agent.state.terminated is not None:
        return agent.state.terminated.reason or "Error", f"agent pod {pod} has ended{last}"
    return None


def _lost(pod: Pod | None, absent_since: datetime | None, now: datetime) -> bool:
    if pod is None:
        return absent_since is not None and (now - absent_since).total_seconds() > LOST_AFTER_SECONDS
    # NB: before its first Ready a new pod's condition counts from its start, so a slow region does not lose instances
    # that never ran there; the old pod's are gone in any case.
    return seconds_since(pod.ready_changed_at, now) > LOST_AFTER_SECONDS


def _better(one: Pod | None, other: Pod) -> Pod:
    """Of two pods for the same node: the one that is not ending, then the younger."""
    if one is None:
        return other

    def key(pod: Pod) -> tuple[bool, str, str]:
        return not pod.deleting, pod.metadata.creation_timestamp or "", pod.metadata.uid

    return max(one, other, key=key)


def _fresh(pod: Pod | None, pool_node: InstancePoolNode | None) -> bool:
    agent = pool_node.status.agent if pool_node is not None else None
    return pod is not None and agent is not None and agent.pod_uid == pod.metadata.uid


def _true(condition: Condition | None) -> bool:
    return condition is not None and condition.status == "True"
