"""What people are told in Events, on a real API server, with the test playing the agents.

We test these aspects:

* a workload's way from Admitted to Running, and every way in which it does not get there, with reason and numbers;
* roll-outs, runs that fail, pools and nodes that come and go;
* that a restart of the operator repeats nothing, and that what happens again is one more of the same Event.
"""

from typing import Any

import pytest

from tests.operator.conftest import OperatorProcess
from tests.operator.stage import Stage, until
from tests.operator.test_rollouts import change, current, settled, version
from tests.operator.test_workloads import ready, ready_pool

pytestmark = pytest.mark.cluster


def told(stage: Stage, name: str, kind: str = "WasmWorkload") -> list[tuple[str, str, str]]:
    """Type, reason and note of the object's Events, in their order."""
    found = [
        it
        for it in stage.api.list("Event", stage.namespace)
        if (it["regarding"]["kind"], it["regarding"]["name"]) == (kind, name)
    ]
    found.sort(key=lambda it: (it["eventTime"], it["metadata"]["name"]))
    return [(it["type"], it["reason"], it["note"]) for it in found]


def reasons(stage: Stage, name: str, kind: str = "WasmWorkload") -> list[str]:
    return [reason for _, reason, _ in told(stage, name, kind)]


def of(stage: Stage, name: str, reason: str, kind: str = "WasmWorkload") -> tuple[str, str]:
    """Type and note of the first Event with that reason."""
    found: Any = until(lambda: [it for it in told(stage, name, kind) if it[1] == reason], why=reason)
    return found[0][0], found[0][2]


def test_a_workload_on_its_way_and_a_pool_that_is_ready(stage: Stage) -> None:
    ready_pool(stage)
    stage.workload("hello", instances=2)
    stage.play(lambda: settled(stage, "hello"))
    until(lambda: reasons(stage, "hello") == ["Admitted", "SlotsReserved", "Running"])
    assert told(stage, "hello") == [
        ("Normal", "Admitted", "within the limits of pool web"),
        ("Normal", "SlotsReserved", "2 of 2 slots on 1 node"),
        ("Normal", "Running", "2 of 2 running"),
    ]
    (event,) = [
        it
        for it in stage.api.list("Event", stage.namespace)
        if it["regarding"]["name"] == "hello" and it["reason"] == "Admitted"
    ]
    assert event["reportingController"] == "wasmpool.dev/operator"
    assert event["regarding"]["uid"] == stage.get("WasmWorkload", "hello")["metadata"]["uid"]
    assert of(stage, "web", "PoolReady", "InstancePool") == ("Normal", "1 node ready")


def test_a_refusal_and_a_wait_are_told_with_their_numbers(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    agent.modules["big"] = {"functions": 12000, "memories": 1, "memoryPages": 2}
    stage.workload("big")
    stage.play(lambda: "Refused" in reasons(stage, "big"))
    assert of(stage, "big", "Refused") == (
        "Warning", "ExceedsModuleLimits: functions: needs 12000, pool web allows 10000",
    )  # fmt: skip
    stage.workload("first", instances=3)
    stage.play(lambda: ready(stage, "first"))
    stage.workload("second", instances=2, minInstances=2)
    stage.play(lambda: "WaitingForCapacity" in reasons(stage, "second"))
    kind, note = of(stage, "second", "WaitingForCapacity")
    assert kind == "Warning"
    assert note.startswith("2 more of 2 slots wanted, 1 free on 1 node of pool web")


def test_what_fails_is_told_with_the_agents_words_and_again_as_one_more(stage: Stage) -> None:
    (agent,) = ready_pool(stage)
    stage.workload("app")
    stage.play(lambda: settled(stage, "app"))
    trap = "wasm trap: unreachable executed; wasm backtrace: 0: 0x41 - boom"
    for _ in range(3):
        agent.states["app"] = {"state": "BackOff", "reason": "BackOff", "message": trap, "usedSlots": 0}
        stage.play(lambda: stage.workload_condition("Ready", "app")["reason"] == "BackOff")
        agent.states.clear()
        stage.play(lambda: ready(stage, "app"))
    kind, note = of(stage, "app", "BackOff")
    assert kind == "Warning"
    assert trap in note

    def counts() -> dict[str, int]:
        events = [it for it in stage.api.list("Event", stage.namespace) if it["regarding"]["name"] == "app"]
        return {it["reason"]: it.get("series", {}).get("count", 1) for it in events}

    until(lambda: counts() == {"Admitted": 1, "SlotsReserved": 1, "Running": 4, "BackOff": 3})
    stage.workload("job", instances=2, command={"restartPolicy": "Never"})
    stage.play(lambda: agent.slots_of("job") == 2)
    agent.states["job"] = {"failed": "0", "message": "exit status 3"}
    stage.play(lambda: "RunFailed" in reasons(stage, "job"))
    assert "exit status 3" in of(stage, "job", "RunFailed")[1]
    agent.states["job"] = {"completed": "1"}
    stage.play(lambda: "Failed" in reasons(stage, "job"))
    assert of(stage, "job", "Failed") == ("Warning", "1 succeeded, 1 failed; node " + agent.node + ": exit status 3")


def test_a_roll_out_is_told_and_one_that_stalls_and_a_restart_repeats_nothing(
    stage: Stage, operator: OperatorProcess
) -> None:
    agents = ready_pool(stage, nodes=2)
    stage.workload("front", instances=2, http={}, progressDeadline="3s")
    stage.play(lambda: settled(stage, "front"))
    first = current(stage, "front")
    change(stage, "front", "http", **version("2"))
    stage.play(lambda: settled(stage, "front") and current(stage, "front") != first)
    second = current(stage, "front")
    assert of(stage, "front", "RolledOut") == ("Normal", f"{second} has replaced {first}")
    for agent in agents:
        agent.only_old = second
    change(stage, "front", "http", **version("3"))
    stage.play(lambda: "ProgressDeadlineExceeded" in reasons(stage, "front"))
    before = told(stage, "front")
    assert reasons(stage, "front").count("RollingOut") >= 2
    operator.kill()
    operator.start()
    stage.workload("after")
    stage.play(lambda: "Admitted" in reasons(stage, "after"), seconds=30)
    assert told(stage, "front") == before
    assert reasons(stage, "web", "InstancePool").count("PoolReady") == 1


def test_a_node_that_is_lost_is_told_of_and_that_it_is_back(stage: Stage) -> None:
    first, _ = ready_pool(stage, nodes=2)
    stage.pod_ready(stage.get("Pod", first.pod), ready=False)
    kind, note = of(stage, "web", "NodeLost", "InstancePool")
    assert kind == "Warning"
    assert note.startswith(first.node)
    stage.pod_ready(stage.get("Pod", first.pod))
    assert of(stage, "web", "NodeReady", "InstancePool") == ("Normal", first.node)
