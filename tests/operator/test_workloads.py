"""What the operator makes of WasmWorkloads, on a real API server, with the test playing the agents.

We test these aspects:

* the order: inspected on one node, judged, slots reserved, run; and that a refused one never holds a slot;
* every reason for not running, with its numbers, and that it is judged anew when the limits change;
* slots: who gets them, when they come free, that none is promised twice, shares and priorities;
* counted runs: which indexes go where, what is done stays done, nothing runs twice;
* a new version beside the old one, deletion, and the revisions that are left over;
* the operator killed and started again in the midst of it.
"""

import time
from typing import Any

import pytest

from tests.operator.conftest import OperatorProcess
from tests.operator.stage import Agent, Stage, until

pytestmark = pytest.mark.cluster


def ready_pool(stage: Stage, nodes: int = 1, **spec: Any) -> list[Agent]:
    """A pool with so many ready agents."""
    stage.pool(**spec)
    agents = [stage.agent(stage.node(f"n{number}")) for number in range(nodes)]
    stage.daemon_set_wants(nodes)
    until(lambda: stage.pool_condition("Ready").get("reason") == "AllNodesReady")
    return agents


def status(stage: Stage, workload: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.get("WasmWorkload", workload).get("status", {})
    return found


def ready(stage: Stage, workload: str) -> bool:
    return stage.workload_condition("Ready", workload).get("status") == "True"


def revisions(stage: Stage) -> list[dict[str, Any]]:
    return stage.api.list("ControllerRevision", stage.namespace, "wasmpool.dev/workload-uid")


def test_a_workload_is_inspected_then_judged_then_reserved_then_run(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    workload = stage.workload("hello", instances=2, command={"args": ["a"]})
    (inspection,) = until(agent.assignments)
    assert inspection["inspect"] is True
    assert inspection.get("slots", 0) == 0
    assert stage.workload_condition("Admitted", "hello")["status"] == "Unknown"
    (revision,) = revisions(stage)
    assert revision["metadata"]["name"] == inspection["revision"]
    assert revision["data"]["run"]["command"]["args"] == ["a"]
    assert "digest" not in revision["data"]
    agent.obey()
    (assignment,) = until(lambda: [it for it in agent.assignments() if not it.get("inspect")])
    assert (assignment["uid"], assignment["slots"]) == (workload["metadata"]["uid"], 2)
    pinned = stage.get("ControllerRevision", assignment["revision"])
    assert pinned["data"]["digest"] == "sha256:" + "ab" * 32
    stage.play(lambda: ready(stage, "hello"))
    found = status(stage, "hello")
    assert found["instances"] == {"desired": 2, "reserved": 2, "ready": 2, "succeeded": 0, "failed": 0}
    assert found["module"]["digest"] == "sha256:" + "ab" * 32
    assert found["module"]["needs"]["functions"] == 10
    assert found["selector"] == f"wasmpool.dev/workload-uid={workload['metadata']['uid']}"
    assert found["currentRevision"] == found["updatedRevision"] == assignment["revision"]
    assert found["nodes"] == [{"nodeName": agent.node, "slots": 2, "state": "Running"}]
    truths = {it["type"]: it["status"] for it in found["conditions"]}
    assert truths == {
        "ModuleValid": "True", "Admitted": "True", "SlotsReserved": "True", "Ready": "True",
        "Reconciling": "False", "Stalled": "False",
    }  # fmt: skip
    until(
        lambda: [it["metadata"]["name"] for it in revisions(stage)] == [assignment["revision"]], why="one revision left"
    )
    slots = stage.play(lambda: (it := stage.get("InstancePool", "web")["status"]["slots"])["reserved"] == 2 and it)
    assert slots == {"capacity": 4, "allocatable": 4, "reserved": 2, "used": 2, "free": 2}
    assert stage.get("InstancePool", "web")["status"]["workloads"] == {
        "admitted": 1, "waiting": 0, "refused": 0, "wouldRefuse": 0,
    }  # fmt: skip


def test_a_module_beyond_the_limits_is_refused_with_numbers_and_holds_no_slot(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.modules["big"] = {"functions": 12000, "memories": 1, "memoryPages": 512}
    stage.workload("big")
    admitted = stage.play(lambda: (it := stage.workload_condition("Admitted", "big")).get("status") == "False" and it)
    assert admitted["reason"] == "ExceedsModuleLimits"
    for part in ("512", "16", "12000", "10000", "pool web"):
        assert part in admitted["message"]
    assert stage.workload_condition("Stalled", "big")["status"] == "True"
    until(lambda: agent.slots_of("big") == 0)
    until(lambda: stage.get("InstancePool", "web")["status"]["workloads"]["refused"] == 1)


def test_a_refused_module_is_judged_anew_when_the_limits_change(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.modules["big"] = {"functions": 12000, "memories": 1, "memoryPages": 2}
    stage.workload("big")
    stage.play(lambda: stage.workload_condition("Admitted", "big").get("reason") == "ExceedsModuleLimits")
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"moduleLimits": {"functions": 20000}}})
    stage.play(lambda: stage.workload_condition("Admitted", "big").get("status") == "True")
    stage.play(lambda: agent.slots_of("big") == 1)
    assert agent.admission()["moduleLimits"]["functions"] == 20000
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"moduleLimits": {"functions": 10000}}})
    stage.play(lambda: stage.workload_condition("Admitted", "big").get("status") == "False")
    stage.play(lambda: agent.slots_of("big") == 0)
    assert agent.admission()["moduleLimits"]["functions"] == 10000
    assert "deletionTimestamp" not in stage.get("Pod", agent.pod)["metadata"], "its agent judges anew as it is"


