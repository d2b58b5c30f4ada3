"""Ports of http workloads, and who is named as an endpoint.

Covers: over any order of workloads that come and go, agents that are slow and operators that are killed, no port is
ever two workloads' and no workload has two ports; large pools need several slices; both families of addresses; only
pods of the pool's DaemonSet count.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.operator.builders import agent_info, node, pool, pool_node, workload
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool_node import Assignment, InstancePoolNode
from wasmpool_api.meta import PORT_LABEL, WORKLOAD_UID_LABEL, ObjectMeta, OwnerReference
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import Lookup, ObjectName, Observed
from wasmpool_operator.promises import Ledger
from wasmpool_operator.resources import NETWORK_POLICIES
from wasmpool_operator.serving.endpoints import endpoints_of, in_slices
from wasmpool_operator.serving.fronts import Fronts, fronts_of, may_listen
from wasmpool_operator.serving.names import Names
from wasmpool_operator.views import DaemonSet, Pod, PoolKey
from wasmpool_operator.workload.reports import index_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = PoolKey("team", "web")
NODES = ("n1", "n2")
RANGE = "20000-20002"


class Nothing(dict[ObjectName, Lookup]):
    """Every name is free, but those that are somebody else's."""

    def __init__(self, taken: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._taken = taken

    def get(self, name: ObjectName, default: Any = None) -> Any:
        return Lookup(NOW, ObjectMeta(name=name.name) if name.name in self._taken else None)


class World:
    """A pool of three ports and two nodes; the operator's memory, and what each agent listens on by uid."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.workloads = dict[str, WasmWorkload]()
        self.policies: dict[int, str] = {}
        self.nodes: dict[str, InstancePoolNode] = {}
        self.listening: dict[str, dict[str, int]] = {}
        for name in NODES:
            self._write(name, 1, (), 1, ())
            self.listening[name] = {}
        self.had: dict[str, int] = {}

    def plan(self) -> Fronts:
        """One reconcile, with all that it writes."""
        for found in self.nodes.values():
            self.ledger.observe(found)
        observed = Observed(
            key=KEY, now=NOW, pool=pool(http={"portRange": RANGE}), workloads=tuple(self.workloads.values()),
            pool_nodes=tuple(self.nodes.values()), network_policies=tuple(map(self._policy, self.policies)),
            lookups=Nothing(), listening={it.metadata.name: self.ledger.workloads(it) for it in self.nodes.values()},
        )  # fmt: skip
        fronts = fronts_of(observed, Names(observed), set(self.workloads))
        for port, uid in list(self.policies.items()):
            if uid not in self.workloads and not may_listen(observed, uid):
                del self.policies[port]
        for uid, port in fronts.ports.items():
            assert self.had.setdefault(uid, port) == port, "a workload keeps its port"
            assert self.policies.setdefault(port, uid) == uid, "a port has one policy"
        told = tuple(
            Assignment(uid=uid, namespace="team", name=uid, revision="r", port=port)
            for uid, port in sorted(fronts.ports.items())
        )
        for name, found in self.nodes.items():
            if told != found.spec.assignments:
                status = found.status
                uids = tuple(it.uid for it in status.workloads)
                self._write(name, found.metadata.generation + 1, told, status.observed_generation, uids)
        return fronts

    def obey(self, name: str, *, lingers: bool = False) -> None:
        """An agent that does what it is told, and says so; one that lingers lets what it has begun come to its end."""
        found = self.nodes[name]
        told = found.spec.assignments
        if not lingers:
            for uid in self.listening[name].keys() - {it.uid for it in told}:
                del self.listening[name][uid]
        for it in told:
            others = {uid for uid, port in self.listening[name].items() if port == it.port}
            assert others <= {it.uid}, "nobody else listens there"
            self.listening[name][it.uid] = it.port
        generation = found.metadata.generation
        self._write(name, generation, told, generation, tuple(sorted(self.listening[name])))
        self.check()

    def check(self) -> None:
        """Over all nodes: what is listened on now."""
        owners: dict[int, set[str]] = {}
        for ports in self.listening.values():
            for uid, port in ports.items():
                owners.setdefault(port, set()).add(uid)
        assert all(len(uids) == 1 for uids in owners.values()), owners

    def _write(
        self, name: str, generation: int, told: tuple[Assignment, ...], confirmed: int, uids: tuple[str, ...]
    ) -> None:
        status = {
            "observedGeneration": confirmed,
            "agent": agent_info(),
            "workloads": [{"uid": uid, "revision": "r", "state": "Running"} for uid in uids],
        }
        self.nodes[name] = pool_node(name, generation=generation, assignments=told, status=status)

    def _policy(self, port: int) -> ObjectMeta:
        owner = OwnerReference("wasmpool.dev/v1alpha1", "InstancePool", "web", "pool-uid", controller=True)
        labels = {WORKLOAD_UID_LABEL: self.policies[port], PORT_LABEL: str(port)}
        return ObjectMeta(name=f"wasmpool-web-port-{port}", namespace="team", labels=labels, owner_references=(owner,))


STEPS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(range(6))),
    st.tuples(st.just("go"), st.sampled_from(range(6))),
    st.tuples(st.just("obey"), st.sampled_from(range(2))),
    st.tuples(st.just("linger"), st.sampled_from(range(2))),
    st.tuples(st.just("restart"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
@example([("come", 0), ("obey", 1), ("go", 0), ("obey", 0), ("linger", 1), ("come", 0)])
def test_no_port_is_ever_two_workloads(steps: list[tuple[str, int]]) -> None:
    world, lives = World(), dict[int, int]()
    for step, which in steps:
        life = lives.get(which, 0)
        uid = f"uid-w{which}-{life}"
        match step:
            case "come":
                world.workloads[uid] = workload(f"w{which}-{life}", run={"http": {}})
            case "go":
                world.workloads.pop(uid, None)
                lives[which] = life + 1
            case "obey":
                world.obey(NODES[which])
            case "linger":
                world.obey(NODES[which], lingers=True)
            case _:
                world.ledger = Ledger()
        world.plan()
    for name in NODES * 2:
        world.obey(name)
        world.plan()
    for name in NODES:
        world.obey(name)
    fronts = world.plan()
    assert len(fronts.ports) == min(3, len(world.workloads)), "what was let go of is given again"


def test_a_port_whose_policy_is_somebody_elses_is_passed_over() -> None:
    found = workload("front", run={"http": {}})
    names = [f"wasmpool-web-port-{port}" for port in (20000, 20001, 20002)]
    for taken, given_port in ((names[:2], 20002), (names[1:], 20000)):
        observed = Observed(
            key=KEY, now=NOW, pool=pool(http={"portRange": RANGE}), workloads=(found,), lookups=Nothing(tuple(taken))
        )
        assert fronts_of(observed, Names(observed), {"uid-front"}).ports == {"uid-front": given_port}
    observed = Observed(
        key=KEY, now=NOW, pool=pool(http={"portRange": RANGE}), workloads=(found,), lookups=Nothing(tuple(names))
    )
    hindrance = fronts_of(observed, Names(observed), {"uid-front"}).by_uid["uid-front"].hindrance
    assert hindrance is not None
    assert (hindrance.reason, hindrance.message) == (
        "NoFreePort",
        "1 port wanted, http.portRange 20000-20002 of pool web has 3: 0 are other workloads', 3 with a NetworkPolicy "
        "of somebody else",
    )


def test_nothing_is_made_at_a_name_before_it_was_looked_up() -> None:
    observed = Observed(
        key=KEY, now=NOW, pool=pool(http={"portRange": "20000-20000"}),
        workloads=(workload("front", run={"http": {}}),), lookups={},
    )  # fmt: skip
    names = Names(observed)
    assert fronts_of(observed, names, {"uid-front"}).ports == {}
    assert ObjectName(NETWORK_POLICIES, "team", "wasmpool-web-port-20000") in names.to_look_up


DAEMON_SET = decode(DaemonSet, {"metadata": {"name": "wasmpool-web", "uid": "ds-uid"}})


def answering(name: str, *addresses: str, owner: str = "ds-uid", pod: Mapping[str, Any] | None = None) -> Member:
    """A node whose agent runs the workload."""
    assignment = Assignment(uid="uid-front", namespace="team", name="front", revision="r", slots=1, port=20000)
    entry = {"uid": "uid-front", "revision": "r", "state": "Running"}
    found = pool_node(
        name, assignments=(assignment,), status={"agent": agent_info(f"pod-{name}"), "workloads": [entry]}
    )
    metadata = {
        "name": f"agent-{name}", "namespace": "team", "uid": f"pod-{name}",
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": owner, "controller": True}
        ],
    }  # fmt: skip
    status = {
        "phase": "Running", "podIPs": [{"ip": it} for it in addresses],
        "conditions": [{"type": "Ready", "status": "True"}],
    }  # fmt: skip
    agent = decode(Pod, {"metadata": metadata, "spec": {"nodeName": name}, "status": status | dict(pod or {})})
    return Member(name, node(name), agent, found, ready=True, updated=True, lost=False, reason="AgentReady")


def slices(*members: Member) -> list[tuple[str, list[dict[str, Any]]]]:
    by_name = {it.name: it for it in members}
    reports = index_of(members).reports.get("uid-front", ())
    return list(in_slices(endpoints_of(by_name, DAEMON_SET, set(by_name), reports)))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_a_slice_holds_a_hundred_endpoints(count: int, sizes: list[int]) -> None:
    found = slices(*(answering(f"n{number:03}", f"10.0.{number // 256}.{number % 256}") for number in range(count)))
    assert [len(entries) for _, entries in found] == sizes
    assert len({it["addresses"][0] for _, entries in found for it in entries}) == count


def test_each_family_of_addresses_has_slices_of_its_own() -> None:
    found = dict(slices(answering("n1", "10.0.0.1", "fd00::1"), answering("n2", "fd00::2")))
    assert [it["addresses"] for it in found["IPv4"]] == [["10.0.0.1"]]
    assert [it["addresses"] for it in found["IPv6"]] == [["fd00::1"], ["fd00::2"]]


def test_only_pods_of_the_pools_daemon_set_with_an_address_are_endpoints() -> None:
    assert slices(answering("n1", "10.0.0.1", owner="somebody-else"), answering("n2"), answering("n3", "x")) == []
    assert slices(answering("n1", "10.0.0.1", pod={"phase": "Failed"})) == []
