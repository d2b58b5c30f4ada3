"""InstancePool: a region of memory on every selected node, cut into slots, with the limits of what may run in them."""

from enum import StrEnum
from typing import Any

import msgspec

from wasmpool_api.limits import ComponentLimits, InstanceLimits, ModuleLimits
from wasmpool_api.meta import API_VERSION, INSTANCE_POOL, Condition, ObjectMeta
from wasmpool_api.quantities import Duration, IntOrPercent, Quantity


class AllocationType(StrEnum):
    """RFC InstanceAllocationStrategy."""

    POOLING = "Pooling"
    ON_DEMAND = "OnDemand"


class AllocationStrategy(StrEnum):
    """RFC PoolingAllocationStrategy, and Wasmtime's later module affinity."""

    NEXT_AVAILABLE = "NextAvailable"
    RANDOM = "Random"
    MODULE_AFFINITY = "ModuleAffinity"


class Backing(StrEnum):
    """The pages under the region."""

    HUGE_PAGES_2MI = "HugePages2Mi"
    HUGE_PAGES_1GI = "HugePages1Gi"
    BASE_PAGES = "BasePages"


class Fallback(StrEnum):
    """What to do where the huge pages can't be had."""

    NONE = "None"
    BASE_PAGES = "BasePages"


class From(StrEnum):
    """Which namespaces, as in Gateway API's allowedRoutes."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


class Isolation(StrEnum):
    """Whether two tenants may share a worker process."""

    SHARED = "Shared"
    WORKER_PER_NAMESPACE = "WorkerPerNamespace"


class AdmissionMode(StrEnum):
    """`Count` admits what only moduleLimits would refuse, and counts it."""

    ENFORCE = "Enforce"
    COUNT = "Count"


class LabelSelectorRequirement(msgspec.Struct, frozen=True, rename="camel"):
    """metav1.LabelSelectorRequirement."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """metav1.LabelSelector; empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Allocation(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How instances get their memory."""

    type: AllocationType = AllocationType.POOLING
    strategy: AllocationStrategy = AllocationStrategy.NEXT_AVAILABLE
    backing: Backing = Backing.HUGE_PAGES_2MI
    fallback: Fallback = Fallback.NONE


class Runtime(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`workers`: processes that run guests; 0 means one per CPU of the agent's pod."""

    request_deadline: Duration = Duration(30)
    workers: int = 0


class AllowedNamespaces(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Which namespaces' workloads may use the pool."""

    from_: From = msgspec.field(name="from", default=From.SAME)
    selector: LabelSelector | None = None


class Quota(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The most slots that each namespace matching the selector may reserve."""

    namespace_selector: LabelSelector
    slots: int


class Tenancy(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Who may use the pool, and how much of it. `max_share`: the largest part of its slots that one namespace gets."""

    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    max_share: IntOrPercent = IntOrPercent(percent=100)
    quotas: tuple[Quota, ...] = ()
    isolation: Isolation = Isolation.SHARED


class Egress(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The ceiling for where its workloads may connect to."""

    allowed_hosts: tuple[str, ...] = ()


class PoolHttp(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`port_range`: the ports on the agent pods that http workloads get, first and last, inclusive.

    `queue_timeout`: how long a request may wait for a slot.
    """

    port_range: str = "20000-29999"
    queue_timeout: Duration = Duration(1)

    @property
    def ports(self) -> range:
        """All ports of the range."""
        first, _, last = self.port_range.partition("-")
        return range(int(first), int(last) + 1)


class Admission(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How moduleLimits are applied."""

    mode: AdmissionMode = AdmissionMode.ENFORCE


class LocalObjectReference(msgspec.Struct, frozen=True):
    """corev1.LocalObjectReference."""

    name: str


class Registry(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """How one registry is reached. `ca_bundle`: PEM in base64. `mirrors`: asked first, `host[:port][/path]` each."""

    host: str
    plain_http: bool = msgspec.field(name="plainHTTP", default=False)
    ca_bundle: str = ""
    mirrors: tuple[str, ...] = ()


class AgentCache(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Where an agent keeps modules and compiled code. `host_path`: of the node; empty: it goes with the pod."""

    size_limit: Quantity = Quantity(4 * 1024**3)
    host_path: str = ""


class AgentTemplate(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the pool's owner may set on the agent's pods. `resources`, `env`: as in a container of a Pod."""

    cache: AgentCache = AgentCache()
    image: str = ""
    resources: dict[str, Any] = {}
    env: tuple[dict[str, Any], ...] = ()
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}


class UpdateStrategy(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How many of the pool's nodes may be without a ready agent while it changes."""

    max_unavailable: IntOrPercent = IntOrPercent(percent=10)


class InstancePoolSpec(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """spec of an InstancePool."""

    instance_limits: InstanceLimits
    allocation: Allocation = Allocation()
    module_limits: ModuleLimits = ModuleLimits()
    component_limits: ComponentLimits = ComponentLimits()
    runtime: Runtime = Runtime()
    tenancy: Tenancy = Tenancy()
    egress: Egress = Egress()
    http: PoolHttp = PoolHttp()
    admission: Admission = Admission()
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    priority_class_name: str = ""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    registries: tuple[Registry, ...] = ()
    agent: AgentTemplate = AgentTemplate()
    update_strategy: UpdateStrategy = UpdateStrategy()


class PoolNodes(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Counts of the pool's nodes. `updated`: those whose agent runs the current version of the pool."""

    desired: int
    ready: int
    updated: int


class PoolSlots(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Sums over ready nodes.

    Invariant: allocatable = capacity - quarantined, and free = allocatable - reserved.
    """

    capacity: int
    allocatable: int
    reserved: int
    used: int
    free: int


class PoolMemory(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Bytes. `region_bytes` is the sum over ready nodes; `overhead_bytes_per_node` is outside the region."""

    slot_bytes: int
    region_bytes_per_node: int
    region_bytes: int
    overhead_bytes_per_node: int
    page_size: str


class PoolWorkloads(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Counts of the WasmWorkloads that refer to the pool. `would_refuse`: of those admitted, for Enforce would."""

    admitted: int
    waiting: int
    refused: int
    would_refuse: int = 0


class UnreadyNode(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One of the pool's nodes that is not ready, and why."""

    node_name: str
    reason: str
    message: str = ""


class InstancePoolStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """status of an InstancePool; written by the operator alone."""

    observed_generation: int = 0
    nodes: PoolNodes | None = None
    slots: PoolSlots | None = None
    memory: PoolMemory | None = None
    workloads: PoolWorkloads | None = None
    unready_nodes: tuple[UnreadyNode, ...] = ()
    conditions: tuple[Condition, ...] = ()


class InstancePool(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The kind InstancePool (short name ipool)."""

    api_version: str = API_VERSION
    kind: str = INSTANCE_POOL
    metadata: ObjectMeta
    spec: InstancePoolSpec
    status: InstancePoolStatus = InstancePoolStatus()


# Not part of the schema: how the page sizes are called in Kubernetes' resource names and how large they are.
HUGE_PAGE_BYTES: dict[Backing, Quantity] = {
    Backing.HUGE_PAGES_2MI: Quantity(2 * 1024**2),
    Backing.HUGE_PAGES_1GI: Quantity(1024**3),
}
HUGE_PAGE_RESOURCE: dict[Backing, str] = {
    Backing.HUGE_PAGES_2MI: "hugepages-2Mi",
    Backing.HUGE_PAGES_1GI: "hugepages-1Gi",
}