def test_a_refused_module_that_is_mended_is_pinned_anew_and_runs(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.modules["big"] = {"functions": 12000, "memories": 1, "memoryPages": 2}
    stage.workload("big")
    stage.play(lambda: stage.workload_condition("Admitted", "big").get("reason") == "ExceedsModuleLimits")
    assert stage.play(lambda: [it for it in agent.assignments() if it.get("inspect")], why="it is looked at again")
    agent.modules["big"] = {"functions": 10, "memories": 1, "memoryPages": 2, "digest": "sha256:" + "cd" * 32}
    stage.play(lambda: ready(stage, "big"))
    assert status(stage, "big")["module"]["digest"] == "sha256:" + "cd" * 32
    assert [it.get("inspect", False) for it in agent.assignments()] == [False]
    agent.modules["big"]["digest"] = "sha256:" + "ef" * 32
    for _ in range(3):
        agent.obey()
    assert status(stage, "big")["module"]["digest"] == "sha256:" + "cd" * 32, "a version's digest stays"


def test_mode_count_admits_and_counts_what_it_would_refuse(stage: Stage) -> None:
    (agent,) = ready_pool(stage, admission={"mode": "Count"})
    agent.modules["big"] = {"functions": 12000, "memories": 1, "memoryPages": 2}
    stage.workload("big")
    stage.play(lambda: ready(stage, "big"))
    admitted = stage.workload_condition("Admitted", "big")
    assert (admitted["status"], admitted["reason"]) == ("True", "Admitted")
    assert admitted["message"] == (
        "admission.mode of pool web is Count; Enforce would refuse: functions: needs 12000, pool web allows 10000"
    )
    counted = {"admitted": 1, "waiting": 0, "refused": 0, "wouldRefuse": 1}
    until(lambda: stage.get("InstancePool", "web")["status"]["workloads"] == counted)
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"admission": {"mode": "Enforce"}}})
    stage.play(lambda: stage.workload_condition("Admitted", "big").get("reason") == "ExceedsModuleLimits")
    stage.play(lambda: agent.slots_of("big") == 0)
    assert agent.admission()["mode"] == "Enforce"


