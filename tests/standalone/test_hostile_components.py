"""Components that mean harm by what they are: refused or ended, while another workload of the same agent runs."""

import wasmtime

from tests.standalone.agent import Files, once, prints

STREAM = """(component
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "feed" (func (param "bytes" (stream u8)) (result u32)))))
  (core module $m (func (export "run") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"""
TABLES = """(component
  (core module $m (table $t 1 funcref)
    (func (export "run") (result i32)
      (loop (br_if 0 (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 50000)))))
      unreachable))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"""


def beside(files: Files, component: str) -> tuple[dict[str, object], list[str]]:
    """What is reported of it, and what a well-behaved workload of another name says meanwhile."""
    files.module("harm.wasm", bytes(wasmtime.wat2wasm(component)))
    files.module("hello.wasm", prints())
    files.workload("harm", "harm.wasm")
    files.workload("hello", "hello.wasm")
    _, agent = once(files)
    assert agent.reports("hello")[-1]["state"] == "Succeeded"
    return agent.reports("harm")[-1], agent.said("hello")


def test_a_component_that_imports_a_stream_typed_function_is_refused_and_ends_no_process(files: Files) -> None:
    report, said = beside(files, STREAM)
    assert (report["state"], report["reason"]) == ("Refused", "UnsupportedFeature"), report
    assert said == ["hello"]


def test_a_table_bomb_gets_no_more_elements_than_its_pool_allows(files: Files) -> None:
    report, said = beside(files, TABLES)
    assert report["state"] == "Failed", report
    assert "unreachable" in str(report["message"]), "growing has ended"
    assert said == ["hello"]
