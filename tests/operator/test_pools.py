"""What the operator makes of an InstancePool, on a real API server.

We test these aspects:

* the objects it makes, who owns them, and that they come back when somebody removes or changes them;
* InstancePoolNodes: one for every node that an agent's pod is for, gone when its Node is;
* status: sums over ready nodes, and for every node that is not ready the reason, with numbers;
* replacement of agents whose template is outdated;
* a name that is taken.
"""

import pytest

from tests.operator.stage import Stage, until

pytestmark = pytest.mark.cluster

CONDITIONS = {
    "RegionsReserved": "True",
    "AgentsAvailable": "True",
    "Reconciling": "False",
    "Stalled": "False",
    "Degraded": "False",
}


def test_a_pool_gets_all_that_its_agents_need_and_owns_it(stage: Stage) -> None:
    pool = stage.pool(agent={"podLabels": {"tier": "gold"}, "env": [{"name": "A", "value": "b"}]})
    daemon_set = stage.daemon_set()
    (config,) = stage.api.list("ConfigMap", stage.namespace, "wasmpool.dev/pool=web")
    made = [daemon_set, config, stage.get("ServiceAccount", "wasmpool-web"), stage.get("RoleBinding", "wasmpool-web")]
    for it in made:
        (owner,) = it["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (pool["metadata"]["uid"], True)
        assert it["metadata"]["labels"]["wasmpool.dev/pool"] == "web"
    assert config["immutable"] is True
    assert '"memoryPages": 16' in config["data"]["pool.yaml"]
    assert daemon_set["spec"]["updateStrategy"] == {"type": "OnDelete"}
    template = daemon_set["spec"]["template"]
    assert template["metadata"]["labels"]["tier"] == "gold"
    (agent,) = template["spec"]["containers"]
    assert agent["resources"]["limits"]["hugepages-2Mi"] == agent["resources"]["requests"]["hugepages-2Mi"] == "4Mi"
    assert agent["image"] == "wasmpool.dev/agent:dev"
    assert {"NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_UID", "A"} == {it["name"] for it in agent["env"]}
    assert template["spec"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]


def test_a_pool_that_asks_for_what_this_version_can_not_do_is_stalled_by_name(stage: Stage) -> None:
    stage.pool(tenancy={"isolation": "WorkerPerNamespace"})
    stalled = until(lambda: (it := stage.pool_condition("Stalled")).get("status") == "True" and it)
    assert stalled["reason"] == "SpecInvalid"
    assert "spec.tenancy.isolation is WorkerPerNamespace" in stalled["message"]
    assert "allowed is Shared" in stalled["message"]
    assert stage.api.get("DaemonSet", stage.namespace, "wasmpool-web") is None


def test_a_field_that_the_api_server_does_not_know_stalls_the_pool(stage: Stage) -> None:
    stage.pool(affinity={"oops": {}})
    stalled = until(lambda: (it := stage.pool_condition("Stalled")).get("status") == "True" and it)
    assert stalled["reason"] == "WriteRefused"
    assert "oops" in stalled["message"]


def test_a_child_that_somebody_removes_or_changes_comes_back(stage: Stage) -> None:
    stage.pool()
    first = stage.daemon_set()
    stage.api.patch(
        "DaemonSet", stage.namespace, "wasmpool-web", {"spec": {"updateStrategy": {"type": "RollingUpdate"}}}
    )
    until(lambda: stage.daemon_set()["spec"]["updateStrategy"]["type"] == "OnDelete", why="the change is undone")
    stage.api.delete("DaemonSet", stage.namespace, "wasmpool-web")
    until(lambda: stage.daemon_set()["metadata"]["uid"] != first["metadata"]["uid"], why="a new DaemonSet")


def test_a_pool_node_is_made_for_a_pending_pod_and_goes_with_its_node(stage: Stage) -> None:
    pool = stage.pool()
    node = stage.node("n1")
    stage.pod(node, pending=True)
    found = until(lambda: stage.get("InstancePoolNode", f"web.{node}"))
    assert found["spec"]["nodeName"] == node
    assert found["spec"]["nodeUID"] == stage.api.get("Node", "", node)["metadata"]["uid"]
    assert found["metadata"]["ownerReferences"][0]["uid"] == pool["metadata"]["uid"]
    stage.api.delete("Node", "", node)
    until(lambda: not stage.get("InstancePoolNode", f"web.{node}"), why="the InstancePoolNode is gone")


def test_missing_huge_pages_are_known_while_the_pod_is_pending(stage: Stage) -> None:
    stage.pool(instanceLimits={"count": 256, "addressSpaceSize": "1Gi"}, moduleLimits={"memoryPages": 32})
    small, none = stage.node("small", "256Mi"), stage.node("none", None)
    stage.pod(small, pending=True, name="a")
    stage.pod(none, pending=True, name="b")
    until(lambda: len(stage.get("InstancePool", "web").get("status", {}).get("unreadyNodes", [])) == 2)
    reasons = {it["nodeName"]: it for it in stage.get("InstancePool", "web")["status"]["unreadyNodes"]}
    assert reasons[small]["reason"] == "InsufficientHugePages"
    assert reasons[small]["message"] == (
        f"node {small}: 256Mi of hugepages-2Mi allocatable, pool web needs 512Mi (256 pages)"
    )
    assert reasons[none]["reason"] == "HugePagesNotConfigured"
    reserved = stage.pool_condition("RegionsReserved")
    assert (reserved["status"], reserved["reason"]) == ("False", "HugePagesNotConfigured")
    assert "2 of 2 nodes without a region" in reserved["message"]


def test_huge_pages_that_another_pool_took_are_counted(stage: Stage) -> None:
    stage.pool("first", instanceLimits={"count": 24, "addressSpaceSize": "1Gi"}, moduleLimits={"memoryPages": 32})
    stage.pool("second", instanceLimits={"count": 24, "addressSpaceSize": "1Gi"}, moduleLimits={"memoryPages": 32})
    node = stage.node("n1", "64Mi")
    stage.agent(node, pool="first", slots=24, slot_bytes=2**21)
    stage.pod(node, pool="second", pending=True, name="late")
    until(lambda: stage.get("InstancePool", "second").get("status", {}).get("unreadyNodes"))
    (unready,) = stage.get("InstancePool", "second")["status"]["unreadyNodes"]
    assert unready["message"] == (
        f"node {node}: 64Mi of hugepages-2Mi allocatable, 48Mi of it taken by other pods, "
        "pool second needs 48Mi (24 pages)"
    )


def test_a_pool_is_ready_when_its_agents_are_and_sums_their_slots(stage: Stage) -> None:
    stage.pool()
    nodes = [stage.node("n1"), stage.node("n2")]
    for node in nodes:
        stage.agent(node)
    stage.daemon_set_wants(2)
    until(lambda: stage.pool_condition("Ready").get("reason") == "AllNodesReady")
    status = stage.get("InstancePool", "web")["status"]
    assert status["nodes"] == {"desired": 2, "ready": 2, "updated": 2}
    assert status["slots"] == {"capacity": 8, "allocatable": 8, "reserved": 0, "used": 0, "free": 8}
    assert status["memory"]["regionBytesPerNode"] == 4 * 2**20
    assert status["memory"]["regionBytes"] == 8 * 2**20
    assert status["observedGeneration"] == 1
    truths = {kind: stage.pool_condition(kind)["status"] for kind in CONDITIONS}
    assert truths == CONDITIONS


def test_an_agent_of_another_pod_than_todays_does_not_count(stage: Stage) -> None:
    stage.pool()
    agent = stage.agent(stage.node("n1"))
    until(lambda: stage.pool_condition("Ready").get("status") == "True")
    stage.api.delete("Pod", stage.namespace, agent.pod)
    stage.pod_ready(stage.pod(agent.node, name="successor"))
    until(lambda: stage.pool_condition("Ready").get("status") == "False")
    until(lambda: [it["message"] for it in stage.unready_nodes()] == ["agent pod successor has not reported yet"])
    assert stage.get("InstancePool", "web")["status"]["slots"]["capacity"] == 0


def test_an_agent_that_can_not_start_is_named_with_its_containers_reason(stage: Stage) -> None:
    stage.pool()
    pod = stage.pod(stage.node("n1"))
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    container = {"name": "agent", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    stage.pod_status(pod, phase="Pending", containerStatuses=[container | {"state": {"waiting": waiting}}])
    until(lambda: stage.pool_condition("AgentsAvailable").get("reason") == "ImagePullBackOff")
    (unready,) = stage.get("InstancePool", "web")["status"]["unreadyNodes"]
    assert unready["reason"] == "ImagePullBackOff"
    assert "Back-off pulling image" in unready["message"]


def test_an_edit_that_agents_act_on_replaces_them_and_one_that_they_do_not_does_not(stage: Stage) -> None:
    stage.pool()
    agent = stage.agent(stage.node("n1"))
    stage.daemon_set_wants(1)
    until(lambda: stage.pool_condition("Ready").get("status") == "True")
    before = stage.daemon_set()["spec"]["template"]
    change = {"spec": {"updateStrategy": {"maxUnavailable": 1}, "tenancy": {"maxShare": "50%"}}}
    stage.api.patch("InstancePool", stage.namespace, "web", change)
    until(lambda: stage.get("InstancePool", "web")["status"]["observedGeneration"] == 2)
    assert stage.daemon_set()["spec"]["template"] == before
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"instanceLimits": {"count": 6}}})
    until(lambda: stage.daemon_set()["spec"]["template"] != before)
    stage.daemon_set_wants(1)
    until(lambda: "deletionTimestamp" in stage.get("Pod", agent.pod)["metadata"], why="the outdated pod is deleted")
    stage.api.delete("Pod", stage.namespace, agent.pod)  # as its kubelet would
    stage.agents.clear()
    stage.agent(agent.node, slots=6)
    until(lambda: stage.get("InstancePool", "web")["status"]["nodes"] == {"desired": 1, "ready": 1, "updated": 1})
    until(lambda: len(stage.api.list("ConfigMap", stage.namespace, "wasmpool.dev/pool=web")) == 1, why="one ConfigMap")


