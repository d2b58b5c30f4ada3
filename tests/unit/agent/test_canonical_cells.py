"""The bottom of the host of components: what is handed to the C API by address."""

import ctypes
import struct
from collections.abc import Iterator

import pytest
import wasmtime

from tests.unit.agent.canonical_harness import engine
from wasmpool_agent import _native
from wasmpool_agent.wasmtime_async import GuestTrap, HostTrap, context_of
from wasmpool_agent.wasmtime_cells import (
    EXTERN_BYTES,
    FUNCTION,
    INSTANCE_BYTES,
    MEMORY,
    TABLE,
    Cells,
    RawFunctions,
    Values,
    cell_of,
    fetch_all,
    instantiate_linked,
    kind_of,
    reader,
    wanted,
)

MODULE = '(module (memory (export "m") 1)'
MODULE += '(table (export "\u00e9t\u00e9") 1 funcref)'
MODULE += '(func (export "") (result i64) i64.const -1))'


@pytest.fixture
def cells() -> Iterator[tuple[int, Cells]]:
    """A store's context, and cells with an instance of MODULE as the second of two."""
    store = wasmtime.Store(engine())
    cells = Cells(2, 4)
    linked = RawFunctions(store.engine).link(wasmtime.Module(store.engine, MODULE), [])
    context = context_of(store)
    instantiate_linked(context, _address(linked), cells.instances + INSTANCE_BYTES, cells)
    yield context, cells
    store.close()


def _address(linked: wasmtime.InstancePre) -> int:

    return ctypes.cast(linked.ptr(), ctypes.c_void_p).value or 0


def test_exports_are_fetched_in_a_row_by_any_name(cells: tuple[int, Cells]) -> None:
    context, there = cells
    items = wanted([(1, "\u00e9t\u00e9"), (1, ""), (1, "m")])
    assert fetch_all(context, there.instances, there.externs + EXTERN_BYTES, items) == 3
    kinds = [kind_of(there.externs + number * EXTERN_BYTES) for number in (1, 2, 3)]
    assert kinds == [TABLE, FUNCTION, MEMORY]


def test_the_first_export_that_is_not_there_is_told(cells: tuple[int, Cells]) -> None:
    context, there = cells
    assert fetch_all(context, there.instances, there.externs, wanted([(1, "m"), (1, "n"), (1, "")])) == 1
    assert fetch_all(context, there.instances, there.externs, wanted([])) == 0


@pytest.mark.parametrize("items", [
    b"",
    b"\0" * 11,
    struct.pack("<III", 1, 16, 32),
    struct.pack("<III", 2**32 - 1, 16, 32),
    struct.pack("<IIIIII", 1, 16, 32, 0, 0, 1),
    struct.pack("<IIIIII", 1, 16, 32, 0, 2, 2**32 - 1) + b"abc",
])  # fmt: skip
def test_a_list_of_exports_that_says_more_than_it_has_is_refused_before_anything_is_called(items: bytes) -> None:
    with pytest.raises(ValueError, match="extern"):
        _native.fetch_externs(0, 0, 0, 0, items)


def test_raw_functions_read_and_write_values_of_each_kind() -> None:
    seen: list[tuple[object, ...]] = []
    read, cell = reader("IQfd"), cell_of("Q")

    def function(address: int) -> None:
        seen.append(read(address))
        cell(address).value = 2**63

    made = wasmtime.Engine()
    functions = RawFunctions(made)
    number = functions.add("label", "IQfd", "Q", function)
    module = wasmtime.Module(
        made,
        """(module (import "a" "b" (func $f (param i32 i64 f32 f64) (result i64)))
          (func (export "run") (result i64)
            (call $f (i32.const -1) (i64.const -1) (f32.const 0.5) (f64.const -0.25))))""",
    )
    store = wasmtime.Store(made)
    run = functions.link(module, [("a", "b", number)]).instantiate(store).exports(store)["run"]
    assert isinstance(run, wasmtime.Func)
    assert run(store) == -(2**63)
    assert seen == [(2**32 - 1, 2**64 - 1, 0.5, -0.25)]


@pytest.mark.parametrize(("raised", "message"), [
    (HostTrap("enough"), "label: enough"),
    (RuntimeError("oh"), r"label failed in the host: RuntimeError\('oh'\)"),
    (SystemExit(3), r"label failed in the host: SystemExit\(3\)"),
])  # fmt: skip
def test_nothing_that_a_raw_function_raises_gets_past_the_guest(raised: BaseException, message: str) -> None:
    def function(_address: int) -> None:
        raise raised

    made = wasmtime.Engine()
    functions = RawFunctions(made)
    number = functions.add("label", "", "", function)
    module = wasmtime.Module(made, '(module (import "a" "b" (func $f)) (start $f))')
    store = wasmtime.Store(made)
    linked = functions.link(module, [("a", "b", number)])
    cells = Cells(1, 1)
    with pytest.raises((GuestTrap, wasmtime.WasmtimeError), match=message):
        instantiate_linked(context_of(store), _address(linked), cells.instances, cells)
    store.close()


def test_values_of_another_kind_than_was_said_are_an_error() -> None:
    cells = Cells(1, 1)
    Values("I").write(cells.values, (5,))
    assert Values("I").read(cells.values) == (5,)
    with pytest.raises(TypeError, match="expected"):
        Values("Q").read(cells.values)
    with pytest.raises(struct.error):
        Values("I").write(cells.values, (2**32,))
