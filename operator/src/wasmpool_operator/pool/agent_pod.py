"""The pod of an agent: what it asks for, what it mounts, and that it has no privilege. Pure."""

import math
from dataclasses import dataclass
from typing import Any, Final

from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, Backing, InstancePool, InstancePoolSpec
from wasmpool_api.meta import AGENT_CONTAINER, METRICS_PORT, agent_name
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionError, RegionShape, overhead_bytes_per_node

AGENT_NAME: Final = "wasmpool-agent"
AGENT_BASE_MEMORY: Final = Quantity(512 * 1024**2)
"""The supervisor, its workers' interpreters and one compiler, without anything that grows with the slots."""
AGENT_CPU_REQUEST: Final = "100m"
AGENT_USER: Final = 65532
STOP_MARGIN_SECONDS: Final = 15
PULL_SECRETS: Final = "pull-secrets"
PULL_SECRETS_DIRECTORY: Final = "/etc/wasmpool-pull-secrets"
PULL_SECRET_KEY: Final = ".dockerconfigjson"  # noqa: S105 - where it is
REGION_STARTUP_SECONDS: Final = 1800
"""Pages that were never touched since boot may cost 5 ms each: 256 GiB of them take eleven minutes."""

CACHE_DIRECTORY: Final = "/var/cache/wasmpool"
"""The agent's --cache-dir."""
CACHE_SPARE_BYTES: Final = 1024**3
"""On top of a quarter of agent.cache.sizeLimit: see `_cache_volume`."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the operator was started with."""

    image: str
    cluster_role: str = AGENT_NAME


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


def agent_pod(pool: InstancePool, shape: RegionShape, settings: AgentSettings, config_name: str) -> dict[str, Any]:
    """Its spec. Raises RegionError, see `agent_resources`."""
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
        "containers": [_agent_container(pool, shape, settings)],
        "volumes": [
            {"name": "pool", "configMap": {"name": config_name}},
            _cache_volume(pool),
            {"name": "tmp", "emptyDir": {}},
            *([_pull_secrets_volume(spec)] if spec.image_pull_secrets else []),
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
    return pod


def _own_directory(pool: InstancePool) -> str:
    """As the agent names it below its --cache-dir. Namespaces have no dots: no two pools have the same."""
    return f"{pool.metadata.namespace}.{pool.metadata.name}"


def _cache_volume(pool: InstancePool) -> dict[str, Any]:
    """The agent itself keeps to `size_limit`.

    The kubelet's limit is above that, for it ends the whole pod: downloads, what is being written, and what runs and so
    is never removed, may come on top for a while.
    """
    cache = pool.spec.agent.cache
    if cache.host_path:
        # NB: the pool's own and nothing around it, so that no pool reads another's code, or lays a link there.
        # Not DirectoryOrCreate: the kubelet would make it root's, and the agent could not write to it.
        return {"name": "cache", "hostPath": {"path": f"{cache.host_path}/{_own_directory(pool)}", "type": "Directory"}}
    allowed = Quantity(cache.size_limit + cache.size_limit // 4 + CACHE_SPARE_BYTES)
    return {"name": "cache", "emptyDir": {"sizeLimit": str(allowed)}}


def _pull_secrets_volume(spec: InstancePoolSpec) -> dict[str, Any]:
    """The pool's pull secrets for its modules. The kubelet reads them, so that the agent needs no right to."""
    sources: list[dict[str, Any]] = [
        {
            "secret": {
                "name": secret.name,
                # One that is not there must not keep the agents from starting, as it does not for their image.
                "optional": True,
                "items": [{"key": PULL_SECRET_KEY, "path": f"{secret.name}/{PULL_SECRET_KEY}"}],
            }
        }
        for secret in spec.image_pull_secrets
    ]
    return {"name": PULL_SECRETS, "projected": {"defaultMode": 0o440, "sources": sources}}


def _agent_container(pool: InstancePool, shape: RegionShape, settings: AgentSettings) -> dict[str, Any]:
    spec = pool.spec
    ours = {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 5}
    secrets = {"name": PULL_SECRETS, "mountPath": PULL_SECRETS_DIRECTORY, "readOnly": True}
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
            {"name": "cache", "mountPath": f"{CACHE_DIRECTORY}/{_own_directory(pool)}"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            *([secrets] if spec.image_pull_secrets else []),
        ],
    }
