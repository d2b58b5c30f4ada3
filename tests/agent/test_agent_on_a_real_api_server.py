"""`wasmpool-agent serve`, whole, on a real API server: what it reads, does, and writes.

Covers: the first status and its writer; inspection and run; what is missing or not what was pinned; removal; the loss
of the API server, before and after the agent's start; a restarted container and a replaced pod; the end.
"""

import signal
import time

import msgspec
import pytest

from tests.agent.proxy import Proxy
from tests.agent.stage import Stage, assignment, condition
from tests.standalone.agent import LARGE, SPINS, prints
from wasmpool_agent.modules.sources import digest_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

HELLO_THEN_SPINS = prints().replace("(call $exit (i32.const 0))", "(loop (br 0))")


def _ready(stage: Stage) -> None:
    stage.until(lambda: condition(stage.status(), "Ready").get("status") == "True")


def test_the_first_status_says_what_there_is(stage: Stage) -> None:
    stage.start()
    _ready(stage)
    node = stage.node()
    status = node["status"]
    assert status["observedGeneration"] == node["metadata"]["generation"] == 1
    assert status["slots"] == {"capacity": 4, "allocatable": 4, "reserved": 0, "used": 0, "free": 4, "quarantined": 0}
    assert status["memory"] == {
        "backing": "BasePages",
        "pageSize": "4Ki",
        "slotBytes": 2 * 2**20,
        "regionBytes": 8 * 2**20,
    }
    assert status["agent"]["podUID"] == "pod-1"
    assert status["agent"]["wasmtimeVersion"] == "50.0.1"
    assert condition(status, "RegionReserved")["reason"] == "BasePagesReserved"
    assert condition(status, "Draining")["status"] == "False"
    managers = {it["manager"]: it for it in node["metadata"]["managedFields"]}
    assert managers["wasmpool-agent"]["operation"] == "Apply"
    assert managers["wasmpool-agent"]["subresource"] == "status"
    stage.until(lambda: stage.get("/readyz") == (200, "ok\n"))


def test_a_module_is_inspected_without_a_slot_and_run_once_its_digest_is_pinned(stage: Stage) -> None:
    data = stage.module("hello.wasm", prints())
    first = stage.revision("hello", "hello.wasm", restartPolicy="Never")
    stage.assign(assignment(first, inspect=True))
    stage.start()
    inspected = stage.until_state(first, "Inspected")
    assert inspected["module"]["digest"] == digest_of(data)
    assert inspected["module"]["sizeBytes"] == len(data)
    assert inspected["module"]["needs"]["memoryPages"] == 1
    assert inspected["reservedSlots"] == 0

    pinned = stage.revision("hello", "hello.wasm", digest=digest_of(data), restartPolicy="Never")
    generation = stage.assign(assignment(pinned, slots=2, indexes="3,5"))
    done = stage.until_state(pinned, "Succeeded")
    assert (done["completed"], done["exitCode"], done["usedSlots"], done["reservedSlots"]) == ("3,5", 0, 0, 2)
    assert stage.status()["observedGeneration"] == generation
    assert stage.status()["slots"]["reserved"] == 2
    assert stage.entry(first) == {}
    assert sorted(it["index"] for it in stage.lines("hello")) == [3, 5]


def test_a_module_over_the_limits_is_refused_with_its_needs(stage: Stage) -> None:
    stage.module("large.wasm", LARGE)
    first = stage.revision("large", "large.wasm")
    stage.assign(assignment(first, inspect=True))
    stage.start()
    refused = stage.until_state(first, "Refused", "ExceedsModuleLimits")
    assert refused["message"] == "memory 0 needs 64 pages, pool small allows 32"
    assert refused["module"]["needs"]["memoryPages"] == 64


def test_what_is_missing_is_named_and_found_once_it_is_there(stage: Stage) -> None:
    first = stage.revision("late", "late.wasm", config_map="late")
    stage.assign(assignment(first, inspect=True))
    stage.start()
    missing = stage.until_state(first, "Pulling", "ModulePullFailed")
    assert f"there is no ConfigMap {stage.namespace}/late" in missing["message"]
    stage.module("other.wasm", prints(), config_map="late")
    stage.until(lambda: "has no key late.wasm; it has other.wasm" in stage.entry(first).get("message", ""))
    stage.module("late.wasm", b"not wasm", config_map="late")
    stage.until_state(first, "Refused", "ModuleInvalid", seconds=30)
    stage.module("late.wasm", prints(), config_map="late")
    stage.until_state(first, "Inspected", seconds=40)


