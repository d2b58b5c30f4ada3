"""How http workloads are reached, on a real API server, with the test playing the agents.

We test these aspects:

* a port of the pool's range, one for each workload, the same on every node, kept over a restart of the operator;
* that a port is not given again before every agent has let go of it, and what is told when none is left;
* the Service, its EndpointSlices and the NetworkPolicies: where they lead, whom they let in, when they go;
* that nothing is taken over that somebody else made, and that what is in the way is named and looked at again;
* who answers while a pod ends, fails its probe, or its node is left;
* workloads that reserve nothing and borrow.
"""

import time
from typing import Any

import pytest

from tests.operator.conftest import OperatorProcess
from tests.operator.stage import Agent, Stage, address_of, until
from tests.operator.test_workloads import ready, ready_pool, status

pytestmark = pytest.mark.cluster


def ports(stage: Stage, name: str) -> set[int]:
    """The ports that the agents are told to listen on for a workload."""
    told = [it for agent in stage.agents for it in agent.assignments() if it["name"] == name and not it.get("inspect")]
    return {it.get("port", 0) for it in told}


def slices(stage: Stage, name: str) -> list[dict[str, Any]]:
    return stage.api.list("EndpointSlice", stage.namespace, f"kubernetes.io/service-name={name}")


def endpoints(stage: Stage, name: str) -> dict[str, dict[str, bool]]:
    """Conditions by node."""
    return {it["nodeName"]: it["conditions"] for found in slices(stage, name) for it in found["endpoints"] or ()}


def states(stage: Stage, name: str) -> dict[str, tuple[bool, bool, bool]]:
    """Ready, serving and terminating by node."""
    return {node: (it["ready"], it["serving"], it["terminating"]) for node, it in endpoints(stage, name).items()}


UP, ENDING, DOWN = (True, True, False), (False, True, True), (False, False, False)


def test_it_gets_a_port_a_service_and_endpoints(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    workload = stage.workload("front", instances=4, http={"port": 8080})
    stage.play(lambda: ready(stage, "front"))
    (port,) = ports(stage, "front")
    assert 20000 <= port <= 29999
    service = stage.get("Service", "front")
    assert "selector" not in service["spec"]
    (only,) = service["spec"]["ports"]
    assert (only["port"], only["targetPort"]) == (8080, port)
    (owner,) = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("WasmWorkload", workload["metadata"]["uid"], True)
    stage.play(lambda: states(stage, "front") == {agent.node: UP for agent in agents})
    (found,) = slices(stage, "front")
    assert found["addressType"] == "IPv4"
    assert found["ports"] == [{"name": "http", "port": port, "protocol": "TCP", "appProtocol": "http"}]
    assert found["metadata"]["ownerReferences"][0]["uid"] == workload["metadata"]["uid"]
    for entry in found["endpoints"]:
        agent = next(it for it in agents if it.node == entry["nodeName"])
        assert entry["addresses"] == [address_of(stage.get("Pod", agent.pod))]
        assert (entry["targetRef"]["name"], entry["targetRef"]["uid"]) == (agent.pod, agent.pod_uid)
    address = f"front.{stage.namespace}.svc:8080"
    stage.play(lambda: status(stage, "front").get("address") == address)


def test_another_port_of_the_service_is_not_another_port_of_the_pool(stage: Stage) -> None:
    ready_pool(stage)
    stage.workload("front", http={})
    stage.play(lambda: ready(stage, "front"))
    (port,) = ports(stage, "front")
    revision = status(stage, "front")["currentRevision"]
    change = {"spec": {"run": {"http": {"port": 81}}}}
    stage.api.patch("WasmWorkload", stage.namespace, "front", change)
    stage.play(lambda: [it["port"] for it in stage.get("Service", "front")["spec"]["ports"]] == [81])
    stage.play(lambda: status(stage, "front").get("address") == f"front.{stage.namespace}.svc:81")
    assert ports(stage, "front") == {port}
    assert status(stage, "front")["currentRevision"] == status(stage, "front")["updatedRevision"] == revision


def test_only_those_are_let_in_that_ingress_names_and_the_agents_own_port_stays_open(stage: Stage) -> None:
    ready_pool(stage)
    selector = {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}]}
    stage.workload("same", http={})
    stage.workload("all", http={"ingress": {"from": "All"}})
    stage.workload("some", http={"ingress": {"from": "Selector", "selector": selector}})
    names = ("same", "all", "some")
    stage.play(lambda: all(ready(stage, name) for name in names))
    rules: dict[int, dict[str, Any]] = {}
    for policy in stage.api.list("NetworkPolicy", stage.namespace):
        assert policy["spec"]["podSelector"]["matchLabels"] == {
            "wasmpool.dev/pool": "web", "app.kubernetes.io/name": "wasmpool-agent",
        }  # fmt: skip
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert policy["metadata"]["ownerReferences"][0]["kind"] == "InstancePool"
        (rule,) = policy["spec"]["ingress"]
        (port,) = rule["ports"]
        rules[port["port"]] = rule
    by_name = {name: ports(stage, name).pop() for name in names}
    assert len(set(by_name.values())) == 3
    own = {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}}
    assert rules[by_name["same"]]["from"] == [{"namespaceSelector": own}]
    assert rules[by_name["some"]]["from"] == [{"namespaceSelector": selector}]
    assert "from" not in rules[by_name["all"]]
    assert "from" not in rules[9464]
    assert len(rules) == 4


