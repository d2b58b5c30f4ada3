"""What the operator knows of the cluster: one table per kind, fed by watch events and by complete lists.

Events alone are not enough: an object that was deleted while a watch was down is never reported as deleted. So every
table is swept against a complete list now and then. Events that arrive while the list is being read are kept, because
every object carries the resource version at which it was true.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from wasmpool_api.codec import FieldError, decode
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNode
from wasmpool_api.meta import MANAGED_BY, MANAGED_BY_LABEL, ObjectMeta
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.ports import Cluster, Manifest, Resource
from wasmpool_operator.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    ENDPOINT_SLICES,
    INSTANCE_POOL_NODES,
    INSTANCE_POOLS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    SERVICES,
    WASM_WORKLOADS,
)
from wasmpool_operator.views import DaemonSet, Node, Plain, Pod, PoolKey, Service, pool_of_labels

_log = logging.getLogger(__name__)


class HasMetadata(Protocol):
    """Any Kubernetes object."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its metadata."""
        ...


T = TypeVar("T", bound=HasMetadata)
ObjectKey = tuple[str, str]
"""Namespace and name."""


class Table(Generic[T]):
    """All objects of one kind, grouped by the pool that they concern.

    Invariant: an object is never replaced by an older state of itself, and never brought back by a list that was read
    before its deletion.
    """

    def __init__(self, resource: Resource, kind: type[T], pool_of: Callable[[T], PoolKey | None]) -> None:
        self.resource = resource
        self._kind = kind
        self._pool_of = pool_of
        self._objects: dict[ObjectKey, T] = {}
        self._groups: dict[PoolKey, dict[ObjectKey, T]] = {}
        self._deleted: dict[ObjectKey, int] = {}

    def get(self, namespace: str, name: str) -> T | None:
        """The object as last seen."""
        return self._objects.get((namespace, name))

    def of_pool(self, pool: PoolKey) -> tuple[T, ...]:
        """The objects of one pool, by namespace and name."""
        group = self._groups.get(pool, {})
        return tuple(group[key] for key in sorted(group))

    def pools(self) -> set[PoolKey]:
        """Every pool that some object here concerns."""
        return set(self._groups)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, manifest: Manifest) -> bool:
        """Takes a state of an object; True where that changes anything that the operator reads."""
        found = self._decode(manifest)
        if found is None:
            return False
        key = _key(found.metadata)
        version = _version(found.metadata)
        before = self._objects.get(key)
        if (before is not None and _version(before.metadata) > version) or self._deleted.get(key, -1) >= version:
            return False
        self._deleted.pop(key, None)
        self._store(key, found)
        return before is None or _without_version(before) != _without_version(found)

    def remove(self, manifest: Manifest) -> bool:
        """Takes a deletion; `manifest` is the last state of the object."""
        metadata: Any = manifest["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        before = self._objects.get(key)
        version = int(metadata["resourceVersion"]) if str(metadata.get("resourceVersion", "")).isdigit() else 0
        if before is not None and _version(before.metadata) > version:
            return False
        self._deleted[key] = version
        self._drop(key)
        return before is not None

    def forget(self, namespace: str, name: str) -> None:
        """Takes it that the object is gone, because the API server has just said so."""
        self._drop((namespace, name))

    def replace(self, manifests: Iterable[Manifest], resource_version: str) -> None:
        """Takes a complete list that was true at `resource_version`; whatever is older and not in it is gone."""
        listed_at = int(resource_version) if resource_version.isdigit() else 0
        seen: set[ObjectKey] = set()
        for manifest in manifests:
            metadata: Any = manifest["metadata"]
            seen.add((str(metadata.get("namespace", "")), str(metadata["name"])))
            self.put(manifest)
        for key, known in list(self._objects.items()):
            if key not in seen and _version(known.metadata) <= listed_at:
                self._drop(key)
        self._deleted = {key: version for key, version in self._deleted.items() if version > listed_at}

    def pool_of(self, found: T) -> PoolKey | None:
        """The pool that an object concerns."""
        return self._pool_of(found)

    def pool_of_manifest(self, manifest: Manifest) -> PoolKey | None:
        """The pool that the object of a manifest concerns."""
        found = self._decode(manifest)
        return None if found is None else self._pool_of(found)

    def _decode(self, manifest: Manifest) -> T | None:
        try:
            return decode(self._kind, manifest)
        except FieldError as error:
            metadata: Any = manifest.get("metadata", {})
            _log.warning(
                "%s %s/%s is left out: %s",
                self.resource.kind, metadata.get("namespace", ""), metadata.get("name", ""), error,
            )  # fmt: skip
            return None

    def _store(self, key: ObjectKey, found: T) -> None:
        self._drop(key)
        self._objects[key] = found
        if (pool := self._pool_of(found)) is not None:
            self._groups.setdefault(pool, {})[key] = found

    def _drop(self, key: ObjectKey) -> None:
        before = self._objects.pop(key, None)
        if before is None or (pool := self._pool_of(before)) is None:
            return
        group = self._groups[pool]
        del group[key]
        if not group:
            del self._groups[pool]


def _key(metadata: ObjectMeta) -> ObjectKey:
    return metadata.namespace, metadata.name


def _version(metadata: ObjectMeta) -> int:
    return int(metadata.resource_version) if metadata.resource_version.isdigit() else 0


def _without_version(found: Any) -> Any:
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, resource_version=""))


