"""Which of the agent's two hosts runs a component is chosen for each, and said in its report."""

import pytest
import wasmtime

from tests.standalone.agent import Files, once

RUN = """(component
  (core module $first (memory (export "memory") 1)
    (func $start (i32.store (i32.const 0) (i32.const 7)))
    {start})
  (core module $second (import "first" "memory" (memory 1)) (data (i32.const 100) "x")
    (func (export "run") (result i32) (i32.ne (i32.load8_u (i32.const 100)) (i32.const 120))))
  (core instance $i (instantiate $first))
  (core instance $j (instantiate $second (with "first" (instance $i))))
  (func $run (result (result)) (canon lift (core func $j "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"""
"""With a start function, it runs before another module writes its data to the same memory: the agent can't do that."""


@pytest.mark.parametrize(("start", "host"), [("", "CanonicalABI"), ("(start $start)", "ComponentAPI")])
def test_a_component_that_the_agent_can_not_host_is_wasmtimes(files: Files, start: str, host: str) -> None:
    files.write_pool(componentLimits={"coreInstances": 8, "memories": 1, "tables": 4})
    files.module("runs.wasm", bytes(wasmtime.wat2wasm(RUN.replace("{start}", start))))
    files.workload("runs", "runs.wasm")
    status, agent = once(files)
    assert status == 0
    report = agent.reports("runs")[-1]
    assert (report["state"], report["componentHost"]) == ("Succeeded", host)


def test_a_core_module_has_no_host_to_choose(files: Files) -> None:
    files.module("runs.wasm", '(module (func (export "_start")))')
    files.workload("runs", "runs.wasm")
    _, agent = once(files)
    assert "componentHost" not in agent.reports("runs")[-1]