def test_content_that_is_not_what_was_pinned_does_not_run_and_both_digests_are_told(stage: Stage) -> None:
    data = stage.module("hello.wasm", prints())
    other = digest_of(b"something else")
    pinned = stage.revision("hello", "hello.wasm", digest=other)
    stage.assign(assignment(pinned, slots=1))
    stage.start()
    failed = stage.until_state(pinned, "Pulling", "ModulePullFailed")
    assert digest_of(data) in failed["message"]
    assert other in failed["message"]
    assert stage.lines("hello") == []


def test_a_revision_that_is_not_there_is_named(stage: Stage) -> None:
    revision = stage.revision("hello", "hello.wasm", digest=digest_of(b""))
    stage.client.call("DELETE", f"/apis/apps/v1/namespaces/{stage.namespace}/controllerrevisions/{revision.name}")
    stage.assign(assignment(revision, slots=1))
    stage.start()
    assert revision.name in stage.until_state(revision, "Pulling", "ModulePullFailed")["message"]


def test_a_removed_assignment_is_stopped_forgotten_and_confirmed(stage: Stage) -> None:
    data = stage.module("spins.wasm", SPINS)
    revision = stage.revision("spins", "spins.wasm", digest=digest_of(data), restartPolicy="Always")
    stage.assign(assignment(revision, slots=3))
    stage.start()
    stage.until(lambda: stage.entry(revision).get("usedSlots") == 3)
    stage.assign(assignment(revision, slots=1))
    stage.until(lambda: stage.entry(revision).get("reservedSlots") == 1)
    generation = stage.assign()
    stage.until(lambda: stage.entry(revision) == {} and stage.status()["observedGeneration"] == generation)
    stage.until(lambda: stage.status()["slots"]["used"] == 0)
    assert stage.status()["slots"]["free"] == 4


def test_a_never_index_that_was_taken_away_and_comes_back_does_not_begin_again(stage: Stage) -> None:
    data = stage.module("hello.wasm", prints().replace("(call $exit (i32.const 0))", "(loop (br 0))"))
    revision = stage.revision("hello", "hello.wasm", digest=digest_of(data), restartPolicy="Never")
    stage.start()
    stage.until(lambda: condition(stage.status(), "Ready").get("status") == "True")
    stage.assign(assignment(revision, slots=1, indexes="0"))
    stage.until(lambda: len(stage.lines("hello")) == 1)
    stage.assign()
    stage.until(lambda: stage.entry(revision) == {})
    stage.assign(assignment(revision, slots=1, indexes="0"))
    stage.until(lambda: stage.entry(revision).get("failed") == "0")
    assert len(stage.lines("hello")) == 1


def test_a_revision_of_another_workload_is_never_run(stage: Stage) -> None:
    data = stage.module("spins.wasm", SPINS)
    revision = stage.revision("theirs", "spins.wasm", digest=digest_of(data), restartPolicy="Always")
    stage.assign(msgspec.structs.replace(assignment(revision, slots=1), uid="uid-mine", name="mine"))
    stage.start()
    stage.until(lambda: any(it.get("reason") == "ModuleInvalid" for it in stage.status().get("workloads", [])))
    (entry,) = stage.status()["workloads"]
    assert "is of the workload with uid uid-theirs, uid-mine is assigned" in entry["message"]
    assert stage.status()["slots"]["used"] == 0


def test_without_the_api_server_it_goes_on_and_catches_up(stage: Stage, proxy: Proxy) -> None:
    data = stage.module("spins.wasm", SPINS)
    revision = stage.revision("spins", "spins.wasm", digest=digest_of(data), restartPolicy="Always")
    stage.assign(assignment(revision, slots=1))
    stage.start()
    stage.until_state(revision, "Running")
    proxy.cut()
    generation = stage.assign(assignment(revision, slots=2))
    time.sleep(2)
    assert 'wasmpool_slots{node="node-1",pool="small"' in stage.get("/metrics")[1]
    assert stage.get("/readyz")[0] == 200
    proxy.mend()
    stage.until(lambda: stage.status()["observedGeneration"] == generation)
    stage.until(lambda: stage.entry(revision).get("usedSlots") == 2)


