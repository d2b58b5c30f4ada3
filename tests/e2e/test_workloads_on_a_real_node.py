"""Workloads on a real node, seen as their owner sees them: status, events, logs.

Covers: output and exit code of a guest built from C; completions; a guest that fails; instances that run for ever and
are scaled; a deadline; refusals with numbers; modules that are missing or broken.
"""

import base64
import re

import pytest

from tests.e2e.kube import Kube, Object, condition, config_map, workload

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


def test_guest_prints_what_it_was_given_and_finishes(kube: Kube, small_pool: str, guests: str) -> None:
    kube.apply(
        workload(
            "hello",
            small_pool,
            pool="small",
            key="hello.wasm",
            instances=2,
            args=["one", "two words"],
            env=[{"name": "GREETING", "value": "node"}],
        )
    )
    kube.until_condition("wasm", "hello", small_pool, "Finished", "True")
    status = kube.get("wasm", "hello", small_pool)["status"]
    assert status["instances"]["succeeded"] == 2
    assert status["instances"]["failed"] == 0
    assert status["completions"] == "0-1"
    assert status["module"]["digest"].startswith("sha256:")
    lines = kube.guest_lines("small", small_pool, "hello")
    for index in (0, 1):
        said = [line["message"] for line in lines if line["index"] == index and line["stream"] == "stdout"]
        assert said == ["hello, node, from a slot", "argument 1: one", "argument 2: two words"]
    assert {line["namespace"] for line in lines} == {small_pool}


def test_guest_that_leaves_with_another_exit_code_has_failed(kube: Kube, small_pool: str, guests: str) -> None:
    env = [{"name": "EXIT_CODE", "value": "7"}]
    kube.apply(workload("fails", small_pool, pool="small", key="hello.wasm", env=env))
    found = kube.until("wasm", "fails", small_pool, lambda seen: failed(seen) == 1)
    assert condition(found, "Finished")["status"] == "True"
    assert "7" in condition(found, "Finished")["message"]
    (stderr,) = [line for line in kube.guest_lines("small", small_pool, "fails") if line["stream"] == "stderr"]
    assert stderr["message"] == "leaving with exit code 7, as asked"


def test_instances_that_never_end_are_scaled_and_hold_their_slots(kube: Kube, small_pool: str, guests: str) -> None:
    kube.apply(workload("ticker", small_pool, pool="small", key="ticker.wasm", instances=2, restartPolicy="Always"))
    kube.until("wasm", "ticker", small_pool, lambda seen: ready(seen) == 2)
    kube.until("ipool", "small", small_pool, lambda seen: slots(seen)["reserved"] == 2 and slots(seen)["free"] == 6)

    kube.kubectl("scale", "wasm", "ticker", "-n", small_pool, "--replicas=3")
    kube.until("wasm", "ticker", small_pool, lambda seen: ready(seen) == 3)
    kube.kubectl("scale", "wasm", "ticker", "-n", small_pool, "--replicas=0")
    kube.until("ipool", "small", small_pool, lambda seen: slots(seen)["reserved"] == 0 and slots(seen)["free"] == 8)
    assert "tick 1" in [line["message"] for line in kube.guest_lines("small", small_pool, "ticker")]


def test_workload_that_does_not_fit_now_waits_with_numbers_and_runs_later(
    kube: Kube, small_pool: str, guests: str
) -> None:
    kube.apply(workload("first", small_pool, pool="small", key="ticker.wasm", instances=6, restartPolicy="Always"))
    kube.until("wasm", "first", small_pool, lambda seen: ready(seen) == 6)
    kube.apply(workload("second", small_pool, pool="small", key="hello.wasm", instances=4))
    waiting = kube.until_condition("wasm", "second", small_pool, "SlotsReserved", "False", "WaitingForCapacity")
    assert "2" in waiting["message"]
    assert "4" in waiting["message"]
    kube.kubectl("delete", "wasm", "first", "-n", small_pool)
    kube.until_condition("wasm", "second", small_pool, "Finished", "True")


def test_guest_over_its_deadline_is_stopped(kube: Kube, small_pool: str, guests: str) -> None:
    kube.apply(workload("late", small_pool, pool="small", key="ticker.wasm", deadline="2s"))
    found = kube.until("wasm", "late", small_pool, lambda seen: failed(seen) == 1, seconds=30)
    assert "deadline" in condition(found, "Finished")["message"].lower()


