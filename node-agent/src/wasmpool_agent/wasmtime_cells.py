"""Core instances, externs and calls of one store by address: what hosts components on the core-module API.

As `wasmtime_async`, whose traps are all here too, but nothing is made for each call: `Cells` is one piece of memory for
everything that an instance hands to the C API, and is used again by the next one.

    instances | externs | values of a call | its trap and its error

NB: what is in the cells belongs to one store. Wasmtime aborts the process where it is used with another.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_bool, c_char_p, c_size_t, c_uint32, c_uint64, c_void_p
from operator import attrgetter
from struct import Struct
from typing import Any, Final

import wasmtime

from wasmpool_agent import _native
from wasmpool_agent.wasmtime_async import (
    HostTrap,
    address_of,
    make_trap,
    quick,
    raise_error,
    raise_failure,
    slow,
)
from wasmpool_agent.wasmtime_private import bindings

MAX_VALUES: Final = 17
"""Parameters of a core function: 16, and a pointer to the result."""
INSTANCE_BYTES: Final = ctypes.sizeof(bindings.wasmtime_instance_t)
EXTERN_BYTES: Final = ctypes.sizeof(bindings.wasmtime_extern_t)
ITEM_OFFSET: Final = bindings.wasmtime_extern_t.of.offset
_VALUE_BYTES: Final = ctypes.sizeof(bindings.wasmtime_val_t)
_VALUE_OFFSET: Final = bindings.wasmtime_val_t.of.offset
_RAW_BYTES: Final = ctypes.sizeof(bindings.wasmtime_val_raw_t)
# wasmtime/val.h and extern.h
_VALUE_KINDS: Final = {"I": 0, "Q": 1, "f": 2, "d": 3}
_FUNCTION_REFERENCE: Final = 5
FUNCTION, TABLE, MEMORY = 0, 2, 3
_CELLS: Final[dict[str, Any]] = {
    "I": c_uint32, "Q": c_uint64, "f": ctypes.c_float, "d": ctypes.c_double, "s": ctypes.c_int64,
}  # fmt: skip
_WIDTHS: Final = {"I": 4, "Q": 8, "f": 4, "d": 8}
_WRITABLE: Final = 0x200  # Python's PyBUF_WRITE

_UNCHECKED = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t)
_memory_data = quick("wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
memory_size: Callable[[int, int], int] = quick("wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)
"""(context, address of the memory) -> bytes."""
set_epoch_deadline: Callable[[int, int], None] = quick("wasmtime_context_set_epoch_deadline", None, c_void_p, c_uint64)
"""(context, ticks from now): with 0 the guest gives the thread back when it next enters a function."""
# NB: the header promises an error pointer, the library returns nothing: what would be read is garbage.
_yield_and_update = quick("wasmtime_context_epoch_deadline_async_yield_and_update", None, c_void_p, c_uint64)
_export_get = quick("wasmtime_instance_export_get", c_bool, c_void_p, c_void_p, c_char_p, c_size_t, c_void_p)
_table_set = quick("wasmtime_table_set", c_void_p, c_void_p, c_void_p, c_uint64, c_void_p)
_define = quick(
    "wasmtime_linker_define_func_unchecked",
    c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, _UNCHECKED, c_void_p, c_void_p,
)  # fmt: skip
_instance_new = slow("wasmtime_instance_new", c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p)
_instance_pre_instantiate = slow("wasmtime_instance_pre_instantiate", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)
_call = slow(
    "wasmtime_func_call_async",
    c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p,
)  # fmt: skip
_poll = slow("wasmtime_call_future_poll", c_bool, c_void_p)
_delete = slow("wasmtime_call_future_delete", None, c_void_p)
_view: Callable[[int, int, int], memoryview] = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, c_size_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)

_EXPORT_GET_ADDRESS: Final = ctypes.cast(_export_get, c_void_p).value or 0
_HEADER: Final = Struct("<III")
_WANTED: Final = Struct("<III")

RawFunction = Callable[[int], None]
"""(address of the core values): parameters are read there and the result is written there."""


def memory_view(context: int, memory: int, size: int) -> memoryview:
    """Its bytes, valid until the guest runs again. NB: used after that, it reads or writes what is there instead."""
    return _view(_memory_data(context, memory) or 0, size, _WRITABLE) if size else memoryview(b"")


def reader(kinds: str) -> Callable[[int], tuple[Any, ...]]:
    """(address of the core values) -> the values: "I", "Q", "f" and "d", as in `layout`.

    NB: attributes of a structure, for `string_at` and `unpack` take five times as long.
    """
    if not kinds:
        return lambda _: ()
    fields: list[tuple[str, Any]] = []
    for number, kind in enumerate(kinds):
        fields.append((f"value{number}", _CELLS[kind]))
        fields.append((f"rest{number}", ctypes.c_uint8 * (_RAW_BYTES - _WIDTHS[kind])))
    structure: Any = type("_Raw", (ctypes.Structure,), {"_pack_": 1, "_fields_": fields})
    at: Callable[[int], Any] = structure.from_address
    if len(kinds) == 1:
        return lambda address: (at(address).value0,)
    get: Callable[[Any], tuple[Any, ...]] = attrgetter(*(f"value{number}" for number in range(len(kinds))))
    return lambda address: get(at(address))


def value_type(kind: str) -> wasmtime.ValType:
    """Wasmtime's word for it."""
    types = {"I": wasmtime.ValType.i32, "Q": wasmtime.ValType.i64, "f": wasmtime.ValType.f32, "d": wasmtime.ValType.f64}
    return types[kind]()


