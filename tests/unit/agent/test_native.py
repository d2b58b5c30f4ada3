"""The C extension's edges: what it believes of Wasmtime, arguments of every wrong kind, and its sanitizers.

Covered: that the shapes it declares are the wheel's; that no argument crashes it; that objects may be dropped in any
order; and that its own test program passes under ASan with UBSan, and under TSan.
"""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import _bindings as bindings

from wasmpool_agent import _native
from wasmpool_agent.wasmtime_private import error_new_address, install_stack_creator

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "node-agent" / "native"
SLOT_TABLE_METHODS = [
    *("take", "release", "quarantine", "owned_by", "record"),
    *("set_quota", "clear_quota", "quota", "used_by"),
]
TABLE_ARGS = st.one_of(st.integers(-(2**70), 2**70), st.none(), st.text(max_size=3), st.floats(), st.binary(max_size=3))


def test_the_declared_shapes_are_those_of_the_wheel() -> None:
    memory, creator = bindings.wasmtime_linear_memory_t, bindings.wasmtime_memory_creator_t
    assert [name for name, *_ in memory._fields_] == ["env", "get_memory", "grow_memory", "finalizer"]
    assert [name for name, *_ in creator._fields_] == ["env", "new_memory", "finalizer"]
    assert (ctypes.sizeof(memory), ctypes.sizeof(creator)) == (32, 24)
    header = (NATIVE / "wasmtime_abi.h").read_text()
    fields = re.search(r"struct wasmtime_linear_memory \{(.*?)\}", header, re.DOTALL)
    assert fields is not None
    names = re.findall(r"\(\*(\w+)\)\(|\*(\w+);$", fields[1], re.MULTILINE)
    assert ["".join(name) for name in names] == [name for name, *_ in memory._fields_]
    assert len(bindings.wasmtime_new_memory_callback_t._argtypes_) == 7
    assert wasmtime.WasmtimeError is not None


@settings(max_examples=150, deadline=None)
@given(st.lists(TABLE_ARGS, max_size=5), st.sampled_from(SLOT_TABLE_METHODS))
def test_no_argument_crashes_the_slot_table(args: list[object], method: str) -> None:
    fd = _native.create_slot_table(3, 1)
    table = _native.SlotTable(fd)
    os.close(fd)
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
        getattr(table, method)(*args)
    assert table.broken() is None


@pytest.fixture
def parts() -> tuple[_native.Region, _native.SlotTable]:
    region_fd, table_fd = _native.memfd("test", 4 * 65536, 4096), _native.create_slot_table(2, 1)
    parts = _native.Region(region_fd, 4 * 65536), _native.SlotTable(table_fd)
    os.close(region_fd)
    os.close(table_fd)
    return parts


GOOD = {
    "worker": 1,
    "memories": 1,
    "area_bytes": 131072,
    "memory_bytes": 131072,
    "page_bytes": 4096,
    "guarded": False,
    "error_new": 1,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"memories": 0},
        {"memories": 3},
        {"area_bytes": 65536},
        {"area_bytes": 196608},
        {"memory_bytes": 65535},
        {"memory_bytes": -65536},
        {"memory_bytes": 2**33},
        {"page_bytes": 0},
        {"page_bytes": 1024},
        {"page_bytes": 12288},
        {"guarded": True, "page_bytes": 2**21},
        {"error_new": 0},
    ],
)
def test_sizes_that_do_not_fit_together_make_no_creator(
    parts: tuple[_native.Region, _native.SlotTable], wrong: dict[str, int]
) -> None:
    _native.MemoryCreator(*parts, **GOOD)
    with pytest.raises((OSError, ValueError)):
        _native.MemoryCreator(*parts, **(GOOD | wrong))


def test_a_creator_takes_only_open_parts_of_the_right_types(parts: tuple[_native.Region, _native.SlotTable]) -> None:
    region, table = parts
    with pytest.raises(TypeError):
        _native.MemoryCreator(table, region, **GOOD)  # type: ignore[arg-type]
    region.close()
    with pytest.raises(ValueError, match="the region is closed"):
        _native.MemoryCreator(region, table, **GOOD)


def test_the_parts_may_be_closed_while_a_creator_uses_them(parts: tuple[_native.Region, _native.SlotTable]) -> None:
    region, table = parts
    creator = _native.MemoryCreator(region, table, **(GOOD | {"error_new": error_new_address()}))
    taken = table.take(1, 1, 0, 0)
    assert taken == (0, False)
    region.close()
    table.close()
    with creator.placement(0):
        pass
    assert creator.finish(0) is True
    with pytest.raises(PermissionError):
        creator.finish(0)
    for nonsense in (-1, 2**40, "x", None):
        with pytest.raises((TypeError, OverflowError)):
            creator.finish(nonsense)  # type: ignore[arg-type]


def test_a_placement_ends_with_its_block_whatever_happens_inside(
    parts: tuple[_native.Region, _native.SlotTable],
) -> None:
    creator = _native.MemoryCreator(*parts, **GOOD)
    parts[1].take(1, 1, 0, 0)
    for _ in range(2):
        with pytest.raises(KeyError), creator.placement(0):
            raise KeyError
    with pytest.raises(PermissionError), creator.placement(1):
        pass


def test_asynchronous_guests_use_the_same_stack_one_after_the_other() -> None:
    creator = _native.StackCreator(idle_max=1, error_new=error_new_address())
    config = wasmtime.Config()
    install_stack_creator(config, creator)
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, '(module (func (export "f")))')
    trap, error = ctypes.POINTER(bindings.wasm_trap_t)(), ctypes.POINTER(bindings.wasmtime_error_t)()
    cells = (bindings.wasmtime_val_t * 1)()
    for _ in range(3):
        store = wasmtime.Store(engine)
        function = wasmtime.Instance(store, module, []).exports(store)["f"]
        assert isinstance(function, wasmtime.Func)
        context = bindings.wasmtime_store_context(store.ptr())
        failed = (ctypes.byref(trap), ctypes.byref(error))
        call = bindings.wasmtime_func_call_async(context, ctypes.byref(function._func), cells, 0, cells, 0, *failed)
        assert bindings.wasmtime_call_future_poll(call)
        bindings.wasmtime_call_future_delete(call)
        store.close()
    assert creator.stats() == (1, 2, 1)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_sanitizers_find_nothing(sanitizer: str) -> None:
    if shutil.which("clang") is None and shutil.which("gcc") is None:
        pytest.skip("needs clang or gcc")
    done = subprocess.run([NATIVE / "sanitize.sh", sanitizer], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"native: {sanitizer}: nothing found\n"
