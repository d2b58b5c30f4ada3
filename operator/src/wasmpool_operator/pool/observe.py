"""What a plan for one pool is made from: a frozen snapshot of the cache, and what only this process remembers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNode
from wasmpool_api.meta import MANAGED_BY, MANAGED_BY_LABEL, ObjectMeta, agent_name
from wasmpool_api.placement import Claim
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.cache import Cache
from wasmpool_operator.ports import Manifest, Resource
from wasmpool_operator.promises import Ledger
from wasmpool_operator.views import DaemonSet, Node, Pod, PoolKey, Service, pool_of_labels

SURVEY_SECONDS = 20.0
"""How long it is believed what others' pods took of a node."""

ABSENT_SECONDS = 2.0
"""How long a name is believed to be free: until what is made there has been made, and no longer."""
TAKEN_SECONDS = 10.0
"""How long a name is believed to be somebody else's."""

ChildKey = tuple[Resource, str]
"""A child of the pool by its kind and name."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was last applied for a child. `mark`: the generation (or resource version) that it had then."""

    intent: str
    mark: str


class ObjectName(NamedTuple):
    """An object that may exist, and need not be ours."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found at a name at `at`: an object that is not watched, or None where there is none."""

    at: datetime
    metadata: ObjectMeta | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Bytes of huge pages by resource that pods which wasmpool did not make requested on a node at `at`."""

    at: datetime
    taken: Mapping[str, int]


@dataclass(slots=True)
class Memory:
    """What this process remembers of a pool between reconciles. All of it may be lost: it only makes us slower."""

    ledger: Ledger = field(default_factory=Ledger)
    sent: dict[ChildKey, Sent] = field(default_factory=dict[ChildKey, Sent])
    absent_since: dict[str, datetime] = field(default_factory=dict[str, datetime])
    drain_since: dict[str, datetime] = field(default_factory=dict[str, datetime])
    surveys: dict[str, Survey] = field(default_factory=dict[str, Survey])
    lookups: dict[ObjectName, Lookup] = field(default_factory=dict[ObjectName, Lookup])
    pool_nodes: dict[str, InstancePoolNode] = field(default_factory=dict[str, InstancePoolNode])
    """By uid, as the last reconcile left them."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child as it is in the cluster. `mark`: see `Sent`."""

    metadata: ObjectMeta
    mark: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that concerns one pool, at one moment."""

    key: PoolKey
    now: datetime
    pool: InstancePool | None
    daemon_set: DaemonSet | None = None
    children: Mapping[ChildKey, Child] = field(default_factory=dict[ChildKey, Child])
    config_maps: tuple[ObjectMeta, ...] = ()
    revisions: tuple[ObjectMeta, ...] = ()
    pods: tuple[Pod, ...] = ()
    pool_nodes: tuple[InstancePoolNode, ...] = ()
    vanished: tuple[InstancePoolNode, ...] = ()
    """InstancePoolNodes that somebody has removed since the last reconcile, as when a deleted pool takes them along."""
    nodes: Mapping[str, Node] = field(default_factory=dict[str, Node])
    namespace_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    workloads: tuple[WasmWorkload, ...] = ()
    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[ObjectMeta, ...] = ()
    network_policies: tuple[ObjectMeta, ...] = ()
    lookups: Mapping[ObjectName, Lookup] = field(default_factory=dict[ObjectName, Lookup])
    huge_page_requests: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Bytes by node and resource, of the pods of all other pools, and of others' pods on the nodes in `surveyed`."""
    surveyed: frozenset[str] = frozenset()
    """Nodes of which it is known what pods that wasmpool did not make take; nobody else's pods are watched."""
    promised: Mapping[str, Mapping[Claim, int] | None] = field(default_factory=dict[str, Mapping[Claim, int] | None])
    """By the name of the InstancePoolNode."""
    listening: Mapping[str, frozenset[str] | None] = field(default_factory=dict[str, frozenset[str] | None])
    """Uids of workloads that its agent may be running, by the name of the InstancePoolNode; None: nobody knows."""
    sent: Mapping[ChildKey, Sent] = field(default_factory=dict[ChildKey, Sent])
    absent_since: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    drain_since: Mapping[str, datetime] = field(default_factory=dict[str, datetime])


def child_mark(metadata: ObjectMeta) -> str:
    """Changes whenever somebody changes the child: its generation where it has one, else its resource version."""
    return f"g{metadata.generation}" if metadata.generation else f"v{metadata.resource_version}"


def mark_of_manifest(manifest: Manifest) -> str:
    """`child_mark` of an API server's answer."""
    metadata: Mapping[str, object] = manifest["metadata"]
    generation = metadata.get("generation")
    return f"g{generation}" if generation else f"v{metadata.get('resourceVersion', '')}"