def test_started_without_the_api_server_it_takes_up_what_may_run_twice(stage: Stage, proxy: Proxy) -> None:
    data = stage.module("hello.wasm", HELLO_THEN_SPINS)
    always = stage.revision("always", "hello.wasm", digest=digest_of(data), restartPolicy="Always")
    never = stage.revision("never", "hello.wasm", digest=digest_of(data), restartPolicy="Never")
    stage.assign(assignment(always, slots=1), assignment(never, slots=1, indexes="0"))
    stage.start()
    stage.until(lambda: stage.lines("always") and stage.lines("never"))
    stage.end(signal.SIGKILL)
    proxy.cut()
    stage.start()
    stage.until(lambda: len(stage.lines("always")) == 2, seconds=30)
    assert stage.get("/readyz")[0] == 503
    proxy.mend()
    failed = stage.until_state(never, "Failed", seconds=90)
    assert failed["failed"] == "0"
    assert len(stage.lines("never")) == 1
    assert stage.until_state(always, "Running")["usedSlots"] == 1


def test_a_restarted_container_runs_no_completed_index_again(stage: Stage) -> None:
    data = stage.module("hello.wasm", prints())
    revision = stage.revision("hello", "hello.wasm", digest=digest_of(data), restartPolicy="OnFailure")
    stage.assign(assignment(revision, slots=2, indexes="0-1"))
    stage.start()
    stage.until_state(revision, "Succeeded")
    stage.end(signal.SIGKILL)
    stage.start()
    _ready(stage)
    generation = stage.assign(assignment(revision, slots=3, indexes="0-2"))
    stage.until(lambda: stage.entry(revision).get("completed") == "0-2")
    assert stage.status()["observedGeneration"] == generation
    assert sorted(it["index"] for it in stage.lines("hello")) == [0, 1, 2]


def test_a_new_pod_takes_what_its_predecessor_may_have_begun_for_lost(stage: Stage) -> None:
    data = stage.module("hello.wasm", HELLO_THEN_SPINS)
    revision = stage.revision("job", "hello.wasm", digest=digest_of(data), restartPolicy="Never")
    stage.assign(assignment(revision, slots=1, indexes="7"))
    stage.start("pod-1")
    stage.until(lambda: stage.lines("job"))
    stage.end(signal.SIGKILL)
    stage.cache.rename(stage.cache.with_name("another-pods-cache"))
    stage.start("pod-2")
    failed = stage.until_state(revision, "Failed")
    assert failed["failed"] == "7"
    assert stage.status()["agent"]["podUID"] == "pod-2"
    assert len(stage.lines("job")) == 1


def test_a_node_object_that_is_deleted_and_made_again_is_followed(stage: Stage) -> None:
    data = stage.module("spins.wasm", SPINS)
    revision = stage.revision("spins", "spins.wasm", digest=digest_of(data), restartPolicy="Always")
    stage.assign(assignment(revision, slots=1))
    stage.start()
    stage.until_state(revision, "Running")
    node = stage.node()
    path = f"/apis/wasmpool.dev/v1alpha1/namespaces/{stage.namespace}/instancepoolnodes"
    stage.client.call("DELETE", f"{path}/{node['metadata']['name']}")
    stage.until(lambda: 'wasmpool_slots_used{node="node-1",pool="small",' in stage.get("/metrics")[1])
    stage.until(lambda: "} 0.0" in _line_of(stage.get("/metrics")[1], "wasmpool_slots_used"))
    node["metadata"] = {"name": node["metadata"]["name"]}
    del node["status"]
    stage.client.create(path, node)
    stage.until(lambda: stage.entry(revision).get("state") == "Running", seconds=30)


def test_what_can_not_be_written_down_does_not_begin_until_it_can(stage: Stage) -> None:
    data = stage.module("hello.wasm", prints())
    revision = stage.revision("job", "hello.wasm", digest=digest_of(data), restartPolicy="Never")
    stage.start()
    _ready(stage)
    stage.journal.rmdir()
    stage.assign(assignment(revision, slots=1, indexes="0"))
    stage.until(lambda: "its journal can't be written" in stage.errors.read_text())
    assert stage.lines("job") == []
    stage.journal.mkdir()
    stage.until_state(revision, "Succeeded")


def test_told_to_end_its_last_word_is_that_nothing_runs(stage: Stage) -> None:
    data = stage.module("spins.wasm", SPINS)
    revision = stage.revision("spins", "spins.wasm", digest=digest_of(data), restartPolicy="Always")
    stage.assign(assignment(revision, slots=2))
    stage.start()
    stage.until(lambda: stage.entry(revision).get("usedSlots") == 2)
    assert stage.end() == 0
    status = stage.status()
    assert condition(status, "Ready")["status"] == "False"
    assert condition(status, "Draining")["status"] == "True"
    assert status["slots"]["used"] == 0
    assert stage.entry(revision)["usedSlots"] == 0
    assert "Traceback" not in stage.errors.read_text()


def _line_of(text: str, name: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(name + "{")), "")
