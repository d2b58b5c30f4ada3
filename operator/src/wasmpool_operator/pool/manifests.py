"""The objects that make up a pool's agents. Pure: an InstancePool in, manifests out."""

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, Backing, InstancePool, InstancePoolSpec
from wasmpool_api.meta import (
    AGENT_CONTAINER,
    API_VERSION,
    GROUP,
    INSTANCE_POOL,
    INSTANCE_POOL_NODE,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    METRICS_PORT,
    NODE_LABEL,
    POOL_LABEL,
    agent_name,
    pool_node_name,
    short_hash,
)
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionError, RegionShape, overhead_bytes_per_node
from wasmpool_operator.ports import Manifest
from wasmpool_operator.views import Node

NAME_LABEL: Final = "app.kubernetes.io/name"
AGENT_NAME: Final = "wasmpool-agent"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""On every agent pod: the hash of the template that it was made from."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config"
"""On every agent pod: the ConfigMap that it mounts."""
AGENT_BASE_MEMORY: Final = Quantity(512 * 1024**2)
"""The supervisor, its workers' interpreters and one compiler, without anything that grows with the slots."""
AGENT_CPU_REQUEST: Final = "100m"
AGENT_USER: Final = 65532
STOP_MARGIN_SECONDS: Final = 15
REGION_STARTUP_SECONDS: Final = 1800
"""Pages that were never touched since boot may cost 5 ms each: 256 GiB of them take eleven minutes."""

_AGENT_FIELDS: Final[tuple[str, ...]] = (
    "allocation",
    "instanceLimits",
    "moduleLimits",
    "componentLimits",
    "runtime",
    "egress",
    "http",
    "admission",
)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the operator was started with."""

    image: str
    cluster_role: str = AGENT_NAME


def pool_labels(pool: InstancePool) -> dict[str, str]:
    """On everything that the operator makes for a pool."""
    return {POOL_LABEL: pool.metadata.name, MANAGED_BY_LABEL: MANAGED_BY}


def agent_selector(pool: InstancePool) -> dict[str, str]:
    """Selects the pool's agent pods and nothing else (ControllerRevisions carry the pool's label too)."""
    return {POOL_LABEL: pool.metadata.name, NAME_LABEL: AGENT_NAME}


def owned_metadata(pool: InstancePool, name: str) -> dict[str, Any]:
    """Metadata of an object that goes when the pool goes."""
    return {
        "name": name,
        "namespace": pool.metadata.namespace,
        "labels": pool_labels(pool),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": INSTANCE_POOL,
                "name": pool.metadata.name,
                "uid": pool.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def intent_hash(manifest: Manifest) -> str:
    """Names the content of a manifest."""
    return short_hash(msgspec.json.encode(manifest, order="sorted"))


def service_account(pool: InstancePool) -> Manifest:
    """What the agents are in the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owned_metadata(pool, agent_name(pool.metadata.name)),
    }


def role_binding(pool: InstancePool, settings: AgentSettings) -> Manifest:
    """What the agents may do, in the pool's namespace alone."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": owned_metadata(pool, agent_name(pool.metadata.name)),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": settings.cluster_role},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": agent_name(pool.metadata.name),
                "namespace": pool.metadata.namespace,
            }
        ],
    }


def config_map(pool: InstancePool) -> Manifest:
    """The pool as its agents see it: an immutable ConfigMap, named by its content.

    NB: only fields that an agent acts on are in it, and no generation: otherwise every edit of, say, updateStrategy
    would replace every agent and its region.
    """
    spec: dict[str, Any] = encode(pool.spec)
    used: dict[str, Any] = {name: spec[name] for name in _AGENT_FIELDS if name in spec}
    used["tenancy"] = {"isolation": pool.spec.tenancy.isolation.value}
    content = {
        "apiVersion": API_VERSION,
        "kind": INSTANCE_POOL,
        "metadata": {
            "name": pool.metadata.name,
            "namespace": pool.metadata.namespace,
            "uid": pool.metadata.uid,
        },
        "spec": used,
    }
    text = msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=2)
    name = f"{agent_name(pool.metadata.name)}-{short_hash(text)}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned_metadata(pool, name),
        "immutable": True,
        "data": {"pool.yaml": text.decode() + "\n"},
    }


def daemon_set(pool: InstancePool, shape: RegionShape, settings: AgentSettings, config_name: str) -> Manifest:
    """The agents. OnDelete: the operator itself replaces pods, for two regions never fit beside each other."""
    template = _pod_template(pool, shape, settings, config_name)
    template["metadata"]["annotations"][TEMPLATE_ANNOTATION] = intent_hash(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": owned_metadata(pool, agent_name(pool.metadata.name)),
        "spec": {
            "selector": {"matchLabels": agent_selector(pool)},
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 2,
            "template": template,
        },
    }


def template_of(manifest: Manifest) -> str:
    """The template hash that a DaemonSet's new pods carry."""
    return str(manifest["spec"]["template"]["metadata"]["annotations"][TEMPLATE_ANNOTATION])


