"""InstancePoolNode: one pool on one node. The operator writes spec, the node's agent writes status."""

from enum import StrEnum

import msgspec

from wasmpool_api.instance_pool import AdmissionMode
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.meta import API_VERSION, INSTANCE_POOL_NODE, Condition, ObjectMeta
from wasmpool_api.wasm_workload import ComponentHost, ModuleStatus


class WorkloadState(StrEnum):
    """Where one workload stands on one node."""

    PENDING = "Pending"
    PULLING = "Pulling"
    INSPECTED = "Inspected"
    COMPILING = "Compiling"
    RUNNING = "Running"
    BACK_OFF = "BackOff"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REFUSED = "Refused"


class Assignment(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`slots` of this node are promised to one revision of a workload.

    `revision` names a ControllerRevision in the pool's namespace. `inspect`: hold no slot, fetch the module and report
    its digest and needs. `indexes`: the completions that this node runs, compact ("0-2,5"); empty for Always and http.
    `port`: of an http workload, 0 for none. `burst`: slots beyond `slots` that it may borrow from those that nobody has
    reserved. `outdated`: another revision of the same workload is to take over its requests, once that one answers.
    """

    uid: str
    namespace: str
    name: str
    revision: str
    slots: int = msgspec.field(default_factory=int)
    burst: int = 0
    priority: int = 0
    port: int = 0
    indexes: str = ""
    inspect: bool = False
    outdated: bool = False


class NodeAdmission(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What modules are judged by, as the pool has it. An agent follows it without a restart."""

    mode: AdmissionMode
    module_limits: ModuleLimits
    component_limits: ComponentLimits


class InstancePoolNodeSpec(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`pool_generation`: the generation of the InstancePool that the operator saw when it wrote this."""

    pool_name: str
    node_name: str
    node_uid: str = msgspec.field(name="nodeUID")
    pool_generation: int
    admission: NodeAdmission | None = None
    assignments: tuple[Assignment, ...] = ()


class AgentInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Which agent wrote the status; one of another pod than today's is stale."""

    pod_uid: str = msgspec.field(name="podUID")
    pod_name: str
    version: str
    wasmtime_version: str
    features: tuple[str, ...] = ()


class NodeSlots(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Slots of this node.

    Invariant: allocatable = capacity - quarantined, and free = allocatable - reserved.
    """

    capacity: int
    allocatable: int
    reserved: int
    used: int
    free: int
    quarantined: int


class NodeMemory(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The shape that the region really has. `page_size` as Kubernetes writes it: 2Mi, 1Gi, 4Ki."""

    backing: str
    page_size: str
    slot_bytes: int
    region_bytes: int


class NodeWorkload(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """What the agent did with one assignment.

    `completed` and `failed`: indexes, compact. `exit_code`: of the last run that ended by itself. `module`: of an
    inspected one, its digest, size and needs. `component_host`: of a component that is compiled here.
    """

    uid: str
    revision: str
    state: WorkloadState
    reason: str = ""
    message: str = ""
    reserved_slots: int = msgspec.field(default_factory=int)
    used_slots: int = msgspec.field(default_factory=int)
    restarts: int = 0
    digest: str = ""
    completed: str = ""
    failed: str = ""
    exit_code: int | None = None
    component_host: ComponentHost | None = None
    module: ModuleStatus | None = None


class InstancePoolNodeStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """status of an InstancePoolNode; written by the agent on that node alone."""

    observed_generation: int = 0
    agent: AgentInfo | None = None
    conditions: tuple[Condition, ...] = ()
    slots: NodeSlots | None = None
    memory: NodeMemory | None = None
    workloads: tuple[NodeWorkload, ...] = ()


class InstancePoolNode(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The kind InstancePoolNode (short name ipnode), named `<pool>.<node>`."""

    api_version: str = API_VERSION
    kind: str = INSTANCE_POOL_NODE
    metadata: ObjectMeta
    spec: InstancePoolNodeSpec
    status: InstancePoolNodeStatus = InstancePoolNodeStatus()
