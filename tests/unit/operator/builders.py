"""Short ways to make what the tests of plans need."""

from typing import Any

from wasmpool_api.codec import decode, encode
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import Assignment, InstancePoolNode
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.pool.members import Member
from wasmpool_operator.views import Node, Pod


def pool(**spec: Any) -> InstancePool:
    limits = {"instanceLimits": {"count": 4, "addressSpaceSize": "1Gi"}, "moduleLimits": {"memoryPages": 32}}
    metadata = {"name": "web", "namespace": "team", "uid": "pool-uid", "generation": 1}
    return decode(InstancePool, {"metadata": metadata, "spec": limits | spec})


def workload(name: str = "job", *, status: dict[str, Any] | None = None, **spec: Any) -> WasmWorkload:
    full = {
        "poolRef": {"name": "web"},
        "module": {"configMap": {"name": "m", "key": "k"}},
        "run": {"command": {}},
    } | spec
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 1}
    return decode(WasmWorkload, {"metadata": metadata, "spec": full, "status": status or {}})


def pool_node(
    node: str = "n1",
    *,
    generation: int = 1,
    assignments: tuple[Assignment, ...] = (),
    status: dict[str, Any] | None = None,
) -> InstancePoolNode:
    spec = {
        "poolName": "web", "nodeName": node, "nodeUID": f"uid-{node}", "poolGeneration": 1,
        "assignments": [encode(it) for it in assignments],
    }  # fmt: skip
    metadata = {"name": f"web.{node}", "namespace": "team", "uid": f"pn-{node}", "generation": generation}
    return decode(InstancePoolNode, {"metadata": metadata, "spec": spec, "status": status or {}})


def pod(node: str = "n1", uid: str = "pod-1", **status: Any) -> Pod:
    metadata = {"name": f"agent-{node}", "namespace": "team", "uid": uid, "labels": {"wasmpool.dev/pool": "web"}}
    return decode(Pod, {"metadata": metadata, "spec": {"nodeName": node}, "status": status})


def node(name: str = "n1", **allocatable: str) -> Node:
    return decode(Node, {"metadata": {"name": name, "uid": f"uid-{name}"}, "status": {"allocatable": allocatable}})


def member(
    pool_node: InstancePoolNode | None = None, *, ready: bool = True, lost: bool = False, pod_uid: str = "pod-1"
) -> Member:
    name = pool_node.spec.node_name if pool_node is not None else "n1"
    return Member(
        name=name, node=node(name), pod=pod(name, pod_uid), pool_node=pool_node, ready=ready, updated=True, lost=lost,
        reason="AgentReady",
    )  # fmt: skip


def agent_info(pod_uid: str = "pod-1") -> dict[str, Any]:
    return {"podUID": pod_uid, "podName": "agent-n1", "version": "0.1.0", "wasmtimeVersion": "50.0.1"}
