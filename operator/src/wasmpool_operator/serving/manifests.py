"""The objects by which an http workload is reached. Pure: types in, manifests out."""

from collections.abc import Sequence
from typing import Any, Final

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import From, InstancePool, LabelSelector
from wasmpool_api.meta import (
    API_VERSION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    METRICS_PORT,
    POOL_LABEL,
    POOL_NAMESPACE_LABEL,
    PORT_LABEL,
    WASM_WORKLOAD,
    WORKLOAD_UID_LABEL,
    agent_name,
)
from wasmpool_api.wasm_workload import Http, WasmWorkload
from wasmpool_operator.pool.manifests import agent_selector, owned_metadata
from wasmpool_operator.ports import Manifest
from wasmpool_operator.views import PoolKey

SERVICE_LABEL: Final = "kubernetes.io/service-name"
SLICE_MANAGED_BY_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
SLICE_MANAGER: Final = "wasmpool.dev"
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"
PORT_NAME: Final = "http"


def service(workload: WasmWorkload, http: Http, key: PoolKey, port: int) -> Manifest:
    """Without a selector: the operator itself says where it leads."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(workload, key, workload.metadata.name),
        "spec": {
            "type": "ClusterIP",
            "ports": [
                {"name": PORT_NAME, "port": http.port, "targetPort": port, "protocol": "TCP", "appProtocol": "http"}
            ],
        },
    }


def endpoint_slice(
    workload: WasmWorkload, key: PoolKey, name: str, family: str, port: int, endpoints: Sequence[dict[str, Any]]
) -> Manifest:
    """`family`: IPv4 or IPv6."""
    metadata = _metadata(workload, key, name)
    metadata["labels"] |= {SERVICE_LABEL: workload.metadata.name, SLICE_MANAGED_BY_LABEL: SLICE_MANAGER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": list(endpoints),
    }


def port_policy_name(pool: InstancePool, port: int) -> str:
    """Of the NetworkPolicy that opens a port of the pool's agents; one port, one name."""
    return f"{agent_name(pool.metadata.name)}-port-{port}"


def port_policy(pool: InstancePool, workload: WasmWorkload, http: Http, port: int) -> Manifest:
    """Who may send requests to a workload. The agents' other ports are closed by it, but for what else opens them."""
    metadata = owned_metadata(pool, port_policy_name(pool, port))
    metadata["labels"] |= {WORKLOAD_UID_LABEL: workload.metadata.uid, PORT_LABEL: str(port)}
    return _policy(pool, metadata, port, _peers(workload, http))


def agents_policy_name(pool: InstancePool) -> str:
    """Of the NetworkPolicy that keeps the agents' own port open."""
    return f"{agent_name(pool.metadata.name)}-agents"


def agents_policy(pool: InstancePool) -> Manifest:
    """The port of metrics and probes, for everybody: it would be closed as soon as any policy selects the agents."""
    return _policy(pool, owned_metadata(pool, agents_policy_name(pool)), METRICS_PORT, [])


def _policy(pool: InstancePool, metadata: dict[str, Any], port: int, peers: list[dict[str, Any]]) -> Manifest:
    rule: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"}]}
    if peers:  # NB: an empty list would mean the same as none, everybody
        rule["from"] = peers
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": agent_selector(pool)},
            "policyTypes": ["Ingress"],
            "ingress": [rule],
        },
    }


def _peers(workload: WasmWorkload, http: Http) -> list[dict[str, Any]]:
    """For a NetworkPolicy's `from`; empty: everybody, also from outside of the cluster."""
    match http.ingress.from_:
        case From.ALL:
            return []
        case From.SAME:
            namespaces: dict[str, Any] = {"matchLabels": {NAMESPACE_NAME_LABEL: workload.metadata.namespace}}
        case From.SELECTOR:
            namespaces = encode(http.ingress.selector or LabelSelector())
    return [{"namespaceSelector": namespaces}]


def _metadata(workload: WasmWorkload, key: PoolKey, name: str) -> dict[str, Any]:
    """Of an object in the workload's namespace that goes when the workload goes."""
    return {
        "name": name,
        "namespace": workload.metadata.namespace,
        "labels": {
            POOL_LABEL: key.name,
            POOL_NAMESPACE_LABEL: key.namespace,
            MANAGED_BY_LABEL: MANAGED_BY,
            WORKLOAD_UID_LABEL: workload.metadata.uid,
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": WASM_WORKLOAD,
                "name": workload.metadata.name,
                "uid": workload.metadata.uid,
                "controller": True,
            }
        ],
    }