def test_a_new_shape_that_does_not_fit_leaves_the_old_agent_alone(stage: Stage) -> None:
    stage.pool()
    agent = stage.agent(stage.node("n1", "64Mi"))
    stage.daemon_set_wants(1)
    until(lambda: stage.pool_condition("Ready").get("status") == "True")
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"instanceLimits": {"count": 100}}})
    until(lambda: stage.daemon_set()["metadata"]["generation"] == 2)
    stage.daemon_set_wants(1)
    degraded = until(lambda: (it := stage.pool_condition("Degraded")).get("status") == "True" and it)
    assert degraded["reason"] == "InsufficientHugePages"
    assert "64Mi of hugepages-2Mi allocatable, pool web needs 100Mi (50 pages)" in degraded["message"]
    assert "deletionTimestamp" not in stage.get("Pod", agent.pod)["metadata"]


def test_a_new_shape_that_does_not_fit_beside_somebody_elses_pod_leaves_the_old_agent_alone(stage: Stage) -> None:
    stage.pool()
    agent = stage.agent(stage.node("n1", "64Mi"))
    stage.daemon_set_wants(1)
    until(lambda: stage.pool_condition("Ready").get("status") == "True")
    stage.stranger(agent.node, "40Mi")
    stage.api.patch("InstancePool", stage.namespace, "web", {"spec": {"instanceLimits": {"count": 40}}})
    until(lambda: stage.daemon_set()["metadata"]["generation"] == 2)
    stage.daemon_set_wants(1)
    degraded = until(lambda: (it := stage.pool_condition("Degraded")).get("status") == "True" and it)
    assert degraded["reason"] == "InsufficientHugePages"
    assert "64Mi of hugepages-2Mi allocatable, 40Mi of it taken by other pods, " in degraded["message"]
    assert "pool web needs 40Mi (20 pages)" in degraded["message"]
    assert "deletionTimestamp" not in stage.get("Pod", agent.pod)["metadata"]