def pool_node(pool: InstancePool, node: Node) -> Manifest:
    """An InstancePoolNode that promises nothing yet."""
    metadata = owned_metadata(pool, pool_node_name(pool.metadata.name, node.metadata.name))
    if len(node.metadata.name) <= 63:
        metadata["labels"][NODE_LABEL] = node.metadata.name
    return {
        "apiVersion": API_VERSION,
        "kind": INSTANCE_POOL_NODE,
        "metadata": metadata,
        "spec": {
            "poolName": pool.metadata.name,
            "nodeName": node.metadata.name,
            "nodeUID": node.metadata.uid,
            "poolGeneration": pool.metadata.generation,
            "assignments": [],
        },
    }


def agent_resources(spec: InstancePoolSpec, shape: RegionShape) -> dict[str, Any]:
    """Requests and limits of the agent's container.

    `spec.agent.resources` is taken as it is, but for memory: the amount there replaces `AGENT_BASE_MEMORY`, and what
    grows with the slots (and the region itself, on base pages) comes on top. Raises RegionError for an amount that no
    machine could have.
    """
    given: dict[str, dict[str, Any]] = {
        kind: dict(spec.agent.resources.get(kind) or {}) for kind in ("requests", "limits")
    }
    on_top = overhead_bytes_per_node(spec, shape)
    huge = HUGE_PAGE_RESOURCE.get(shape.backing)
    if shape.backing is Backing.BASE_PAGES:
        on_top += shape.region_bytes
    limit_base = _memory(given, "limits", on_top)
    request_base = _memory(given, "requests", on_top) or limit_base or AGENT_BASE_MEMORY
    limit_base = limit_base or Quantity(max(AGENT_BASE_MEMORY, request_base))
    requests = {"cpu": AGENT_CPU_REQUEST} | given["requests"] | {"memory": str(Quantity(request_base + on_top))}
    limits = given["limits"] | {"memory": str(Quantity(limit_base + on_top))}
    if "cpu" in given["limits"] and "cpu" not in given["requests"]:
        del requests["cpu"]  # the API server makes it the limit
    if huge is not None:
        requests[huge] = limits[huge] = str(Quantity(shape.region_bytes))
    return {"requests": requests, "limits": limits}


def _memory(given: dict[str, dict[str, Any]], kind: str, on_top: int) -> Quantity | None:
    if "memory" not in given[kind]:
        return None
    text = str(given[kind]["memory"])
    largest = Quantity.LARGEST - on_top
    try:
        amount = Quantity.parse(text)
    except ValueError:
        amount = None
    if amount is None or amount > largest:
        allowed = f"a whole number of bytes from 0 to {largest}, as 512Mi, 1G or 4096"
        raise RegionError(f"spec.agent.resources.{kind}.memory", text, allowed)
    return amount


def _pod_template(pool: InstancePool, shape: RegionShape, settings: AgentSettings, config_name: str) -> dict[str, Any]:
    spec = pool.spec
    pod: dict[str, Any] = {
        "serviceAccountName": agent_name(pool.metadata.name),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(spec.runtime.request_deadline) + STOP_MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": AGENT_USER,
            "runAsGroup": AGENT_USER,
            "fsGroup": AGENT_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_agent_container(spec, shape, settings)],
        "volumes": [
            {"name": "pool", "configMap": {"name": config_name}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    optional: dict[str, Any] = {
        "nodeSelector": spec.node_selector,
        "tolerations": list(spec.tolerations),
        "affinity": spec.affinity,
        "priorityClassName": spec.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
    }
    pod |= {name: value for name, value in optional.items() if value}
    return {
        "metadata": {
            "labels": spec.agent.pod_labels | pool_labels(pool) | agent_selector(pool),
            "annotations": spec.agent.pod_annotations | {CONFIG_ANNOTATION: config_name},
        },
        "spec": pod,
    }


def _agent_container(spec: InstancePoolSpec, shape: RegionShape, settings: AgentSettings) -> dict[str, Any]:
    ours = {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 5}
    return {
        "name": AGENT_CONTAINER,
        "image": spec.agent.image or settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--pool", "/etc/wasmpool/pool.yaml"],
        "env": [
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in ours.items()),
            *(dict(variable) for variable in spec.agent.env if variable.get("name") not in ours),
        ],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "resources": agent_resources(spec, shape),
        "startupProbe": probe | {"periodSeconds": 2, "failureThreshold": REGION_STARTUP_SECONDS // 2},
        "livenessProbe": probe | {"periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": probe
        | {"httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 2, "failureThreshold": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "pool", "mountPath": "/etc/wasmpool", "readOnly": True},
            {"name": "cache", "mountPath": "/var/cache/wasmpool"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        ],
    }