def test_module_over_the_limits_is_refused_with_both_numbers_and_holds_no_slot(
    kube: Kube, small_pool: str, guests: str
) -> None:
    kube.apply(workload("too-big", small_pool, pool="small", key="too-big.wasm"))
    refused = kube.until_condition("wasm", "too-big", small_pool, "Admitted", "False", "ExceedsModuleLimits")
    assert "512" in refused["message"]
    assert "32" in refused["message"]
    assert "small" in refused["message"]
    found = kube.get("wasm", "too-big", small_pool)
    assert found["status"]["instances"]["reserved"] == 0
    assert condition(found, "Stalled")["status"] == "True"
    assert kube.guest_lines("small", small_pool, "too-big") == []
    kube.until("ipool", "small", small_pool, lambda seen: seen["status"]["workloads"]["refused"] == 1)


def test_more_slots_than_the_pool_has_is_a_permanent_refusal(kube: Kube, small_pool: str, guests: str) -> None:
    kube.apply(workload("many", small_pool, pool="small", key="hello.wasm", instances=9))
    found = kube.until("wasm", "many", small_pool, lambda seen: "ExceedsPoolCapacity" in reasons(seen))
    message = next(one["message"] for one in found["status"]["conditions"] if one["reason"] == "ExceedsPoolCapacity")
    assert "9" in message
    assert "8" in message


def test_missing_config_map_is_named(kube: Kube, small_pool: str) -> None:
    kube.apply(workload("lost", small_pool, pool="small", config_map="nowhere", key="hello.wasm"))
    waiting = kube.until("wasm", "lost", small_pool, lambda seen: "ModulePullFailed" in reasons(seen))
    assert "nowhere" in message_of(waiting, "ModulePullFailed")


def test_missing_key_is_named_and_found_once_it_is_there(kube: Kube, small_pool: str, guests: str) -> None:
    kube.apply(workload("lost", small_pool, pool="small", config_map="more", key="later.wasm"))
    kube.apply(config_map("more", small_pool, {"other.wasm": base64.b64encode(b"x").decode()}))
    waiting = kube.until(
        "wasm", "lost", small_pool, lambda seen: "later.wasm" in message_of(seen, "ModulePullFailed"), seconds=90
    )
    assert "more" in message_of(waiting, "ModulePullFailed")
    module = kube.get("configmap", guests, small_pool)["binaryData"]["hello.wasm"]
    kube.apply(config_map("more", small_pool, {"later.wasm": module}))
    kube.until_condition("wasm", "lost", small_pool, "Finished", "True", seconds=90)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"#!/bin/sh\necho no\n", id="not wasm at all"),
        pytest.param(b"\0asm\x01\0\0\0\x01\x7f\x60", id="a section longer than the file"),
        pytest.param(b"\0asm\x01\0", id="cut off in the header"),
    ],
)
def test_broken_module_is_invalid_at_an_offset(kube: Kube, small_pool: str, content: bytes) -> None:
    kube.apply(
        config_map("broken", small_pool, {"broken.wasm": base64.b64encode(content).decode()}),
        workload("broken", small_pool, pool="small", config_map="broken", key="broken.wasm"),
    )
    invalid = kube.until_condition("wasm", "broken", small_pool, "ModuleValid", "False", "ModuleInvalid")
    offset = re.search(r"offset (\d+)", invalid["message"])
    assert offset is not None, invalid
    assert int(offset[1]) <= len(content)


def test_workload_of_a_pool_that_is_not_there_says_which(kube: Kube, namespace: str) -> None:
    kube.apply(workload("orphan", namespace, pool="nowhere", key="hello.wasm"))
    found = kube.until("wasm", "orphan", namespace, lambda seen: "PoolNotFound" in reasons(seen))
    assert "nowhere" in message_of(found, "PoolNotFound")


def ready(found: Object) -> int:
    """status.instances.ready."""
    number: int = found.get("status", {}).get("instances", {}).get("ready", 0)
    return number


def failed(found: Object) -> int:
    """status.instances.failed."""
    number: int = found.get("status", {}).get("instances", {}).get("failed", 0)
    return number


def slots(found: Object) -> dict[str, int]:
    """status.slots of a pool."""
    counts: dict[str, int] = found.get("status", {}).get("slots", {"reserved": -1, "free": -1})
    return counts


def reasons(found: Object) -> set[str]:
    """Reasons of all conditions."""
    return {one["reason"] for one in found.get("status", {}).get("conditions", [])}


def message_of(found: Object, reason: str) -> str:
    """Message of the first condition with that reason."""
    conditions: list[Object] = found.get("status", {}).get("conditions", [])
    return next((one["message"] for one in conditions if one["reason"] == reason), "")