def test_what_somebody_elses_pod_has_taken_is_known_from_the_scheduler_while_the_pod_is_pending(stage: Stage) -> None:
    stage.pool(instanceLimits={"count": 40, "addressSpaceSize": "1Gi"})
    node = stage.node("n1", "64Mi")
    stage.stranger(node, "40Mi")
    said = "0/1 nodes are available: 1 Insufficient hugepages-2Mi."
    pending = stage.pod(node, pending=True)
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    scheduled["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    stage.pod_status(pending, conditions=[scheduled])
    unready = until(lambda: [it for it in stage.unready_nodes() if it["reason"] == "InsufficientHugePages"])
    assert f"node {node}: 64Mi of hugepages-2Mi allocatable, pool web needs 40Mi (20 pages)" in unready[0]["message"]
    assert said in unready[0]["message"]


def test_what_has_a_childs_name_but_is_not_the_pools_is_never_adopted(stage: Stage) -> None:
    metadata = {"name": "wasmpool-web", "namespace": stage.namespace}
    stage.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    stage.pool()
    stalled = until(lambda: (it := stage.pool_condition("Stalled")).get("status") == "True" and it)
    assert stalled["reason"] == "NameTaken"
    assert f"ServiceAccount {stage.namespace}/wasmpool-web exists and is not ours" in stalled["message"]
    assert "ownerReferences" not in stage.get("ServiceAccount", "wasmpool-web")["metadata"]
    stage.api.delete("ServiceAccount", stage.namespace, "wasmpool-web")
    stage.api.patch("InstancePool", stage.namespace, "web", {"metadata": {"labels": {"nudge": "1"}}})
    stage.daemon_set()
    until(lambda: stage.pool_condition("Stalled").get("status") == "False")
