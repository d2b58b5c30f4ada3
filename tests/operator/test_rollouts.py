"""New versions in the place of old ones, on a real API server, with the test playing the agents.

We test these aspects:

* slots during a roll-out: never more than maxSurge allows, the old ones given up only for new ones that run;
* a version that never runs: it is called stalled in time, and the old one serves on;
* a spec that comes back is the revision that it was, with the module that it ran, and is not looked for again;
* how much history is kept;
* a scale through the scale subresource; finished workloads that go by themselves.
"""

import time
from typing import Any

import pytest

from tests.operator.conftest import OperatorProcess
from tests.operator.stage import Agent, Stage, until
from tests.operator.test_workloads import ready, ready_pool, revisions, status

pytestmark = pytest.mark.cluster


def slots(agents: list[Agent], workload: str) -> dict[str, int]:
    """By revision, as the nodes are told."""
    found: dict[str, int] = {}
    for agent in agents:
        for it in agent.assignments():
            if it["name"] == workload and not it.get("inspect"):
                found[it["revision"]] = found.get(it["revision"], 0) + it.get("slots", 0)
    return found


def change(stage: Stage, workload: str, kind: str, **fields: Any) -> None:
    stage.api.patch("WasmWorkload", stage.namespace, workload, {"spec": {"run": {kind: fields}}})


def version(text: str) -> dict[str, Any]:
    return {"env": [{"name": "VERSION", "value": text}]}


def current(stage: Stage, workload: str) -> str:
    return str(status(stage, workload).get("currentRevision", ""))


def settled(stage: Stage, workload: str) -> bool:
    found = status(stage, workload)
    conditions = {it["type"]: it["status"] for it in found.get("conditions", ())}
    return [conditions.get(it) for it in ("Ready", "Reconciling", "Stalled")] == ["True", "False", "False"]


