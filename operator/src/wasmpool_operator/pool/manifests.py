"""The objects that make up a pool's agents. Pure: an InstancePool in, manifests out."""

from typing import Any, Final

import msgspec

from wasmpool_api.admission import BASE_PAGES_FIELDS, slot_fields_of
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import Admission, InstancePool, InstancePoolSpec
from wasmpool_api.instance_pool_node import NodeAdmission
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.meta import (
    API_VERSION,
    GROUP,
    INSTANCE_POOL,
    INSTANCE_POOL_NODE,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NODE_LABEL,
    POOL_LABEL,
    agent_name,
    pool_node_name,
    short_hash,
)
from wasmpool_api.region import RegionShape
from wasmpool_operator.pool.agent_pod import AGENT_NAME, AgentSettings, agent_pod
from wasmpool_operator.ports import Manifest
from wasmpool_operator.views import Node

NAME_LABEL: Final = "app.kubernetes.io/name"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""On every agent pod: the hash of the template that it was made from."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config"
"""On every agent pod: the ConfigMap that it mounts."""
_AGENT_FIELDS: Final[tuple[str, ...]] = ("allocation", "instanceLimits", "runtime", "egress", "http")
"""Taken from the pool's spec as they are. Of the limits see `_cut_for`."""


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


def node_admission(spec: InstancePoolSpec) -> NodeAdmission:
    """What a node's agent judges by. In its InstancePoolNode, so that it follows an edit without a restart."""
    return NodeAdmission(
        mode=spec.admission.mode, module_limits=spec.module_limits, component_limits=spec.component_limits
    )


def config_map(pool: InstancePool) -> Manifest:
    """The pool as its agents see it: an immutable ConfigMap, named by its content.

    NB: only what needs a new agent is in it, and no generation: otherwise every edit of, say, updateStrategy would
    replace every agent and its region. What an agent follows while it runs is in its InstancePoolNode.
    """
    spec: dict[str, Any] = encode(pool.spec)
    used: dict[str, Any] = {name: spec[name] for name in _AGENT_FIELDS if name in spec}
    slot_fields = slot_fields_of(pool.spec)
    used["moduleLimits"] = {name: limit for name, limit in spec["moduleLimits"].items() if name in slot_fields}
    if slot_fields == BASE_PAGES_FIELDS:
        used["componentLimits"] = spec["componentLimits"]
    used["tenancy"] = {"isolation": pool.spec.tenancy.isolation.value}
    if pool.spec.registries:
        used["registries"] = spec["registries"]
    if cache := spec["agent"]["cache"]:
        used["agent"] = {"cache": cache}
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


def _cut_for(pool: InstancePool) -> InstancePool:
    """The pool with only those limits that its agents set memory aside for; the others as if nobody had given them."""
    names = slot_fields_of(pool.spec)
    fields = msgspec.structs.fields(ModuleLimits)
    kept = {it.name: getattr(pool.spec.module_limits, it.name) for it in fields if it.encode_name in names}
    spec = msgspec.structs.replace(
        pool.spec,
        module_limits=ModuleLimits(**kept),
        component_limits=pool.spec.component_limits if names == BASE_PAGES_FIELDS else ComponentLimits(),
        admission=Admission(),
    )
    return msgspec.structs.replace(pool, spec=spec)


def daemon_set(pool: InstancePool, shape: RegionShape, settings: AgentSettings, config_name: str) -> Manifest:
    """The agents. OnDelete: the operator itself replaces pods, for two regions never fit beside each other."""
    template = _template(pool, shape, settings, config_name)
    # NB: the limits that agents only judge by change what memory the pods to come ask for, but replace none that is
    # there: so they are left out of the hash that says which pods are outdated.
    identity = _template(_cut_for(pool), shape, settings, config_name)
    template["metadata"]["annotations"][TEMPLATE_ANNOTATION] = intent_hash(identity)
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
            "admission": encode(node_admission(pool.spec)),
            "assignments": [],
        },
    }


def _template(pool: InstancePool, shape: RegionShape, settings: AgentSettings, config_name: str) -> dict[str, Any]:
    agent = pool.spec.agent
    return {
        "metadata": {
            "labels": agent.pod_labels | pool_labels(pool) | agent_selector(pool),
            "annotations": agent.pod_annotations | {CONFIG_ANNOTATION: config_name},
        },
        "spec": agent_pod(pool, shape, settings, config_name),
    }
