"""A stage for the operator: a real API server on which the test plays everybody else.

There is no kubelet, no scheduler, no controller and no garbage collector. The test makes the Nodes, makes the pods that
a DaemonSet's controller would make, and writes the InstancePoolNode statuses that the agents would write.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.operator.api import Api, Object

SECONDS = 20.0
NEEDS = {"functions": 10, "types": 3, "memories": 1, "memoryPages": 2, "tables": 1}


def until(what: Callable[[], Any], *, seconds: float = SECONDS, why: str = "") -> Any:
    """Polls until `what()` is true, and returns that; the last failed assertion or value is in the error."""
    deadline = time.monotonic() + seconds
    while True:
        problem: object = None
        try:
            found = what()
            if found:
                return found
            problem = found
        except AssertionError as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s{': ' + why if why else ''}; last: {problem}")
        time.sleep(0.05)


def condition(found: Object | None, kind: str) -> Object:
    """A condition of an object; empty without one."""
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return next((it for it in conditions if it["type"] == kind), {})


@dataclass
class Agent:
    """Plays the agent of one pool on one node.

    `modules`: needs by the name of the workload. `only_old`: the one revision that runs; whatever else is to run fails.
    """

    api: Api
    namespace: str
    pool: str
    node: str
    pod: str
    pod_uid: str
    slots: int
    slot_bytes: int
    ready: bool = True
    modules: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refusals: dict[str, tuple[str, str]] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    only_old: str = ""
    lingering: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its InstancePoolNode."""
        return f"{self.pool}.{self.node}"

    def assignments(self) -> list[Object]:
        """What it is told to do."""
        found = self.api.get("InstancePoolNode", self.namespace, self.name)
        return list((found or {}).get("spec", {}).get("assignments", []))

    def admission(self) -> Object:
        """What it is told to judge by."""
        found = self.api.get("InstancePoolNode", self.namespace, self.name)
        told: Object = (found or {}).get("spec", {}).get("admission", {})
        return told

    def slots_of(self, workload: str) -> int:
        """Slots that it is told to reserve for a workload."""
        return sum(it.get("slots", 0) for it in self.assignments() if it["name"] == workload)

    def obey(self) -> None:
        """One pass of an agent that does at once what it is told."""
        found = until(lambda: self.api.get("InstancePoolNode", self.namespace, self.name), why=self.name)
        entries = [self._entry(it) for it in found["spec"].get("assignments", [])]
        told = {(it["uid"], it["revision"]) for it in entries}
        entries += [
            {"uid": uid, "revision": revision, "state": "Running", "reservedSlots": count, "usedSlots": count}
            for (uid, revision), count in self.lingering.items()
            if (uid, revision) not in told
        ]
        self.report(found["metadata"]["generation"], entries)

    def report(self, generation: int, entries: list[Object], **more: Any) -> None:
        """Writes the status."""
        reserved = sum(it.get("reservedSlots", 0) for it in entries)
        status = {
            "observedGeneration": generation,
            "agent": {
                "podUID": self.pod_uid, "podName": self.pod, "version": "0.1.0", "wasmtimeVersion": "50.0.1",
            },
            "conditions": [
                _condition("Ready", self.ready, "AgentReady" if self.ready else "AgentNotReady"),
                _condition("RegionReserved", True, "HugePagesReserved"),
            ],
            "slots": {
                "capacity": self.slots, "allocatable": self.slots, "reserved": reserved,
                "used": sum(it.get("usedSlots", 0) for it in entries), "free": self.slots - reserved, "quarantined": 0,
            },
            "memory": {
                "backing": "HugePages2Mi", "pageSize": "2Mi", "slotBytes": self.slot_bytes,
                "regionBytes": self.slots * self.slot_bytes,
            },
            "workloads": entries,
        }  # fmt: skip
        self.api.patch("InstancePoolNode", self.namespace, self.name, {"status": status | more}, "status")

    def _entry(self, assignment: Object) -> Object:
        name = assignment["name"]
        entry: Object = {"uid": assignment["uid"], "revision": assignment["revision"], "state": "Pending"}
        entry |= {"reservedSlots": 0, "usedSlots": 0}
        if name in self.refusals:
            reason, message = self.refusals[name]
            return entry | {"state": "Refused", "reason": reason, "message": message}
        if assignment.get("inspect"):
            needs = dict(self.modules.get(name, NEEDS))
            digest = needs.pop("digest", "sha256:" + "ab" * 32)
            module = {"digest": digest, "sizeBytes": 1000, "needs": _full(needs)}
            return entry | {"state": "Inspected", "digest": digest, "module": module}
        slots = assignment.get("slots", 0)
        if self.only_old and assignment["revision"] != self.only_old:
            failing = {"state": "BackOff", "reason": "BackOff", "message": "it failed 3 times"}
            return entry | failing | {"reservedSlots": slots}
        running = {"state": "Running", "reservedSlots": slots, "usedSlots": slots}
        return entry | running | self.states.get(name, {})