def pool_of_workload(workload: WasmWorkload) -> PoolKey:
    """The pool that a workload refers to."""
    reference = workload.spec.pool_ref
    return PoolKey(reference.namespace or workload.metadata.namespace, reference.name)


def _labelled(found: HasMetadata) -> PoolKey | None:
    return pool_of_labels(found.metadata)


def _no_pool(_found: HasMetadata) -> PoolKey | None:
    return None


MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


@dataclass(slots=True)
class Cache:
    """All tables. Owned by the process's one event loop; no locks."""

    pools: Table[InstancePool] = field(
        default_factory=lambda: Table(
            INSTANCE_POOLS, InstancePool, lambda it: PoolKey(it.metadata.namespace, it.metadata.name)
        )
    )
    pool_nodes: Table[InstancePoolNode] = field(
        default_factory=lambda: Table(
            INSTANCE_POOL_NODES, InstancePoolNode, lambda it: PoolKey(it.metadata.namespace, it.spec.pool_name)
        )
    )
    workloads: Table[WasmWorkload] = field(
        default_factory=lambda: Table(WASM_WORKLOADS, WasmWorkload, pool_of_workload)
    )
    nodes: Table[Node] = field(default_factory=lambda: Table(NODES, Node, _no_pool))
    namespaces: Table[Plain] = field(default_factory=lambda: Table(NAMESPACES, Plain, _no_pool))
    pods: Table[Pod] = field(default_factory=lambda: Table(PODS, Pod, _labelled))
    daemon_sets: Table[DaemonSet] = field(default_factory=lambda: Table(DAEMON_SETS, DaemonSet, _labelled))
    config_maps: Table[Plain] = field(default_factory=lambda: Table(CONFIG_MAPS, Plain, _labelled))
    service_accounts: Table[Plain] = field(default_factory=lambda: Table(SERVICE_ACCOUNTS, Plain, _labelled))
    role_bindings: Table[Plain] = field(default_factory=lambda: Table(ROLE_BINDINGS, Plain, _labelled))
    revisions: Table[Plain] = field(default_factory=lambda: Table(CONTROLLER_REVISIONS, Plain, _labelled))

    services: Table[Service] = field(default_factory=lambda: Table(SERVICES, Service, _labelled))
    endpoint_slices: Table[Plain] = field(default_factory=lambda: Table(ENDPOINT_SLICES, Plain, _labelled))
    network_policies: Table[Plain] = field(default_factory=lambda: Table(NETWORK_POLICIES, Plain, _labelled))

    def tables(self) -> Mapping[Resource, Table[Any]]:
        """Every table by its kind."""
        tables: tuple[Table[Any], ...] = (
            self.pools, self.pool_nodes, self.workloads, self.nodes, self.namespaces, self.pods, self.daemon_sets,
            self.config_maps, self.service_accounts, self.role_bindings, self.revisions,
            self.services, self.endpoint_slices, self.network_policies,
        )  # fmt: skip
        return {table.resource: table for table in tables}

    def observe(self, resource: Resource, manifest: Manifest, *, deleted: bool) -> set[PoolKey]:
        """Takes a watch event; returns the pools that have to be reconciled for it."""
        table = self.tables()[resource]
        before = table.get(str(manifest["metadata"].get("namespace", "")), str(manifest["metadata"]["name"]))
        changed = table.remove(manifest) if deleted else table.put(manifest)
        if not changed:
            return set()
        if resource in {NODES, NAMESPACES}:
            return self.all_pools()
        concerned = {table.pool_of_manifest(manifest)}
        if before is not None:
            concerned.add(table.pool_of(before))
        return {pool for pool in concerned if pool is not None}

    def all_pools(self) -> set[PoolKey]:
        """Every pool that exists or is referred to."""
        return self.pools.pools() | self.workloads.pools() | self.pool_nodes.pools()


SELECTORS: Mapping[Resource, str] = {
    PODS: MANAGED_SELECTOR,
    DAEMON_SETS: MANAGED_SELECTOR,
    CONFIG_MAPS: MANAGED_SELECTOR,
    SERVICE_ACCOUNTS: MANAGED_SELECTOR,
    ROLE_BINDINGS: MANAGED_SELECTOR,
    CONTROLLER_REVISIONS: MANAGED_SELECTOR,
    SERVICES: MANAGED_SELECTOR,
    ENDPOINT_SLICES: MANAGED_SELECTOR,
    NETWORK_POLICIES: MANAGED_SELECTOR,
}
"""Label selectors of the lists and watches; kinds that are not named are read whole."""


async def relist(cluster: Cluster, cache: Cache, *, timeout_seconds: float = 120.0) -> None:
    """Sweeps every table against a complete list. Raises ClusterError or TimeoutError; tables done so far are kept."""
    async with asyncio.timeout(timeout_seconds):
        for resource, table in cache.tables().items():
            items: list[Manifest] = []
            version = ""
            async for page in cluster.list_pages(resource, label_selector=SELECTORS.get(resource, "")):
                for item in page.items:
                    # Items of a list carry neither; the rest of the operator need not know.
                    item.setdefault("apiVersion", resource.api_version)
                    item.setdefault("kind", resource.kind)
                items.extend(page.items)
                version = version or page.resource_version
            table.replace(items, version)