def test_a_service_that_somebody_else_made_is_left_alone_and_named(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    theirs = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": stage.namespace},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    }  # fmt: skip
    before = stage.api.create(theirs)
    stage.workload("front", http={})
    refused = stage.play(lambda: (it := stage.workload_condition("Admitted", "front")).get("status") == "False" and it)
    assert refused["reason"] == "ServiceConflict"
    assert refused["message"].startswith(f"Service {stage.namespace}/front exists and was not made for this")
    assert stage.workload_condition("Stalled", "front")["reason"] == "ServiceConflict"
    assert agent.slots_of("front") == 0
    assert "address" not in status(stage, "front")
    assert stage.get("Service", "front")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert slices(stage, "front") == []
    stage.api.delete("Service", stage.namespace, "front")
    stage.play(lambda: ready(stage, "front"), why="it is looked at again")
    assert stage.get("Service", "front")["metadata"]["ownerReferences"]


def test_a_slice_that_somebody_else_made_is_left_alone(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    metadata = {"name": "front-wasmpool-ipv4-0", "namespace": stage.namespace}
    theirs = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    before = stage.api.create(theirs | {"addressType": "IPv4", "endpoints": []})
    stage.workload("front", http={})
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    assert [it["metadata"]["name"] for it in slices(stage, "front")] == ["front-wasmpool-ipv4-1"]
    found = stage.get("EndpointSlice", "front-wasmpool-ipv4-0")
    assert found["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_what_somebody_changes_or_removes_is_made_anew(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("front", http={})
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    (port,) = ports(stage, "front")
    first = stage.get("Service", "front")["metadata"]["uid"]
    for kind in ("Service", "EndpointSlice", "NetworkPolicy"):
        for found in stage.api.list(kind, stage.namespace):
            stage.api.delete(kind, stage.namespace, found["metadata"]["name"])
    again = stage.play(lambda: (it := stage.get("Service", "front")).get("metadata", {}).get("uid") != first and it)
    assert again["spec"]["ports"][0]["targetPort"] == port, "its agents go on listening where they did"
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    stage.play(lambda: len(stage.api.list("NetworkPolicy", stage.namespace)) == 2)
    stage.api.patch(
        "Service", stage.namespace, "front", {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}}
    )
    stage.play(lambda: stage.get("Service", "front")["spec"]["ports"][0]["targetPort"] == port)
    assert ports(stage, "front") == {port}


def test_a_port_is_not_given_again_before_every_agent_has_let_go_of_it(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2, http={"portRange": "20000-20000"})
    stage.workload("one", http={}, instances=2)
    stage.play(lambda: ready(stage, "one"))
    stage.workload("two", http={})
    waits = stage.play(lambda: (it := stage.workload_condition("Admitted", "two")).get("reason") == "NoFreePort" and it)
    assert waits["status"] == "Unknown"
    assert waits["message"] == ("1 port wanted, http.portRange 20000-20000 of pool web has 1: 1 are other workloads'")
    stage.api.delete("WasmWorkload", stage.namespace, "one")
    until(lambda: not any(it["name"] == "one" for agent in stage.agents for it in agent.assignments()))
    first.obey()
    until(lambda: "1 not given back by all agents yet" in stage.workload_condition("Admitted", "two")["message"])
    time.sleep(1)
    assert ports(stage, "two") == set()
    until(lambda: not stage.get("Service", "one"), why="nobody is to be led to the port any more")
    assert stage.get("NetworkPolicy", "wasmpool-web-port-20000"), "it remembers whose the port is"
    second.obey()
    stage.play(lambda: ready(stage, "two"))
    assert ports(stage, "two") == {20000}


def test_a_port_is_kept_while_the_operator_is_away(stage: Stage, operator: OperatorProcess) -> None:
    agents = ready_pool(stage, nodes=2, http={"portRange": "20000-20003"})
    for name in ("a", "b", "c"):
        stage.workload(name, http={})
    stage.play(lambda: all(ready(stage, name) for name in ("a", "b", "c")))
    before = {name: ports(stage, name) for name in ("a", "b", "c")}
    operator.kill()
    stage.api.delete("WasmWorkload", stage.namespace, "b")
    stage.workload("d", http={})
    stage.workload("e", http={})
    operator.start()
    stage.play(lambda: ready(stage, "d") and ready(stage, "e"), seconds=30)
    after = {name: ports(stage, name) for name in ("a", "c", "d", "e")}
    assert {name: after[name] for name in ("a", "c")} == {name: before[name] for name in ("a", "c")}
    assert len(set.union(*after.values())) == 4
    assert all(agent.slots_of("b") == 0 for agent in agents)


def test_what_was_made_for_a_workload_goes_with_it_and_a_new_one_of_its_name_gets_its_own(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("front", http={})
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    first = stage.get("Service", "front")["metadata"]["uid"]
    stage.api.delete("WasmWorkload", stage.namespace, "front")
    again = stage.workload("front", http={})
    stage.play(lambda: ready(stage, "front"))
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    service = stage.get("Service", "front")
    assert service["metadata"]["uid"] != first
    assert service["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"]
    stage.api.delete("WasmWorkload", stage.namespace, "front")
    kinds = ("Service", "EndpointSlice", "NetworkPolicy")
    stage.play(lambda: [stage.api.list(kind, stage.namespace) for kind in kinds] == [[], [], []])


def test_a_node_answers_once_its_agent_says_so_and_its_pod_is_ready(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    second.states["front"] = {"state": "Compiling", "usedSlots": 0}
    stage.workload("front", instances=2, http={})
    stage.play(lambda: states(stage, "front") == {first.node: UP, second.node: DOWN})
    second.states.clear()
    stage.play(lambda: states(stage, "front") == {first.node: UP, second.node: UP})
    stage.pod_ready(stage.get("Pod", first.pod), ready=False)
    until(lambda: states(stage, "front") == {first.node: DOWN, second.node: UP})
    stage.pod_ready(stage.get("Pod", first.pod))
    until(lambda: states(stage, "front") == {first.node: UP, second.node: UP})


def test_requests_that_nobody_makes_do_not_count_as_missing_instances(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.states["front"] = {"usedSlots": 1}
    stage.workload("front", instances=3, http={})
    stage.play(lambda: ready(stage, "front"))
    assert status(stage, "front")["instances"]["ready"] == 3


def end_softly(stage: Stage, agent: Agent) -> None:
    """Deletes a pod as kubectl does: it goes on for its grace period."""
    path = stage.api.path("Pod", stage.namespace, agent.pod)
    stage.api.request("DELETE", path, {"gracePeriodSeconds": 60})


def test_an_ending_pod_is_left_to_what_it_has_begun(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("front", instances=2, http={})
    stage.play(lambda: states(stage, "front") == {first.node: UP, second.node: UP})
    end_softly(stage, first)
    until(lambda: states(stage, "front") == {first.node: ENDING, second.node: UP})
    stage.api.delete("Pod", stage.namespace, first.pod)
    until(lambda: states(stage, "front") == {second.node: UP})


def test_a_node_that_is_left_answers_until_others_have_taken_over(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("front", instances=2, http={}, placement={"maxPerNode": 2})
    stage.play(lambda: states(stage, "front") == {first.node: UP, second.node: UP})
    second.states["front"] = {"state": "Compiling", "usedSlots": 0}
    first.obey()
    second.obey()
    stage.api.patch("Node", "", first.node, {"spec": {"unschedulable": True}})
    stage.play(lambda: second.slots_of("front") == 2)
    assert states(stage, "front")[first.node] == UP
    second.states.clear()
    second.obey()
    until(lambda: states(stage, "front") == {first.node: ENDING, second.node: UP}, why="before its agent lets go")
    stage.play(lambda: states(stage, "front") == {second.node: UP})


def test_a_deleted_pool_leads_nowhere(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("front", http={})
    stage.play(lambda: states(stage, "front") == {agent.node: UP})
    stage.api.delete("InstancePool", stage.namespace, "web")
    for kind, name in (("Pod", agent.pod), ("DaemonSet", "wasmpool-web"), ("InstancePoolNode", agent.name)):
        stage.api.delete(kind, stage.namespace, name)
    stage.agents.clear()
    until(lambda: states(stage, "front") == {})
    assert stage.get("Service", "front"), "its address stays as long as the workload does"


def test_one_that_reserves_nothing_is_served_with_borrowed_slots(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("idle", instances=0, burst=3, http={})
    stage.play(lambda: ready(stage, "idle"))
    stage.play(lambda: all(not it.get("inspect") for agent in (first, second) for it in agent.assignments()))
    for agent in (first, second):
        (told,) = agent.assignments()
        assert (told.get("slots", 0), told["burst"], told["port"]) == (0, 3, ports(stage, "idle").pop())
    stage.play(lambda: stage.workload_condition("Ready", "idle")["message"] == "2 nodes serving with borrowed slots")
    assert stage.workload_condition("Ready", "idle")["reason"] == "Running"
    assert status(stage, "idle")["instances"]["reserved"] == 0
    stage.play(lambda: states(stage, "idle") == {first.node: UP, second.node: UP})
    old = first.assignments()[0]["revision"]
    first.states["idle"] = {"state": "Compiling"}
    change = {"spec": {"run": {"http": {"env": [{"name": "A", "value": "1"}]}}}}
    stage.api.patch("WasmWorkload", stage.namespace, "idle", change)
    stage.play(lambda: len(second.assignments()) == 1 and second.assignments()[0]["revision"] != old)
    told = {it["revision"]: it.get("outdated", False) for it in first.assignments()}
    assert told == {old: True, second.assignments()[0]["revision"]: False}, "the old one answers meanwhile"
    first.states.clear()
    stage.play(lambda: len(first.assignments()) == 1)
    stage.api.patch("WasmWorkload", stage.namespace, "idle", {"spec": {"burst": 0}})
    stage.play(lambda: not first.assignments() and not second.assignments())
    stage.play(lambda: stage.workload_condition("Ready", "idle").get("reason") == "ScaledToZero")
    stage.play(lambda: states(stage, "idle") == {})