class Stage:
    """One namespace, its nodes and its agents."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.nodes: list[str] = []
        self.agents: list[Agent] = []

    def node(self, name: str, huge_pages: str | None = "64Mi", labels: Mapping[str, str] | None = None) -> str:
        """A Node; its name is made the test's own."""
        full = f"{name}-{self.namespace}"
        self.api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": full, "labels": dict(labels or {})}})
        self.nodes.append(full)
        self.huge_pages(full, huge_pages)
        return full

    def huge_pages(self, node: str, amount: str | None) -> None:
        """What its kubelet says is allocatable."""
        amounts = {"cpu": "4", "memory": "8Gi", "pods": "110"} | ({"hugepages-2Mi": amount} if amount else {})
        self.api.patch("Node", "", node, {"status": {"allocatable": amounts, "capacity": amounts}}, "status")

    def pool(self, name: str = "web", **spec: Any) -> Object:
        """An InstancePool with four slots of 1 MiB on each node, unless the spec says otherwise."""
        full: Object = {
            "instanceLimits": {"count": 4, "addressSpaceSize": "1Gi"},
            "moduleLimits": {"memoryPages": 16},
        } | spec
        return self.api.create(
            {
                "apiVersion": "wasmpool.dev/v1alpha1",
                "kind": "InstancePool",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": full,
            }
        )

    def workload(
        self, name: str, *, pool: str = "web", command: Object | None = None, http: Object | None = None, **spec: Any
    ) -> Object:
        """A WasmWorkload with one instance; of a command, unless it is to serve `http`."""
        return self.api.create(
            {
                "apiVersion": "wasmpool.dev/v1alpha1",
                "kind": "WasmWorkload",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "poolRef": {"name": pool},
                    "module": {"configMap": {"name": "guests", "key": f"{name}.wasm"}},
                    "run": {"http": http} if http is not None else {"command": command or {}},
                }
                | spec,
            }
        )

    def daemon_set(self, pool: str = "web") -> Object:
        """The pool's DaemonSet, once the operator has made it."""
        found: Object = until(lambda: self.api.get("DaemonSet", self.namespace, f"wasmpool-{pool}"), why="DaemonSet")
        return found

    def daemon_set_wants(self, pods: int, pool: str = "web") -> None:
        """Plays the DaemonSet's controller: it has seen the present spec and wants so many pods."""
        generation = self.daemon_set(pool)["metadata"]["generation"]
        counts = {
            "observedGeneration": generation, "desiredNumberScheduled": pods, "currentNumberScheduled": pods,
            "numberMisscheduled": 0, "numberReady": 0,
        }  # fmt: skip
        self.api.patch("DaemonSet", self.namespace, f"wasmpool-{pool}", {"status": counts}, "status")

    def pod(self, node: str, *, pool: str = "web", name: str = "", pending: bool = False) -> Object:
        """Plays the DaemonSet's controller: the pod for a node, bound to it unless it is pending."""
        daemon_set = self.daemon_set(pool)
        template = daemon_set["spec"]["template"]
        affinity = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
                    ]
                }
            }
        }
        spec: Object = dict(template["spec"]) | ({"affinity": affinity} if pending else {"nodeName": node})
        spec.pop("serviceAccountName", None)
        spec.pop("serviceAccount", None)
        metadata = daemon_set["metadata"]
        return self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name or f"wasmpool-{pool}-{node[:8].rstrip('-')}-{len(self.agents)}",
                    "namespace": self.namespace,
                    "labels": template["metadata"]["labels"],
                    "annotations": template["metadata"].get("annotations", {}),
                    "ownerReferences": [
                        {
                            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": metadata["name"],
                            "uid": metadata["uid"], "controller": True,
                        }
                    ],
                },
                "spec": spec,
            }
        )  # fmt: skip

    def stranger(self, node: str, huge_pages: str) -> Object:
        """Somebody else's pod on the node."""
        amounts = {"hugepages-2Mi": huge_pages, "memory": "1Mi"}
        container = {"name": "it", "image": "x", "resources": {"requests": amounts, "limits": amounts}}
        return self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "stranger", "namespace": self.namespace},
                "spec": {"nodeName": node, "containers": [container]},
            }
        )

    def pod_status(self, pod: Object, **status: Any) -> None:
        """Plays the kubelet."""
        self.api.patch("Pod", self.namespace, pod["metadata"]["name"], {"status": status}, "status")

    def pod_ready(self, pod: Object, ready: bool = True) -> None:
        """The pod's heartbeat, and its address."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        address = address_of(pod)
        self.pod_status(
            pod,
            phase="Running",
            podIP=address,
            podIPs=[{"ip": address}],
            conditions=[{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": at}],
        )

    def agent(self, node: str, *, pool: str = "web", slots: int = 4, slot_bytes: int = 2**20, name: str = "") -> Agent:
        """A pod on the node that is ready, and its agent, which has reported once."""
        pod = self.pod(node, pool=pool, name=name)
        agent = Agent(
            self.api, self.namespace, pool, node, pod["metadata"]["name"], pod["metadata"]["uid"], slots, slot_bytes
        )
        self.agents.append(agent)
        self.pod_ready(pod)
        agent.obey()
        return agent

    def play(self, what: Callable[[], Any], *, seconds: float = SECONDS, why: str = "") -> Any:
        """As `until`, with every agent doing what it is told meanwhile."""

        def turn() -> Any:
            for agent in self.agents:
                agent.obey()
            return what()

        return until(turn, seconds=seconds, why=why)

    def get(self, kind: str, name: str) -> Object:
        """An object of the namespace, or an empty one."""
        return self.api.get(kind, self.namespace, name) or {}

    def pool_condition(self, kind: str, pool: str = "web") -> Object:
        """A condition of the pool."""
        return condition(self.get("InstancePool", pool), kind)

    def unready_nodes(self, pool: str = "web") -> list[Object]:
        """As the pool's status has them; none while it has no status."""
        found = self.get("InstancePool", pool).get("status", {}).get("unreadyNodes", [])
        return list(found)

    def workload_condition(self, kind: str, workload: str) -> Object:
        """A condition of a workload."""
        return condition(self.get("WasmWorkload", workload), kind)

    def close(self) -> None:
        """Takes away what concerns the whole cluster, and what the operator would go on with."""
        kinds = (
            "WasmWorkload", "InstancePool", "InstancePoolNode", "Pod", "DaemonSet", "Service", "EndpointSlice",
            "NetworkPolicy",
        )  # fmt: skip
        for kind in kinds:
            for found in self.api.list(kind, self.namespace):
                self.api.delete(kind, self.namespace, found["metadata"]["name"])
        for node in self.nodes:
            self.api.delete("Node", "", node)


def address_of(pod: Object) -> str:
    """The address that a pod has here: one of its own."""
    number = int(pod["metadata"]["uid"][:4], 16)
    return f"10.7.{number // 256}.{number % 256}"


def _condition(kind: str, truth: bool, reason: str) -> Object:
    return {
        "type": kind, "status": "True" if truth else "False", "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }  # fmt: skip


def _full(needs: Mapping[str, Any]) -> Object:
    names = (
        "importedFunctions", "importedTables", "importedMemories", "importedGlobals", "types", "functions", "tables",
        "memories", "globals", "tableElements", "memoryPages",
    )  # fmt: skip
    return dict.fromkeys(names, 0) | {"features": []} | dict(needs)
