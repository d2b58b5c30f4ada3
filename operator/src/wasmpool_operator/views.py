"""The parts of Kubernetes' own kinds that the operator reads, as frozen types. Unknown fields are ignored."""

from typing import NamedTuple

import msgspec

from wasmpool_api.meta import AGENT_CONTAINER, POOL_LABEL, POOL_NAMESPACE_LABEL, ObjectMeta
from wasmpool_api.quantities import Quantity


class PoolKey(NamedTuple):
    """An InstancePool, existing or only referred to."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectCondition(msgspec.Struct, frozen=True, rename="camel"):
    """A condition of a Pod or Node."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class Waiting(msgspec.Struct, frozen=True, rename="camel"):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Terminated(msgspec.Struct, frozen=True, rename="camel"):
    """How a container ended."""

    reason: str = ""
    message: str = ""
    exit_code: int = 0


class ContainerState(msgspec.Struct, frozen=True, rename="camel"):
    """At most one is set."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One container of a pod."""

    name: str
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodIP(msgspec.Struct, frozen=True):
    """One address of a pod."""

    ip: str


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """status of a Pod. `pod_ips`: at most one of each family."""

    phase: str = ""
    message: str = ""
    reason: str = ""
    conditions: tuple[ObjectCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())


class Resources(msgspec.Struct, frozen=True, rename="camel"):
    """Quantities as text."""

    requests: dict[str, str] = {}


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """One container of a pod's spec."""

    name: str
    resources: Resources = Resources()
    restart_policy: str = ""


class FieldRequirement(msgspec.Struct, frozen=True, rename="camel"):
    """corev1.NodeSelectorRequirement over fields."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class NodeSelectorTerm(msgspec.Struct, frozen=True, rename="camel"):
    """The part by which the DaemonSet controller pins a pod to its node."""

    match_fields: tuple[FieldRequirement, ...] = ()


class RequiredNodes(msgspec.Struct, frozen=True, rename="camel"):
    """corev1.NodeSelector."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class NodeAffinity(msgspec.Struct, frozen=True, rename="camel"):
    """corev1.NodeAffinity."""

    required_during_scheduling_ignored_during_execution: RequiredNodes | None = None


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """corev1.Affinity."""

    node_affinity: NodeAffinity | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """spec of a Pod."""

    node_name: str = ""
    affinity: Affinity | None = None
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    resources: Resources = Resources()


class Pod(msgspec.Struct, frozen=True, rename="camel"):
    """An agent's pod."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def target_node(self) -> str:
        """The node that it runs on, or that the DaemonSet controller made it for; empty if neither is known."""
        if self.spec.node_name:
            return self.spec.node_name
        required = (
            self.spec.affinity
            and self.spec.affinity.node_affinity
            and self.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
        )
        if required:
            for term in required.node_selector_terms:
                for field in term.match_fields:
                    if field.key == "metadata.name" and field.operator == "In" and len(field.values) == 1:
                        return field.values[0]
        return ""

    @property
    def deleting(self) -> bool:
        """Whether somebody has deleted it and it is ending."""
        return self.metadata.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        """Its Ready condition: the agent's heartbeat."""
        return not self.deleting and self.answering

    @property
    def answering(self) -> bool:
        """Whether its probe succeeds, be it ending or not."""
        return any(it.type == "Ready" and it.status == "True" for it in self.status.conditions)

    @property
    def ready_changed_at(self) -> str:
        """Since when it is (or is not) ready; RFC 3339, or empty."""
        return next((it.last_transition_time for it in self.status.conditions if it.type == "Ready"), "")

    @property
    def finished(self) -> bool:
        """Whether all its containers have ended for good; such a pod holds nothing and is replaced by its DaemonSet."""
        return self.status.phase in {"Failed", "Succeeded"}

    @property
    def agent(self) -> ContainerStatus | None:
        """The agent's container, once the kubelet has reported it."""
        return next((it for it in self.status.container_statuses if it.name == AGENT_CONTAINER), None)

    def condition(self, kind: str) -> ObjectCondition | None:
        """The condition of that type."""
        return next((it for it in self.status.conditions if it.type == kind), None)

    def requests(self, resource: str) -> int:
        """What the scheduler counts for it of a resource in whole units, such as hugepages-2Mi."""
        if resource in self.spec.resources.requests:
            return _amount(self.spec.resources, resource)
        sidecars = [it for it in self.spec.init_containers if it.restart_policy == "Always"]
        lasting = sum(_amount(it.resources, resource) for it in (*self.spec.containers, *sidecars))
        return max(lasting, *(_amount(it.resources, resource) for it in self.spec.init_containers), 0)


class DaemonSetStatus(msgspec.Struct, frozen=True, rename="camel"):
    """status of a DaemonSet."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0


class DaemonSet(msgspec.Struct, frozen=True, rename="camel"):
    """A pool's agents."""

    metadata: ObjectMeta
    status: DaemonSetStatus = DaemonSetStatus()

    @property
    def desired(self) -> int | None:
        """How many nodes want a pod, or None while its controller has not seen its present spec."""
        seen = self.status.observed_generation >= self.metadata.generation > 0
        return self.status.desired_number_scheduled if seen else None


class Taint(msgspec.Struct, frozen=True, rename="camel"):
    """corev1.Taint."""

    key: str
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True, rename="camel"):
    """spec of a Node."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True, rename="camel"):
    """status of a Node; heartbeats are left out on purpose, so that they cause no work."""

    allocatable: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True, rename="camel"):
    """A machine of the cluster."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def leaving(self) -> bool:
        """Cordoned, or marked by an autoscaler for removal: what runs here should move."""
        return self.spec.unschedulable or any(taint.key in _REMOVAL_TAINTS for taint in self.spec.taints)


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    """One port of a Service."""

    port: int
    target_port: int | str = 0


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    """spec of a Service."""

    ports: tuple[ServicePort, ...] = ()


class Service(msgspec.Struct, frozen=True, rename="camel"):
    """Of an http workload."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()

    @property
    def target_port(self) -> int:
        """The port on the agents' pods; 0 where there is none."""
        ports = [it.target_port for it in self.spec.ports if isinstance(it.target_port, int)]
        return ports[0] if ports else 0


class Plain(msgspec.Struct, frozen=True, rename="camel"):
    """Any object of which only the metadata matters."""

    metadata: ObjectMeta


_REMOVAL_TAINTS = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.kubernetes.io/out-of-service",
    }
)


def _amount(resources: Resources, resource: str) -> int:
    text = resources.requests.get(resource)
    if not text:
        return 0
    try:
        return Quantity.parse(text)
    except ValueError:
        return 0  # an exponent such as 2e6, which is never a whole number of huge pages


def pool_of_labels(metadata: ObjectMeta) -> PoolKey | None:
    """The pool that an object made by the operator belongs to."""
    name = metadata.labels.get(POOL_LABEL)
    return PoolKey(metadata.labels.get(POOL_NAMESPACE_LABEL) or metadata.namespace, name) if name else None


def controlled_by(metadata: ObjectMeta, uid: str) -> bool:
    """Whether the object of that uid is its controller."""
    return any(owner.uid == uid and owner.controller for owner in metadata.owner_references)
