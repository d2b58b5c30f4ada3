"""Covers: what is counted in a module, held against modules written for it, real programs, and Wasmtime."""

import time
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.wasm_corpus import SAMPLES, all_features, binaries
from tests.fuzz.wasm_inspection import is_valid, run
from wasmpool_api.codec import decode, encode
from wasmpool_api.limits import ModuleLimits
from wasmpool_api.wasm import BinaryKind, Export, ExternKind, Import, Memory, Table, inspect, inspect_module
from wasmpool_api.wasm_workload import ModuleNeeds


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """Takes every proposal that Wasmtime knows."""
    return wasmtime.Engine(all_features())


@pytest.mark.parametrize("name", SAMPLES)
def test_what_a_sample_needs(name: str) -> None:
    sample = SAMPLES[name]
    assert inspect_module(sample.binary) == ModuleNeeds(**sample.needs, features=tuple(sorted(sample.features)))


@pytest.mark.parametrize("name", binaries())
def test_wasmtime_takes_the_samples_too(engine: wasmtime.Engine, name: str) -> None:
    """Else they would prove nothing."""
    assert is_valid(engine, binaries()[name])


@pytest.mark.parametrize("name", binaries())
def test_a_view_of_the_bytes_is_as_good_as_the_bytes(name: str) -> None:
    binary = binaries()[name]
    assert inspect(memoryview(b"before" + binary)[6:]) == inspect(binary)


def test_the_interface_of_a_module_is_in_the_inspection() -> None:
    found = inspect(SAMPLES["a command"].binary)
    assert found.kind is BinaryKind.MODULE
    assert found.imports == (
        Import("wasi_snapshot_preview1", "proc_exit", ExternKind.FUNCTION),
        Import("wasi_snapshot_preview1", "fd_write", ExternKind.FUNCTION),
    )
    assert found.exports == (Export("memory", ExternKind.MEMORY, 0), Export("_start", ExternKind.FUNCTION, 2))
    assert found.memories == (Memory(2, 17, shared=False, is64=False),)
    assert found.tables == (Table(5, 10, is64=False),)
    assert found.exports_function("_start")
    assert not found.exports_function("memory")
    assert not found.has_start


def test_memories_are_in_the_order_of_their_index() -> None:
    found = inspect(SAMPLES["an imported memory and one of its own"].binary)
    assert [memory.minimum for memory in found.memories] == [9, 2]


def test_a_start_function_is_seen() -> None:
    found = inspect(SAMPLES["a start function"].binary)
    assert (found.has_start, found.start) == (True, 0)


def test_needs_count_what_the_limits_limit() -> None:
    """Each field of ModuleLimits has the need of the same name, and the other way about."""
    names = set(ModuleLimits.__struct_fields__)
    assert names | {"features"} == set(ModuleNeeds.__struct_fields__)


@pytest.mark.parametrize("name", SAMPLES)
def test_needs_can_be_written_to_a_status(name: str) -> None:
    needs = inspect_module(SAMPLES[name].binary)
    assert decode(ModuleNeeds, encode(needs)) == needs
    assert all(value <= 2**63 - 1 for value in encode(needs).values() if isinstance(value, int))


COUNTS: dict[str, Any] = {
    "types": st.integers(1, 20),
    "functions": st.integers(0, 20),
    "tables": st.lists(st.integers(0, 10_000_000), max_size=3),
    "memories": st.lists(st.integers(0, 65536), max_size=3),
    "globals": st.integers(0, 20),
    "imported_functions": st.integers(0, 10),
    "imported_tables": st.integers(0, 3),
    "imported_memories": st.integers(0, 3),
    "imported_globals": st.integers(0, 10),
    "code": st.integers(0, 50),
}


@given(**COUNTS)
@settings(deadline=None)
def test_the_counts_of_a_generated_module_are_those_it_was_generated_from(**counts: Any) -> None:
    """And its imports and exports are those that Wasmtime sees."""
    binary = bytes(wasmtime.wat2wasm(generated(**counts)))
    found = inspect(binary)
    lists = {"tables", "memories", "code"}
    wanted = {name: value for name, value in counts.items() if name not in lists}
    needs = found.needs
    assert {name: getattr(needs, name) for name in wanted} == wanted
    assert (needs.tables, needs.table_elements) == (len(counts["tables"]), max(counts["tables"], default=0))
    assert (needs.memories, needs.memory_pages) == (len(counts["memories"]), max(counts["memories"], default=0))
    module = wasmtime.Module(wasmtime.Engine(all_features()), binary)
    assert [(it.module, it.name) for it in module.imports] == [(it.module, it.name) for it in found.imports]
    assert [it.name for it in module.exports] == [it.name for it in found.exports]


def generated(*, types: int, functions: int, globals: int, code: int, **counts: Any) -> str:  # noqa: A002
    """The text of a module with so many of each. Types are all different, so that none is shared."""
    lines = [f"(type (func {'(param i32)' * number}))" for number in range(types)]
    for count, kind in (
        ("imported_functions", "(func (type 0))"),
        ("imported_tables", "(table 1 funcref)"),
        ("imported_memories", "(memory 1)"),
        ("imported_globals", "(global i64)"),
    ):
        lines += [f'(import "{count}" "é{number}" {kind})' for number in range(counts[count])]
    lines += [f"(table {least} funcref)" for least in counts["tables"]]
    lines += [f"(memory {least})" for least in counts["memories"]]
    lines += [f"(global i32 (i32.const {-(7**number)}))" for number in range(min(globals, 11))]
    lines += ["(global i64 (i64.const -9223372036854775808))"] * (globals - min(globals, 11))
    body = "(drop (i64.const 1311768467463790320))" * code
    lines += [f'(func (export "f{number}") (type 0) {body})' for number in range(functions)]
    return f"(module {' '.join(lines)})"


def test_twenty_thousand_mutants_are_inspected_or_refused() -> None:
    """`python -m tests.fuzz.wasm_inspection` runs as many as wanted."""
    outcome = run(20_000, seed=1)
    assert outcome.valid > 1000, "most mutants must stay close to modules"
    assert len(outcome.refused) > 50, "every check must be reached"


def test_the_time_does_not_depend_on_the_size_of_the_code() -> None:
    body = b"\x00" + b"\x01" * 30_000_000 + b"\x0b"
    code = b"\x01" + leb(len(body)) + body
    data = b"\x01\x00\x41\x00\x0b" + leb(20_000_000) + bytes(20_000_000)
    module = (
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01"
        + (b"\x0a" + leb(len(code)) + code)
        + (b"\x0b" + leb(len(data)) + data)
    )
    began = time.thread_time()
    needs = inspect_module(module)
    took = time.thread_time() - began
    assert (needs.functions, needs.memories) == (1, 1)
    assert took < 0.05, f"{took * 1000:.1f} ms for {len(module) >> 20} MiB"


def leb(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
