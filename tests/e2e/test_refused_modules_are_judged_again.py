"""A refused workload on a real node is judged again when the limits or the module change, by the agent that is there.

Covers: raised limits; a mended ConfigMap; both at once; admission.mode Count, and what it says and counts; limits that
are lowered under a running workload. The agent's pod is the same one throughout.
"""

import base64
from collections.abc import Iterator

import pytest
import wasmtime

from tests.e2e.kube import Kube, Object, condition, config_map, pool, workload

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

STRICT = {"memoryPages": 32, "functions": 5, "tables": 0}


def module(*, functions: int = 1, globals_: int = 0, tables: int = 0, says: str = "ran") -> str:
    """Base64 of a command with so many functions of its own, beside _start."""
    text = says.encode() + b"\n"
    data = "".join(f"\\{byte:02x}" for byte in text)
    return base64.b64encode(
        wasmtime.wat2wasm(
            f"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  {"(global i32 (i32.const 1))" * globals_}
  {"(table 1 funcref)" * tables}
  {"(func)" * (functions - 1)}
  (data (i32.const 16) "{data}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const {len(text)}))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
        )
    ).decode()


@pytest.fixture
def strict(kube: Kube, namespace: str) -> Iterator[str]:
    """A pool `small` that allows five functions and no table; its agent is the same one at the end of the test."""
    made = pool("small", namespace, count=4)
    made["spec"]["moduleLimits"] = STRICT
    kube.apply(made)
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    before = agent(kube, namespace)
    yield namespace
    assert agent(kube, namespace) == before


def agent(kube: Kube, namespace: str) -> tuple[str, int]:
    """Uid of its pod, and how often it was restarted."""
    (pod,) = kube.all_of("pods", namespace, "wasmpool.dev/pool=small")
    return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]


def apply(kube: Kube, namespace: str, name: str, content: str, **more: object) -> None:
    """A workload, and the ConfigMap with its module."""
    kube.apply(
        config_map(name, namespace, {"it.wasm": content}),
        workload(name, namespace, pool="small", config_map=name, key="it.wasm", **more),  # type: ignore[arg-type]
    )


def limit(kube: Kube, namespace: str, **changes: int) -> None:
    """Other moduleLimits for the pool."""
    text = ",".join(f'"{name}":{value}' for name, value in changes.items())
    patch = f'{{"spec":{{"moduleLimits":{{{text}}}}}}}'
    kube.kubectl("patch", "ipool", "small", "-n", namespace, "--type=merge", "-p", patch)


def until_refused(kube: Kube, namespace: str, name: str, *parts: str) -> None:
    found = kube.until_condition("wasm", name, namespace, "Admitted", "False", "ExceedsModuleLimits")
    for part in parts:
        assert part in found["message"]


def said(kube: Kube, namespace: str, name: str) -> list[str]:
    return [line["message"] for line in kube.guest_lines("small", namespace, name)]


def test_raised_limits_admit_what_they_refused(kube: Kube, strict: str) -> None:
    apply(kube, strict, "many", module(functions=9))
    until_refused(kube, strict, "many", "functions: needs 9, pool small allows 5")
    limit(kube, strict, functions=9)
    kube.until_condition("wasm", "many", strict, "Finished", "True", seconds=30)
    assert said(kube, strict, "many") == ["ran"]
    (node,) = kube.all_of("ipnode", strict)
    assert node["spec"]["admission"]["moduleLimits"]["functions"] == 9


def test_raised_limits_hold_for_what_the_worker_enforces_too(kube: Kube, strict: str) -> None:
    """Tables are not in the slot: there is no reason for another agent."""
    apply(kube, strict, "tables", module(tables=2))
    until_refused(kube, strict, "tables", "tables: needs 2, pool small allows 0")
    limit(kube, strict, tables=2)
    kube.until_condition("wasm", "tables", strict, "Finished", "True", seconds=30)
    assert kube.get("wasm", "tables", strict)["status"]["instances"]["succeeded"] == 1


