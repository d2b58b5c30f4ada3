"""The kinds that the operator reads and writes."""

from typing import Any, Final

from wasmpool_api.meta import GROUP, INSTANCE_POOL, INSTANCE_POOL_NODE, PLURALS, VERSION, WASM_WORKLOAD
from wasmpool_operator.ports import Resource

INSTANCE_POOLS: Final = Resource(GROUP, VERSION, PLURALS[INSTANCE_POOL], INSTANCE_POOL)
INSTANCE_POOL_NODES: Final = Resource(GROUP, VERSION, PLURALS[INSTANCE_POOL_NODE], INSTANCE_POOL_NODE)
WASM_WORKLOADS: Final = Resource(GROUP, VERSION, PLURALS[WASM_WORKLOAD], WASM_WORKLOAD)
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLER_REVISIONS: Final = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
SERVICES: Final = Resource("", "v1", "services", "Service")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")

ALL: Final = (
    INSTANCE_POOLS,
    INSTANCE_POOL_NODES,
    WASM_WORKLOADS,
    NODES,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    CONFIG_MAPS,
    DAEMON_SETS,
    CONTROLLER_REVISIONS,
    ROLE_BINDINGS,
    SERVICES,
    ENDPOINT_SLICES,
    NETWORK_POLICIES,
    EVENTS,
    LEASES,
)
_BY_KIND: Final = {(resource.api_version, resource.kind): resource for resource in ALL}


def resource_of(manifest: dict[str, Any]) -> Resource:
    """Where the manifest's kind is served. Raises KeyError for kinds that the operator does not use."""
    return _BY_KIND[manifest["apiVersion"], manifest["kind"]]