class RawFunctions:
    """Host functions on linkers of one engine; keeps their callbacks alive, as long as any store that uses them."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._callbacks: list[tuple[str, Any, wasmtime.FuncType]] = []

    def add(self, label: str, params: str, results: str, function: RawFunction) -> int:
        """The number of a new one. What it raises ends the guest; `label` is for the message."""

        def call(_env: int | None, _caller: int, values: int, _count: int) -> int | None:
            try:
                function(values)
            except HostTrap as trap:
                return make_trap(f"{label}: {trap}")
            except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback
                return make_trap(f"{label} failed in the host: {error!r}")
            return None

        kind = wasmtime.FuncType([value_type(each) for each in params], [value_type(each) for each in results])
        self._callbacks.append((label, _UNCHECKED(call), kind))
        return len(self._callbacks) - 1

    def link(self, module: wasmtime.Module, imports: Sequence[tuple[str, str, int]]) -> wasmtime.InstancePre:
        """The module with host functions for all of its imports: (module, name, number). Raises WasmtimeError."""
        linker = wasmtime.Linker(self._engine)
        address = address_of(linker.ptr())
        for owner, name, number in dict.fromkeys(imports):
            _, callback, kind = self._callbacks[number]
            first, second = owner.encode(), name.encode()
            error = _define(
                address, first, len(first), second, len(second), address_of(kind.ptr()), callback, None, None
            )
            raise_error(error)
        return linker.instantiate_pre(module)


class Cells:
    """For one instance at a time, with so many core instances and externs."""

    __slots__ = ("_buffer", "externs", "failure", "instances", "state", "values")

    def __init__(self, instances: int, externs: int) -> None:
        sizes = (instances * INSTANCE_BYTES, externs * EXTERN_BYTES, (MAX_VALUES + 1) * _VALUE_BYTES, 16)
        self._buffer = ctypes.create_string_buffer(sum(sizes))
        self.instances = ctypes.addressof(self._buffer)
        self.externs = self.instances + sizes[0]
        self.values = self.externs + sizes[1]
        self.failure = self.values + sizes[2]
        # NB: a view of the last two words alone: the trap and the error.
        self.state = memoryview(self._buffer).cast("B")[sum(sizes) - 16 :].cast("Q")


def instantiate(context: int, module: int, imports: int, count: int, instance: int, cells: Cells) -> None:
    """A core instance of a module without a start function. Addresses; `count` externs are at `imports`.

    Raises wasmtime.WasmtimeError, GuestTrap.
    """
    error = _instance_new(context, module, imports, count, instance, cells.failure)
    _raise(cells, error)


def instantiate_linked(context: int, linked: int, instance: int, cells: Cells) -> None:
    """As `instantiate`, for what `RawFunctions.link` gave."""
    error = _instance_pre_instantiate(linked, context, instance, cells.failure)
    _raise(cells, error)


def _raise(cells: Cells, error: int | None) -> None:
    trap = cells.state[0]
    if trap or error:
        cells.state[0] = 0
        raise_failure(trap or None, error)


def fetch(context: int, instance: int, name: bytes, extern: int) -> bool:
    """Puts an export into the extern at that address; False where there is none."""
    found: bool = _export_get(context, instance, name, len(name), extern)
    return found


def wanted(items: Sequence[tuple[int, str]]) -> bytes:
    """For `fetch_all`: exports by core instance (which of the cells') and name."""
    names = [name.encode() for _, name in items]
    entries: list[bytes] = [_HEADER.pack(len(items), INSTANCE_BYTES, EXTERN_BYTES)]
    at = 0
    for (instance, _), name in zip(items, names, strict=True):
        entries.append(_WANTED.pack(instance, at, len(name)))
        at += len(name)
    return b"".join((*entries, *names))


def fetch_all(context: int, instances: int, externs: int, items: bytes) -> int:
    """Puts exports into externs, in a row from that address; how many were found before one was not."""
    return _native.fetch_externs(_EXPORT_GET_ADDRESS, context, instances, externs, items)


def kind_of(extern: int) -> int:
    """FUNCTION, TABLE, MEMORY or another."""
    return ctypes.c_uint8.from_address(extern).value


def set_table(context: int, table: int, index: int, function: int, cells: Cells) -> None:
    """Addresses of a table and of a function of the store. Raises wasmtime.WasmtimeError."""
    ctypes.c_uint8.from_address(cells.values).value = _FUNCTION_REFERENCE
    ctypes.memmove(cells.values + _VALUE_OFFSET, function, 16)
    raise_error(_table_set(context, table, index, cells.values))


def begin_yielding(context: int) -> None:
    """As `yield_every_tick`: from here on nothing of the store can be called but by `CoreCall`."""
    _yield_and_update(context, 1)
    set_epoch_deadline(context, 1)


class Values:
    """How the values of a call are written and read: `kinds` as in `raw_values`."""

    __slots__ = ("_checks", "_pack", "_unpack", "count", "kinds")

    def __init__(self, kinds: str) -> None:
        rest = _VALUE_BYTES - _VALUE_OFFSET
        layout = "".join(f"B{_VALUE_OFFSET - 1}x{kind}{rest - _WIDTHS[kind]}x" for kind in kinds)
        struct = Struct("<" + layout)
        self.kinds = tuple(_VALUE_KINDS[kind] for kind in kinds)
        self.count = len(kinds)
        self._pack = struct.pack
        self._unpack = struct.unpack
        self._checks = struct.size

    def write(self, address: int, values: Sequence[Any]) -> None:
        """Raises struct.error for what does not fit."""
        flat: list[Any] = []
        for kind, value in zip(self.kinds, values, strict=True):
            flat += (kind, value)
        ctypes.memmove(address, self._pack(*flat), self._checks)

    def read(self, address: int) -> tuple[Any, ...]:
        """Raises TypeError where the function returned something else."""
        if not self.count:
            return ()
        found = self._unpack(ctypes.string_at(address, self._checks))
        if found[::2] != self.kinds:
            raise TypeError(f"core values of kinds {found[::2]}, {self.kinds} were expected")
        return found[1::2]


class CoreCall:
    """One call of a core function, that may be suspended. Close it before its store."""

    __slots__ = ("_cells", "_future")

    def __init__(self, context: int, function: int, params: Values, values: Sequence[Any], results: int, cells: Cells):
        self._cells = cells
        params.write(cells.values, values)
        self._future: int = _call(
            context, function, cells.values, params.count, cells.values, results, cells.failure, cells.failure + 8
        )

    def poll(self) -> bool:
        """As wasmtime_async.Call.poll: GuestTrap, WasmtimeError."""
        if not _poll(self._future):
            return False
        self.close()
        state = self._cells.state
        trap, error = state
        if trap or error:
            state[0] = state[1] = 0
            raise_failure(trap or None, error or None)
        return True

    def close(self) -> None:
        """Idempotent."""
        future, self._future = self._future, 0
        if future:
            _delete(future)


def cell_of(kind: str) -> Callable[[int], Any]:
    """(address of the core values) -> something whose `value` is the first of them: "s" for a signed i64."""
    at: Callable[[int], Any] = _CELLS[kind].from_address
    return at