def test_a_new_version_of_what_serves_takes_over_step_by_step(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("front", instances=4, http={}, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    stage.play(lambda: settled(stage, "front"))
    old = current(stage, "front")
    port = agents[0].assignments()[0]["port"]
    most, marked = 0, set[bool]()
    change(stage, "front", "http", **version("2"))
    while current(stage, "front") == old or not settled(stage, "front"):
        for agent in agents:
            agent.obey()
        told = [it for agent in agents for it in agent.assignments() if not it.get("inspect")]
        held = sum(it.get("slots", 0) for it in told)
        most = max(most, held)
        assert 4 <= held <= 5
        assert {it["port"] for it in told} == {port}
        if len({it["revision"] for it in told}) == 2:
            marked.update(it.get("outdated", False) == (it["revision"] == old) for it in told)
    assert most == 5
    assert marked == {True}, "agents know which one is to hand over"
    assert slots(agents, "front") == {current(stage, "front"): 4}


def test_old_slots_are_given_up_only_for_new_ones_that_run(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("front", instances=4, http={})
    stage.play(lambda: settled(stage, "front"))
    old = current(stage, "front")
    change(stage, "front", "http", **version("2"))
    stage.play(lambda: len(slots(agents, "front")) == 2)
    new = next(it for it in slots(agents, "front") if it != old)
    for agent in agents:
        agent.only_old = old
    for _ in range(10):
        for agent in agents:
            agent.obey()
    assert slots(agents, "front") == {old: 4, new: 1}
    assert stage.workload_condition("Reconciling", "front")["status"] == "True"
    assert ready(stage, "front"), "the old version serves on"
    found = status(stage, "front")["rollout"]
    assert (found["revision"], found["reserved"], found["ready"]) == (new, 1, 0)
    for agent in agents:
        agent.only_old = ""
    stage.play(lambda: settled(stage, "front") and slots(agents, "front") == {new: 4})
    assert "rollout" not in status(stage, "front")


def test_a_version_that_makes_no_progress_is_stalled_and_the_old_one_serves_on(
    stage: Stage, operator: OperatorProcess
) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("front", instances=2, http={}, progressDeadline="4s")
    stage.play(lambda: settled(stage, "front"))
    old = current(stage, "front")
    for agent in agents:
        agent.only_old = old
    change(stage, "front", "http", **version("2"))
    stage.play(lambda: status(stage, "front").get("rollout", {}).get("reserved") == 1)
    assert stage.workload_condition("Stalled", "front")["status"] == "False"
    operator.kill()
    operator.start()
    stalled = stage.play(lambda: (it := stage.workload_condition("Stalled", "front")).get("status") == "True" and it)
    assert stalled["reason"] == "ProgressDeadlineExceeded"
    new = next(it for it in slots(agents, "front") if it != old)
    assert stalled["message"].startswith(
        f"{new} got 1 of 2 slots and ran in 0 of them, and no more for progressDeadline 4s; {old} goes on"
    )
    stage.play(lambda: "it failed 3 times" in stage.workload_condition("Stalled", "front")["message"])
    assert ready(stage, "front")
    assert slots(agents, "front") == {old: 2, new: 1}
    for agent in agents:
        agent.only_old = ""
    stage.play(lambda: settled(stage, "front"), why="it goes on as soon as it can")
    assert stage.workload_condition("Stalled", "front")["status"] == "False"


def test_a_spec_that_comes_back_is_the_revision_that_it_was(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("front", http=version("1"))
    stage.play(lambda: settled(stage, "front"))
    first = current(stage, "front")
    agent.modules["front"] = {"functions": 10, "memories": 1, "memoryPages": 2, "digest": "sha256:" + "cd" * 32}
    change(stage, "front", "http", **version("2"))
    stage.play(lambda: settled(stage, "front") and current(stage, "front") != first)
    second = current(stage, "front")
    assert status(stage, "front")["module"]["digest"] == "sha256:" + "cd" * 32
    change(stage, "front", "http", **version("1"))
    told: set[tuple[str, bool]] = set()
    while not settled(stage, "front") or current(stage, "front") != first:
        told.update((it["revision"], it.get("inspect", False)) for it in agent.assignments())
        agent.obey()
    assert told <= {(first, False), (second, False)}, "its module is known"
    assert status(stage, "front")["module"]["digest"] == "sha256:" + "ab" * 32
    until(lambda: {it["metadata"]["name"] for it in revisions(stage)} == {first, second})


def test_only_the_last_versions_are_kept(stage: Stage) -> None:
    ready_pool(stage)
    stage.workload("front", http=version("0"))
    seen: list[str] = []
    for number in range(1, 7):
        stage.play(lambda: settled(stage, "front") and current(stage, "front") not in seen)
        seen.append(current(stage, "front"))
        time.sleep(1.1)  # ages are whole seconds
        change(stage, "front", "http", **version(str(number)))
    stage.play(lambda: settled(stage, "front") and current(stage, "front") not in seen)
    seen.append(current(stage, "front"))
    stage.play(lambda: {it["metadata"]["name"] for it in revisions(stage)} == set(seen[-4:]))
    stage.api.delete("WasmWorkload", stage.namespace, "front")
    stage.play(lambda: not revisions(stage))


def test_kubectl_scale_changes_how_many_requests_are_served_at_a_time(stage: Stage) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("front", instances=1, http={})
    stage.play(lambda: settled(stage, "front"))
    revision = current(stage, "front")
    path = stage.api.path("WasmWorkload", stage.namespace, "front") + "/scale"
    scale = stage.api.request("GET", path)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (1, 1)
    for wanted in (6, 2):
        stage.api.request("PATCH", path, {"spec": {"replicas": wanted}}, "application/merge-patch+json")
        stage.play(lambda wanted=wanted: slots(agents, "front") == {revision: wanted})
        stage.play(lambda wanted=wanted: stage.api.request("GET", path)["status"]["replicas"] == wanted)
    free = 8 - 2
    stage.play(lambda: stage.get("InstancePool", "web")["status"]["slots"]["free"] == free)


def test_a_finished_workload_goes_when_its_time_is_up(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    done = {"state": "Succeeded", "completed": "0", "usedSlots": 0}
    for name, policy, more in (
        ("soon", "Never", {"ttlSecondsAfterFinished": 3}),
        ("atonce", "OnFailure", {"ttlSecondsAfterFinished": 0}),
        ("stays", "Never", {}),
        ("runs", "Never", {"ttlSecondsAfterFinished": 0}),
    ):
        stage.workload(name, command={"restartPolicy": policy}, **more)
        if name != "runs":
            agent.states[name] = done
    stage.play(lambda: stage.workload_condition("Finished", "soon").get("status") == "True")
    stage.play(lambda: stage.workload_condition("Finished", "stays").get("status") == "True")
    stage.play(lambda: not stage.get("WasmWorkload", "atonce"))
    assert stage.get("WasmWorkload", "soon")
    stage.play(lambda: not stage.get("WasmWorkload", "soon"), seconds=10)
    assert stage.get("WasmWorkload", "stays")
    assert stage.get("WasmWorkload", "runs")
