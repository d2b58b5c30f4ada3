"""Calls with bits in and out: Python's floats change the payloads of signalling NaNs, and have no type for v128."""

# The Python package shows none of this: it is asked for by the names that it keeps to itself.
# pyright: reportPrivateUsage=false

import ctypes
from typing import Any, Final

import wasmtime

from tests.conformance.constants import Value
from wasmpool_agent.wasmtime_private import bindings

_KINDS: Final = {"i32": 0, "i64": 1, "f32": 2, "f64": 3, "v128": 4, "funcref": 5}
_TYPES: Final = {kind: name for name, kind in _KINDS.items()}
_BYTES: Final = {"i32": 4, "i64": 8, "f32": 4, "f64": 8, "v128": 16}


def to_raw(value: Value) -> Any:
    """As the C API has it. Of functions, null alone can be given."""
    raw = bindings.wasmtime_val_t(kind=_KINDS[value.type])
    if value.type != "funcref":
        size = _BYTES[value.type]
        ctypes.memmove(ctypes.addressof(raw.of), value.bits.to_bytes(size, "little"), size)
    return raw


def from_raw(raw: Any) -> Value:
    """Of a function: whether there is one."""
    name = _TYPES[raw.kind]
    if name == "funcref":
        return Value(name, int(raw.of.funcref.store_id != 0))
    return Value(name, int.from_bytes(ctypes.string_at(ctypes.addressof(raw.of), _BYTES[name]), "little"))


def call(store: wasmtime.Store, function: wasmtime.Func, results: int, arguments: tuple[Value, ...]) -> list[Value]:
    """`results`: how many the function has. Raises Trap, and WasmtimeError for arguments of other types."""
    given: Any = (bindings.wasmtime_val_t * len(arguments))(*map(to_raw, arguments))
    got: Any = (bindings.wasmtime_val_t * results)()
    pointer_to: Any = ctypes.POINTER
    trap: Any = pointer_to(bindings.wasm_trap_t)()
    error = bindings.wasmtime_func_call(
        store._context(), ctypes.byref(function._func), given, len(arguments), got, results, ctypes.byref(trap)
    )
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    if trap:
        raise wasmtime.Trap._from_ptr(trap)
    return [from_raw(raw) for raw in got]


def read_global(store: wasmtime.Store, variable: wasmtime.Global) -> Value:
    """Its value now."""
    raw = bindings.wasmtime_val_t()
    bindings.wasmtime_global_get(store._context(), ctypes.byref(variable._global), ctypes.byref(raw))
    return from_raw(raw)
