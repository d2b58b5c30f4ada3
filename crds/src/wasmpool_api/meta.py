"""Group, version, kinds, labels and the pieces of metadata that wasmpool reads.

Only the fields that wasmpool uses are declared; unknown ones of Kubernetes' own metadata are ignored.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

GROUP: Final = "wasmpool.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

INSTANCE_POOL: Final = "InstancePool"
INSTANCE_POOL_NODE: Final = "InstancePoolNode"
WASM_WORKLOAD: Final = "WasmWorkload"
PLURALS: Final[Mapping[str, str]] = {
    INSTANCE_POOL: "instancepools",
    INSTANCE_POOL_NODE: "instancepoolnodes",
    WASM_WORKLOAD: "wasmworkloads",
}

POOL_LABEL: Final = f"{GROUP}/pool"
POOL_NAMESPACE_LABEL: Final = f"{GROUP}/pool-namespace"
"""On what is made for a pool outside of the pool's own namespace."""
PORT_LABEL: Final = f"{GROUP}/port"
MODULE_ANNOTATION: Final = f"{GROUP}/module"
"""On a ControllerRevision: the module that it is pinned to, as JSON, so that a rollback need not look for it again."""
NODE_LABEL: Final = f"{GROUP}/node"
WORKLOAD_UID_LABEL: Final = f"{GROUP}/workload-uid"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "wasmpool-operator"
AGENT_CONTAINER: Final = "agent"
METRICS_PORT: Final = 9464

POOL_NAME_MAX_LENGTH: Final = 40


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """metav1.OwnerReference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """The part of metav1.ObjectMeta that wasmpool reads. Timestamps stay RFC 3339 text: they are only compared."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Condition(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """metav1.Condition. `status` is "True", "False" or "Unknown"; `reason` is one of `wasmpool_api.reasons`."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


def short_hash(payload: bytes) -> str:
    """Ten hex digits that name immutable content (ConfigMaps, ControllerRevisions)."""
    return hashlib.sha256(payload).hexdigest()[:10]


def agent_name(pool: str) -> str:
    """Name of the pool's ServiceAccount, RoleBinding and DaemonSet, all in the pool's namespace."""
    return f"wasmpool-{pool}"


def pool_node_name(pool: str, node: str) -> str:
    """Name of the InstancePoolNode of one pool on one node. Pool names have no dots, so the first dot parts the two."""
    return f"{pool}.{node}"