def test_what_the_agent_refuses_is_told_and_holds_no_slot(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.refusals["bad"] = ("ModuleInvalid", "offset 17: not a wasm module")
    stage.workload("bad")
    valid = stage.play(lambda: (it := stage.workload_condition("ModuleValid", "bad")).get("status") == "False" and it)
    assert (valid["reason"], valid["message"]) == ("ModuleInvalid", "offset 17: not a wasm module")
    assert stage.workload_condition("Stalled", "bad")["status"] == "True"
    assert agent.slots_of("bad") == 0


def test_a_refusal_at_the_time_of_running_gives_the_slots_back_and_does_not_flicker(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("late")
    stage.play(lambda: agent.slots_of("late") == 1)
    agent.refusals["late"] = ("UnsupportedFeature", "run.http is not there yet")
    refused = stage.play(lambda: (it := stage.workload_condition("Admitted", "late")).get("status") == "False" and it)
    assert refused["reason"] == "UnsupportedFeature"
    stage.play(lambda: agent.slots_of("late") == 0)
    since = stage.workload_condition("Admitted", "late")["lastTransitionTime"]
    for _ in range(5):
        agent.obey()
    assert stage.workload_condition("Admitted", "late")["lastTransitionTime"] == since
    assert agent.slots_of("late") == 0


def test_a_module_that_can_not_be_fetched_is_unknown_not_refused(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    workload = stage.workload("lost")
    (inspection,) = until(agent.assignments)
    found = stage.get("InstancePoolNode", agent.name)
    message = f"ConfigMap {stage.namespace}/guests has no key lost.wasm"
    entry = {
        "uid": workload["metadata"]["uid"], "revision": inspection["revision"], "state": "BackOff",
        "reason": "ModulePullFailed", "message": message, "reservedSlots": 0, "usedSlots": 0,
    }  # fmt: skip
    agent.report(found["metadata"]["generation"], [entry])
    valid = until(
        lambda: (it := stage.workload_condition("ModuleValid", "lost")).get("reason") == "ModulePullFailed" and it
    )
    assert (valid["status"], valid["message"]) == ("Unknown", message)
    assert stage.workload_condition("Ready", "lost")["status"] == "Unknown"


def test_what_keeps_an_admitted_workload_from_running_is_told(stage: Stage) -> None:
    """Its environment, say, which agents read when they make it ready."""
    (agent,) = ready_pool(stage)
    message = f"run.command.env TOKEN: there is no Secret {stage.namespace}/login"
    agent.states["late"] = {"state": "Pulling", "usedSlots": 0, "reason": "ModulePullFailed", "message": message}
    stage.workload("late")
    held = stage.play(
        lambda: (it := stage.workload_condition("Ready", "late")).get("reason") == "ModulePullFailed" and it
    )
    assert held["status"] == "False"
    assert held["message"].endswith(message)
    agent.states.clear()
    stage.play(lambda: ready(stage, "late"))


def test_without_a_pool_or_a_ready_node_it_says_so(stage: Stage) -> None:
    stage.workload("early")
    missing = until(
        lambda: (it := stage.workload_condition("Admitted", "early")).get("reason") == "PoolNotFound" and it
    )
    assert missing["status"] == "Unknown"
    assert missing["message"].startswith(f"there is no InstancePool {stage.namespace}/web")
    stage.pool()
    until(lambda: stage.workload_condition("Admitted", "early").get("reason") == "NoReadyNodes")
    stage.agent(stage.node("n1"))
    stage.play(lambda: ready(stage, "early"))


def test_a_namespace_that_the_pool_does_not_allow_is_told_the_rule(stage: Stage, api: Any) -> None:
    ready_pool(stage)
    other = Stage(api, "default")
    other.workload(f"guest-{stage.namespace}", poolRef={"name": "web", "namespace": stage.namespace})
    name = f"guest-{stage.namespace}"
    try:
        refused = until(lambda: (it := other.workload_condition("Admitted", name)).get("status") == "False" and it)
        assert refused["reason"] == "NamespaceNotAllowed"
        assert "tenancy.allowedNamespaces.from: Same" in refused["message"]
        selector = {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}
        tenancy = {"spec": {"tenancy": {"allowedNamespaces": selector}}}
        stage.api.patch("InstancePool", stage.namespace, "web", tenancy)
        stage.play(lambda: ready(other, name))
    finally:
        api.delete("WasmWorkload", "default", name)


def test_more_than_is_free_waits_and_more_than_there_is_never_fits(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("first", instances=3)
    stage.play(lambda: ready(stage, "first"))
    stage.workload("second", instances=2, minInstances=2)
    waits = stage.play(
        lambda: (it := stage.workload_condition("SlotsReserved", "second")).get("status") == "False" and it
    )
    assert waits["reason"] == "WaitingForCapacity"
    assert waits["message"].startswith("2 more of 2 slots wanted, 1 free on 1 node of pool web")
    assert agent.slots_of("second") == 0
    stage.workload("third", instances=9, minInstances=9)
    never = stage.play(
        lambda: (it := stage.workload_condition("SlotsReserved", "third")).get("status") == "False" and it
    )
    assert never["reason"] == "ExceedsPoolCapacity"
    assert never["message"] == "9 slots wanted, 1 node of pool web can hold 4 for it; 0 reserved"
    counted = {"admitted": 1, "waiting": 1, "refused": 1, "wouldRefuse": 0}
    until(lambda: stage.get("InstancePool", "web")["status"]["workloads"] == counted)
    stage.api.delete("WasmWorkload", stage.namespace, "first")
    stage.play(lambda: ready(stage, "second"))


def test_a_slot_is_not_promised_again_before_the_agent_let_it_go(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    first = stage.workload("first", instances=4)
    stage.play(lambda: ready(stage, "first"))
    (assignment,) = agent.assignments()
    agent.lingering[first["metadata"]["uid"], assignment["revision"]] = 4
    stage.workload("second", instances=1)
    stage.play(lambda: stage.workload_condition("SlotsReserved", "second").get("reason") == "WaitingForCapacity")
    stage.api.delete("WasmWorkload", stage.namespace, "first")
    stage.play(lambda: all(it["name"] != "first" for it in agent.assignments()))
    for _ in range(5):
        agent.obey()
    assert agent.slots_of("second") == 0
    assert stage.workload_condition("SlotsReserved", "second")["reason"] == "WaitingForCapacity"
    agent.lingering.clear()
    stage.play(lambda: ready(stage, "second"))


def test_a_scale_changes_slots_and_nothing_else(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("web", instances=2)
    stage.play(lambda: ready(stage, "web"))
    revision = status(stage, "web")["currentRevision"]
    stage.api.patch("WasmWorkload", stage.namespace, "web", {"spec": {"instances": 6}})
    stage.play(lambda: status(stage, "web").get("instances", {}).get("ready") == 6)
    assert sorted(agent.slots_of("web") for agent in agents) == [3, 3]
    assert status(stage, "web")["currentRevision"] == revision
    stage.api.patch("WasmWorkload", stage.namespace, "web", {"spec": {"instances": 0}})
    stage.play(lambda: stage.workload_condition("Ready", "web").get("reason") == "ScaledToZero")
    assert [agent.slots_of("web") for agent in agents] == [0, 0]


def test_a_namespace_gets_no_more_than_its_share(stage: Stage) -> None:
    ready_pool(stage, tenancy={"maxShare": "50%"})
    stage.workload("greedy", instances=3)
    short = stage.play(
        lambda: (it := stage.workload_condition("SlotsReserved", "greedy")).get("status") == "False" and it
    )
    assert short["reason"] == "ShareExceeded"
    assert "may hold 2 (tenancy.maxShare 50% of 4 slots)" in short["message"]
    stage.play(lambda: status(stage, "greedy")["instances"]["reserved"] == 2)


def test_counted_runs_get_their_indexes_and_give_slots_back_as_they_end(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("job", instances=5, command={"restartPolicy": "Never"})
    stage.play(lambda: sum(agent.slots_of("job") for agent in agents) == 5)
    dealt = sorted(it["indexes"] for agent in agents for it in agent.assignments())
    assert dealt in (["0-1", "2-4"], ["0-2", "3-4"])
    first, second = agents
    first.states["job"] = {"completed": "0", "failed": "1"}
    stage.play(lambda: status(stage, "job").get("completions") == "0-1")
    assert (status(stage, "job")["instances"]["succeeded"], status(stage, "job")["instances"]["failed"]) == (1, 1)
    stage.play(lambda: all("0" not in it["indexes"].split(",") for it in first.assignments()))
    assert stage.workload_condition("Finished", "job")["status"] == "False"
    rest = "2" if dealt == ["0-2", "3-4"] else ""
    first.states["job"] = {"completed": rest} if rest else {}
    second.states["job"] = {"completed": "3-4" if rest else "2-4"}
    finished = stage.play(lambda: (it := stage.workload_condition("Finished", "job")).get("status") == "True" and it)
    assert (finished["reason"], finished["message"]) == ("Failed", "4 succeeded, 1 failed")
    stage.play(lambda: not any(agent.assignments() for agent in agents))
    stage.play(lambda: stage.get("InstancePool", "web")["status"]["slots"]["reserved"] == 0)


def test_an_index_that_was_out_on_a_lost_agent_is_not_run_twice(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("once", instances=2, command={"restartPolicy": "Never"}, placement={"maxPerNode": 1})
    stage.play(lambda: first.slots_of("once") == second.slots_of("once") == 1)
    lost = first.assignments()[0]["indexes"]
    stage.play(lambda: ready(stage, "once"))
    stage.api.delete("Pod", stage.namespace, first.pod)
    stage.agents.remove(first)
    stage.pod_ready(stage.pod(first.node, name="successor"))
    until(lambda: status(stage, "once").get("completions") == lost)
    assert status(stage, "once")["instances"]["failed"] == 1
    until(lambda: not first.assignments())
    second.states["once"] = {"completed": second.assignments()[0]["indexes"]}
    finished = stage.play(lambda: (it := stage.workload_condition("Finished", "once")).get("status") == "True" and it)
    assert finished["message"] == "1 succeeded, 1 failed"


def forget(stage: Stage, agent: Agent) -> None:
    """Deletes the pool, and plays the garbage collector taking along what it owned."""
    stage.api.delete("InstancePool", stage.namespace, "web")
    for kind, name in (("Pod", agent.pod), ("DaemonSet", "wasmpool-web"), ("InstancePoolNode", agent.name)):
        stage.api.delete(kind, stage.namespace, name)
    stage.agents.clear()


def test_an_index_that_was_out_when_its_pool_was_deleted_is_not_run_twice(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("once", instances=6, minInstances=1, command={"restartPolicy": "Never"})
    agent.states["once"] = {"completed": "0", "failed": "1"}
    stage.play(lambda: [it.get("indexes") for it in agent.assignments()] == ["2-5"])
    forget(stage, agent)
    until(lambda: status(stage, "once").get("completions") == "0-5")
    assert status(stage, "once")["instances"]["failed"] == 5
    for kind in ("ServiceAccount", "RoleBinding"):
        stage.api.delete(kind, stage.namespace, "wasmpool-web")
    stage.pool()
    stage.agent(agent.node, name="successor")
    finished = until(lambda: (it := stage.workload_condition("Finished", "once")).get("status") == "True" and it)
    assert finished["message"].startswith("1 succeeded, 5 failed")
    assert [it for it in agent.assignments() if it.get("indexes")] == []


def test_an_index_that_was_out_when_its_namespace_lost_the_pool_is_not_run_twice(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("once", instances=5, minInstances=1, command={"restartPolicy": "Never"})
    stage.play(lambda: [it.get("indexes") for it in agent.assignments()] == ["0-3"])
    rule = {"from": "Selector", "selector": {"matchLabels": {"team": "other"}}}
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"tenancy": {"allowedNamespaces": rule}}})
    stage.play(lambda: not agent.assignments())
    assert status(stage, "once")["completions"] == "0-3"
    everyone = {"from": "All", "selector": None}
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"tenancy": {"allowedNamespaces": everyone}}})
    stage.play(lambda: [it.get("indexes") for it in agent.assignments()] == ["4"])


def outdated(stage: Stage) -> None:
    """Changes what every agent has to know, and plays the DaemonSet's controller seeing it."""
    before = stage.daemon_set()["metadata"]["generation"]
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"agent": {"image": "other"}}})
    until(lambda: stage.daemon_set()["metadata"]["generation"] > before)
    stage.daemon_set_wants(len(stage.agents))
    until(lambda: stage.pool_condition("Reconciling").get("reason") == "ReplacingAgents")


def unready(stage: Stage, agents: list[Agent]) -> None:
    """Their readiness probe fails for a moment; what they run goes on."""
    for agent in agents:
        stage.pod_ready(stage.get("Pod", agent.pod), ready=False)
    until(lambda: len(stage.unready_nodes()) == len(agents))


def deleted(stage: Stage, agents: list[Agent]) -> list[str]:
    return [it.node for it in agents if "deletionTimestamp" in stage.get("Pod", it.pod).get("metadata", {})]


def test_agents_that_are_unready_for_a_moment_are_not_all_replaced_at_once(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=3)
    stage.workload("serves", instances=3, placement={"maxPerNode": 1})
    stage.play(lambda: ready(stage, "serves"))
    unready(stage, agents)
    outdated(stage)
    time.sleep(2)
    assert deleted(stage, agents) == []


def test_a_run_that_can_not_be_moved_keeps_its_agent_though_that_is_unready_for_a_moment(stage: Stage) -> None:
    pinned, other = ready_pool(stage, nodes=2)
    stage.workload("once", command={"restartPolicy": "Never"}, placement={"maxPerNode": 1})
    stage.play(lambda: ready(stage, "once"))
    if not pinned.slots_of("once"):
        pinned, other = other, pinned
    unready(stage, [pinned])
    outdated(stage)
    time.sleep(2)
    assert deleted(stage, [pinned]) == []
    pinned.states["once"] = {"state": "Succeeded", "completed": "0", "usedSlots": 0}
    pinned.obey()
    until(lambda: deleted(stage, [pinned]), why="its run is done")


def test_an_unready_agent_that_runs_nothing_is_replaced_at_once(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=3)
    unready(stage, agents)
    outdated(stage)
    until(lambda: len(deleted(stage, agents)) == 3)


def test_a_retried_run_goes_out_again_when_its_node_is_gone(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    command = {"restartPolicy": "OnFailure"}
    stage.workload("retry", instances=2, command=command, placement={"maxPerNode": 2})
    stage.play(lambda: first.slots_of("retry") == second.slots_of("retry") == 1)
    stage.agents.remove(first)
    stage.api.delete("Node", "", first.node)
    stage.api.delete("Pod", stage.namespace, first.pod)
    stage.play(lambda: [it["indexes"] for it in second.assignments()] == ["0-1"])
    assert status(stage, "retry")["instances"]["failed"] == 0


def test_a_new_version_replaces_the_old_one_without_a_gap(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("app", instances=2)
    stage.play(lambda: ready(stage, "app"))
    old = status(stage, "app")["currentRevision"]
    lowest = [2]

    def obeyed() -> bool:
        lowest[0] = min(lowest[0], agent.slots_of("app"))
        found = status(stage, "app")
        return bool(found["currentRevision"] != old and found["currentRevision"] == found["updatedRevision"])

    stage.api.patch("WasmWorkload", stage.namespace, "app", {"spec": {"run": {"command": {"args": ["v2"]}}}})
    stage.play(obeyed)
    assert lowest[0] == 2
    new = status(stage, "app")["currentRevision"]
    stage.play(lambda: [it["revision"] for it in agent.assignments()] == [new])
    stage.play(lambda: {it["metadata"]["name"] for it in revisions(stage)} == {old, new}, why="one to go back to")


def test_a_refused_new_version_leaves_the_old_one_running(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("app")
    stage.play(lambda: ready(stage, "app"))
    old = status(stage, "app")["currentRevision"]
    agent.modules["app"] = {"functions": 99999, "digest": "sha256:" + "cd" * 32}
    stage.api.patch("WasmWorkload", stage.namespace, "app", {"spec": {"module": {"configMap": {"key": "v2.wasm"}}}})
    stage.play(lambda: stage.workload_condition("Admitted", "app").get("reason") == "ExceedsModuleLimits")
    assert [it["revision"] for it in agent.assignments() if it.get("slots")] == [old]


def test_what_a_deleted_workload_held_comes_free(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("gone", instances=4)
    stage.play(lambda: ready(stage, "gone"))
    stage.api.delete("WasmWorkload", stage.namespace, "gone")
    stage.play(lambda: not agent.assignments())
    stage.play(lambda: not revisions(stage))
    stage.play(lambda: stage.get("InstancePool", "web")["status"]["slots"]["free"] == 4)


def test_a_cordoned_node_is_left_when_the_others_have_taken_over(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("app", instances=2)
    stage.play(lambda: ready(stage, "app"))
    stage.api.patch("Node", "", first.node, {"spec": {"unschedulable": True}})
    stage.play(lambda: (first.slots_of("app"), second.slots_of("app")) == (0, 2))
    stage.play(lambda: ready(stage, "app"))


def test_an_operator_that_is_killed_goes_on_where_it_was(stage: Stage, operator: OperatorProcess) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("before", instances=2)
    stage.play(lambda: ready(stage, "before"))
    held = agent.assignments()
    operator.kill()
    stage.workload("after", instances=2)
    stage.api.delete("WasmWorkload", stage.namespace, "before")
    assert agent.assignments() == held
    operator.start()
    stage.play(lambda: ready(stage, "after"), seconds=30)
    assert agent.slots_of("before") == 0


def test_nothing_is_written_while_nothing_happens(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("calm", instances=2)
    stage.play(lambda: ready(stage, "calm"))
    stage.play(lambda: len(revisions(stage)) == 1)
    agent.obey()

    def versions() -> list[str]:
        objects = [
            stage.get("InstancePool", "web"), stage.get("WasmWorkload", "calm"), stage.get("DaemonSet", "wasmpool-web"),
            stage.get("ServiceAccount", "wasmpool-web"), stage.get("InstancePoolNode", agent.name),
        ]  # fmt: skip
        return [it["metadata"]["resourceVersion"] for it in objects]

    time.sleep(2)
    before = versions()
    stage.api.patch("InstancePool", stage.namespace, "web", {"metadata": {"annotations": {"nudge": "1"}}})
    time.sleep(2)
    assert versions()[1:] == before[1:]


def test_the_operators_own_pages_tell_of_the_pools(stage: Stage, operator: OperatorProcess) -> None:
    ready_pool(stage)
    code, text = operator.page("/metrics")
    assert code == 200
    labels = f'pool="web",pool_namespace="{stage.namespace}"'
    for line in (
        f'wasmpool_pool_slots{{{labels},state="allocatable"}} 4.0',
        f'wasmpool_pool_nodes{{{labels},state="ready"}} 1.0',
        f'wasmpool_pool_condition{{{labels},status="True",type="Ready"}} 1.0',
        "wasmpool_leader 1.0",
        'wasmpool_reconcile_errors_total{kind="InstancePool"}',
        'wasmpool_queue_depth{kind="InstancePool"}',
        'wasmpool_reconcile_seconds_count{kind="InstancePool"}',
    ):
        assert line in text
    assert operator.page("/healthz") == (200, "ok")
    assert operator.page("/readyz") == (200, "ok")
