"""WasmWorkload: a module, how to run it, and how many slots of a pool it reserves."""

from enum import StrEnum

import msgspec

from wasmpool_api.instance_pool import From, LabelSelector, LocalObjectReference
from wasmpool_api.meta import API_VERSION, WASM_WORKLOAD, Condition, ObjectMeta
from wasmpool_api.quantities import Duration, IntOrPercent


class PullPolicy(StrEnum):
    """When a module is fetched again."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"


class RestartPolicy(StrEnum):
    """Always: `instances` run for ever. OnFailure, Never: `instances` is the number of completions."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class Spread(StrEnum):
    """Over many nodes, or on few."""

    SPREAD = "Spread"
    PACK = "Pack"


class OnNodeLost(StrEnum):
    """`Wait` re-runs nothing until the node is known to be gone. Without a choice: Wait for Never, else Replace."""

    REPLACE = "Replace"
    WAIT = "Wait"


class PoolRef(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`namespace` defaults to the workload's own."""

    name: str
    namespace: str = ""


class ConfigMapSource(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A key of binaryData (or data) of a ConfigMap in the workload's namespace."""

    name: str
    key: str


class ModuleSource(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Exactly one of `image` and `config_map`. `image_pull_secrets`: of the workload's namespace, before the pool's."""

    image: str | None = None
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    config_map: ConfigMapSource | None = None


class KeyRef(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A key of a ConfigMap or Secret in the workload's namespace."""

    name: str
    key: str
    optional: bool = False


class EnvVarSource(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Exactly one of the two."""

    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None


class EnvVar(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`value` or `value_from`; neither means the empty string."""

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class KeyToPath(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One key as a file: `path` is relative to where its volume is mounted."""

    key: str
    path: str


class FilesFrom(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A ConfigMap or Secret in the workload's namespace: those of its keys that `items` names, or, with none, all."""

    name: str
    items: tuple[KeyToPath, ...] = ()


class Files(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A directory that the guest may read: exactly one of `config_map` and `secret`. `mount_path` is absolute."""

    mount_path: str
    config_map: FilesFrom | None = None
    secret: FilesFrom | None = None


class Command(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A WASI preview 1 module or a wasi:cli component, run to its end. `deadline`: the longest one run may take.

    `backoff_limit`: with OnFailure, how often one index is run again after a failure before it counts as failed.
    """

    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    files: tuple[Files, ...] = ()
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    backoff_limit: int = 6
    deadline: Duration | None = None
    entrypoint: str = "_start"


class Ingress(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """From which namespaces requests may come."""

    from_: From = msgspec.field(name="from", default=From.SAME)
    selector: LabelSelector | None = None


class Http(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A wasi:http/incoming-handler component; a fresh instance for every request."""

    env: tuple[EnvVar, ...] = ()
    files: tuple[Files, ...] = ()
    port: int = 80
    deadline: Duration | None = None
    allowed_hosts: tuple[str, ...] = ()
    ingress: Ingress = Ingress()


class Run(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Exactly one of `command` and `http`."""

    command: Command | None = None
    http: Http | None = None


class RollingUpdate(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """As in a Deployment."""

    max_surge: IntOrPercent = IntOrPercent(percent=25)
    max_unavailable: IntOrPercent = IntOrPercent(count=0)


class Strategy(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a new version replaces the old one."""

    rolling_update: RollingUpdate = RollingUpdate()


class WorkloadLimits(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """May only be lower than the pool's. `memory_pages`: to how many pages of 64 KiB a memory may grow."""

    memory_pages: int | None = None


class Placement(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Where its slots are reserved."""

    spread: Spread = Spread.SPREAD
    node_selector: dict[str, str] = {}
    max_per_node: int | None = None


class WasmWorkloadSpec(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """spec of a WasmWorkload.

    `burst`: slots per node that it may borrow from what nobody has reserved. `progress_deadline`: how long a new
    version may make no progress until it is stalled. `ttl_seconds_after_finished`: when a finished one is deleted.
    """

    pool_ref: PoolRef
    module: ModuleSource
    run: Run
    instances: int = 1
    min_instances: int | None = None
    burst: int = 0
    strategy: Strategy = Strategy()
    progress_deadline: Duration = Duration(600)
    limits: WorkloadLimits = WorkloadLimits()
    priority: int = 0
    placement: Placement = Placement()
    on_node_lost: OnNodeLost | None = None
    ttl_seconds_after_finished: int | None = None

    @property
    def restart_policy(self) -> RestartPolicy:
        """Always, unless it is a command that says otherwise."""
        return self.run.command.restart_policy if self.run.command else RestartPolicy.ALWAYS

    @property
    def runs_to_completion(self) -> bool:
        """Whether `instances` counts completions."""
        return self.restart_policy is not RestartPolicy.ALWAYS

    @property
    def min_instances_or_default(self) -> int:
        """How many must fit before any is placed: 1, or all of them where completions are counted."""
        if self.min_instances is not None:
            return self.min_instances
        return self.instances if self.runs_to_completion else min(1, self.instances)


class WorkloadInstances(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`reserved` is what the scale subresource shows."""

    desired: int
    reserved: int
    ready: int
    succeeded: int
    failed: int


class ModuleNeeds(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a module declares, counted as ModuleLimits counts it; the largest of each over a component's core modules.

    Imported is what the host must provide: of a component its own imports, and none that one of its modules takes from
    another. `memory_pages` and `table_elements` are the largest minimum of any one memory and table. `features`:
    proposals beyond WebAssembly 1.0 that it uses and that decide whether it can run (SharedMemory, Memory64, ...).
    """

    imported_functions: int = 0
    imported_tables: int = 0
    imported_memories: int = 0
    imported_globals: int = 0
    types: int = 0
    functions: int = 0
    tables: int = 0
    memories: int = 0
    globals: int = 0
    table_elements: int = 0
    memory_pages: int = 0
    features: tuple[str, ...] = ()


class ComponentNeeds(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What all core instances that one instance of a component makes have together, counted as ComponentLimits does."""

    core_instances: int
    memories: int
    tables: int


class ModuleStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """The module that the current revision runs, pinned by `digest` (sha256:...).

    `image`: where it was found, by the digest of the artifact or image. `component`: of a component, its sums.
    """

    digest: str = ""
    image: str = ""
    size_bytes: int = 0
    needs: ModuleNeeds | None = None
    component: ComponentNeeds | None = None


class ComponentHost(StrEnum):
    """What lifts and lowers a component's values on a node: the agent itself, or Wasmtime where the agent can't."""

    CANONICAL_ABI = "CanonicalABI"
    COMPONENT_API = "ComponentAPI"


class WorkloadNode(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """What one node does for the workload. `component_host`: of a component, once it is compiled there."""

    node_name: str
    slots: int = msgspec.field(default_factory=int)
    state: str = ""
    reason: str = ""
    component_host: ComponentHost | None = None


class Rollout(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How far a new revision has come in the place of an older one: the most slots and running instances it ever had.

    `progressed_at`: when either last grew, RFC 3339.
    """

    revision: str
    reserved: int
    ready: int
    progressed_at: str


class WasmWorkloadStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """status of a WasmWorkload; written by the operator alone. `completions`: indexes done, compact ("0-41,43")."""

    observed_generation: int = 0
    selector: str = ""
    current_revision: str = ""
    updated_revision: str = ""
    instances: WorkloadInstances | None = None
    rollout: Rollout | None = None
    module: ModuleStatus | None = None
    nodes: tuple[WorkloadNode, ...] = ()
    completions: str = ""
    address: str = ""
    conditions: tuple[Condition, ...] = ()


class WasmWorkload(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The kind WasmWorkload (short name wasm)."""

    api_version: str = API_VERSION
    kind: str = WASM_WORKLOAD
    metadata: ObjectMeta
    spec: WasmWorkloadSpec
    status: WasmWorkloadStatus = WasmWorkloadStatus()