def observe(cache: Cache, memory: Memory, key: PoolKey, now: datetime) -> Observed:
    """The snapshot; also lets the memory take note of it."""
    pool_nodes = cache.pool_nodes.of_pool(key)
    pods = cache.pods.of_pool(key)
    _remember(memory, pool_nodes, pods, now)
    huge_page_requests = _huge_page_requests(cache.pods, key)
    for node, survey in memory.surveys.items():
        for resource, amount in survey.taken.items():
            huge_page_requests[node, resource] = huge_page_requests.get((node, resource), 0) + amount
    name = agent_name(key.name)
    tables = (cache.service_accounts, cache.role_bindings, cache.daemon_sets)
    children = {
        (table.resource, name): Child(found.metadata, child_mark(found.metadata))
        for table in tables
        if (found := table.get(key.namespace, name)) is not None
    }
    config_maps = tuple(it.metadata for it in cache.config_maps.of_pool(key))
    return Observed(
        key=key,
        now=now,
        pool=cache.pools.get(key.namespace, key.name),
        daemon_set=cache.daemon_sets.get(key.namespace, name),
        children=children,
        config_maps=config_maps,
        revisions=tuple(it.metadata for it in cache.revisions.of_pool(key)),
        pods=pods,
        pool_nodes=pool_nodes,
        vanished=_vanished(memory, pool_nodes),
        nodes={node.metadata.name: node for node in cache.nodes},
        namespace_labels={it.metadata.name: it.metadata.labels for it in cache.namespaces},
        workloads=tuple(it for it in cache.workloads.of_pool(key) if it.metadata.deletion_timestamp is None),
        services=cache.services.of_pool(key),
        endpoint_slices=tuple(it.metadata for it in cache.endpoint_slices.of_pool(key)),
        network_policies=tuple(it.metadata for it in cache.network_policies.of_pool(key)),
        lookups=dict(memory.lookups),
        huge_page_requests=huge_page_requests,
        surveyed=frozenset(memory.surveys),
        promised={it.metadata.name: memory.ledger.promised(it) for it in pool_nodes},
        listening={it.metadata.name: memory.ledger.workloads(it) for it in pool_nodes},
        sent=dict(memory.sent),
        absent_since=dict(memory.absent_since),
        drain_since=dict(memory.drain_since),
    )


def _remember(memory: Memory, pool_nodes: Iterable[InstancePoolNode], pods: Iterable[Pod], now: datetime) -> None:
    with_pod = {pod.target_node for pod in pods if not pod.deleting and not pod.finished}
    known: set[str] = set()
    uids: set[str] = set()
    for node in pool_nodes:
        memory.ledger.observe(node)
        uids.add(node.metadata.uid)
        known.add(node.spec.node_name)
        if node.spec.node_name not in with_pod:
            memory.absent_since.setdefault(node.spec.node_name, now)
    memory.ledger.forget(uids)
    for name in [name for name in memory.absent_since if name in with_pod or name not in known]:
        del memory.absent_since[name]
    for name in [name for name, survey in memory.surveys.items() if (now - survey.at).total_seconds() > SURVEY_SECONDS]:
        del memory.surveys[name]
    for looked in [it for it, found in memory.lookups.items() if _outlived(found, now)]:
        del memory.lookups[looked]


def _outlived(lookup: Lookup, now: datetime) -> bool:
    believed = ABSENT_SECONDS if lookup.metadata is None else TAKEN_SECONDS
    return (now - lookup.at).total_seconds() > believed


def _vanished(memory: Memory, pool_nodes: Iterable[InstancePoolNode]) -> tuple[InstancePoolNode, ...]:
    present = {it.metadata.uid for it in pool_nodes}
    return tuple(it for uid, it in memory.pool_nodes.items() if uid not in present)


def managed(pod: Pod) -> bool:
    """Whether it is some pool's agent."""
    return pod.metadata.labels.get(MANAGED_BY_LABEL) == MANAGED_BY


def huge_pages_of(pod: Pod) -> Mapping[str, int]:
    """Bytes of huge pages that it holds on its node, by resource."""
    if pod.finished or not pod.spec.node_name:
        return {}
    found = {resource: pod.requests(resource) for resource in HUGE_PAGE_RESOURCE.values()}
    return {resource: amount for resource, amount in found.items() if amount}


def _huge_page_requests(pods: Iterable[Pod], key: PoolKey) -> dict[tuple[str, str], int]:
    taken: dict[tuple[str, str], int] = {}
    for pod in pods:
        # NB: a watch brings everybody's pods, a list only our own: others' are counted by a survey alone.
        if not managed(pod) or _is_of(pod, key):
            continue
        for resource, amount in huge_pages_of(pod).items():
            at = (pod.spec.node_name, resource)
            taken[at] = taken.get(at, 0) + amount
    return taken


def _is_of(pod: Pod, key: PoolKey) -> bool:
    return pool_of_labels(pod.metadata) == key