def test_a_mended_module_runs(kube: Kube, strict: str) -> None:
    apply(kube, strict, "mended", module(functions=9))
    until_refused(kube, strict, "mended")
    before = kube.get("wasm", "mended", strict)["status"]["module"]["digest"]
    kube.apply(config_map("mended", strict, {"it.wasm": module(functions=2, says="mended")}))
    kube.until_condition("wasm", "mended", strict, "Finished", "True", seconds=30)
    assert said(kube, strict, "mended") == ["mended"]
    assert kube.get("wasm", "mended", strict)["status"]["module"]["digest"] != before


def test_a_module_that_can_not_be_read_runs_once_it_is_mended(kube: Kube, strict: str) -> None:
    apply(kube, strict, "broken", base64.b64encode(b"no").decode())
    kube.until_condition("wasm", "broken", strict, "ModuleValid", "False", "ModuleInvalid")
    kube.apply(config_map("broken", strict, {"it.wasm": module(says="mended")}))
    kube.until_condition("wasm", "broken", strict, "Finished", "True", seconds=30)
    assert said(kube, strict, "broken") == ["mended"]


def test_a_module_that_does_not_compile_runs_once_it_is_mended(kube: Kube, strict: str) -> None:
    """An inspection does not read code."""
    apply(kube, strict, "code", base64.b64encode(wasmtime.wat2wasm('(func (export "_start") i32.add)')).decode())
    kube.until_condition("wasm", "code", strict, "ModuleValid", "False", "ModuleInvalid")
    kube.until("wasm", "code", strict, lambda it: it["status"]["instances"]["reserved"] == 0)
    kube.apply(config_map("code", strict, {"it.wasm": module(says="mended")}))
    kube.until_condition("wasm", "code", strict, "Finished", "True", seconds=30)
    assert said(kube, strict, "code") == ["mended"]


def test_what_was_mended_while_the_limits_were_raised_runs_as_it_is_now(kube: Kube, strict: str) -> None:
    apply(kube, strict, "both", module(functions=20))
    until_refused(kube, strict, "both")
    kube.apply(config_map("both", strict, {"it.wasm": module(functions=9, says="mended")}))
    limit(kube, strict, functions=30)
    kube.until_condition("wasm", "both", strict, "Finished", "True", seconds=30)
    assert said(kube, strict, "both") == ["mended"]


def test_mode_count_runs_what_it_would_refuse_says_so_and_counts_it(kube: Kube, strict: str) -> None:
    apply(kube, strict, "counted", module(functions=9, globals_=20))
    until_refused(kube, strict, "counted")
    kube.kubectl(
        "patch", "ipool", "small", "-n", strict, "--type=merge", "-p", '{"spec":{"admission":{"mode":"Count"}}}'
    )
    kube.until_condition("wasm", "counted", strict, "Finished", "True", seconds=30)
    admitted = condition(kube.get("wasm", "counted", strict), "Admitted")
    assert admitted["status"] == "True"
    assert admitted["message"] == (
        "admission.mode of pool small is Count; Enforce would refuse: "
        "functions: needs 9, pool small allows 5; globals: needs 20, pool small allows 10"
    )
    kube.until("ipool", "small", strict, lambda it: it["status"]["workloads"].get("wouldRefuse") == 1)
    assert kube.get("wasm", "counted", strict)["status"]["instances"]["succeeded"] == 1


def test_lowered_limits_stop_what_runs_and_raised_ones_start_it_again(kube: Kube, strict: str, guests: str) -> None:
    limit(kube, strict, functions=10000, tables=1)
    ticker = workload("ticker", strict, pool="small", key="ticker.wasm", restartPolicy="Always")
    kube.apply(ticker)
    kube.until("wasm", "ticker", strict, running)
    digest = kube.get("wasm", "ticker", strict)["status"]["module"]["digest"]
    limit(kube, strict, functions=5)
    until_refused(kube, strict, "ticker", "pool small allows 5")
    kube.until("ipool", "small", strict, lambda it: it["status"]["slots"]["reserved"] == 0)
    limit(kube, strict, functions=10000)
    kube.until("wasm", "ticker", strict, running)
    assert kube.get("wasm", "ticker", strict)["status"]["module"]["digest"] == digest


def running(found: Object) -> bool:
    """Whether its one instance runs."""
    ready: int = found.get("status", {}).get("instances", {}).get("ready", 0)
    return ready == 1
