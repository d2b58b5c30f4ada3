"""Wasmtime's C API for components, typed: values in memory, host functions, and calls that can be suspended.

Addresses are passed, not ctypes pointer objects, as in wasmtime_async, whose traps are traps here too. Besides:

* A value that a host function gets belongs to Wasmtime, which drops it when the callback has returned; what it writes
  as a result must be made by Wasmtime's own functions, for Wasmtime frees it. Arguments and results of a call from
  outside are the caller's: `delete_value`.
* `*_new` functions of vectors and values move what they are given: nobody else may free it then.
* Values of streams and futures abort the process. Engines of this agent refuse components that have any.
"""

import ctypes
from ctypes import c_bool, c_char_p, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Final

import wasmtime

from wasmpool_agent.wasmtime_private import bindings, dll

VALUE: Final = bindings.wasmtime_component_val_t
VALUE_BYTES: Final = ctypes.sizeof(VALUE)
OF: Final = VALUE.of.offset
"""Where a value's contents begin; its kind is its first byte."""
NAME_BYTES: Final = ctypes.sizeof(bindings.wasm_name_t)
ENTRY: Final = bindings.wasmtime_component_valrecord_entry_t
ENTRY_BYTES: Final = ctypes.sizeof(ENTRY)
ENTRY_VALUE: Final = ENTRY.val.offset
FUNCTION: Final = bindings.wasmtime_component_func_t
INSTANCE: Final = bindings.wasmtime_component_instance_t

# wasmtime/component/val.h
BOOL: Final = 0
S8: Final = 1
U8: Final = 2
S16: Final = 3
U16: Final = 4
S32: Final = 5
U32: Final = 6
S64: Final = 7
U64: Final = 8
F32: Final = 9
F64: Final = 10
CHAR: Final = 11
STRING: Final = 12
LIST: Final = 13
RECORD: Final = 14
TUPLE: Final = 15
VARIANT: Final = 16
ENUM: Final = 17
OPTION: Final = 18
RESULT: Final = 19
FLAGS: Final = 20
RESOURCE: Final = 21

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

IMMEDIATE: Final = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)
"""(env, context, type, arguments, count, results, count) -> an error or None."""
WAITING: Final = ctypes.CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)
"""As IMMEDIATE, with two more: where an error goes, and where the continuation goes."""
CONTINUE: Final = ctypes.CFUNCTYPE(c_bool, c_void_p)
DESTRUCTOR: Final = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_uint32)
"""(env, context, representation) -> an error or None."""

_pointer_type: Any = ctypes.POINTER


def _quick(name: str, result: Any, *arguments: Any) -> Any:
    """A call that keeps the GIL: for what is short and calls nothing back."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, dll))


def _slow(name: str, result: Any, *arguments: Any) -> Any:
    """A call that runs guest code or maps memory: the GIL is released."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, dll))


name_new: Final = _quick("wasm_byte_vec_new", None, c_void_p, c_size_t, c_char_p)
list_new: Final = _quick("wasmtime_component_vallist_new", None, c_void_p, c_size_t, c_void_p)
tuple_new: Final = _quick("wasmtime_component_valtuple_new", None, c_void_p, c_size_t, c_void_p)
record_new: Final = _quick("wasmtime_component_valrecord_new", None, c_void_p, c_size_t, c_void_p)
flags_new: Final = _quick("wasmtime_component_valflags_new", None, c_void_p, c_size_t, c_void_p)
value_new: Final = _quick("wasmtime_component_val_new", c_void_p, c_void_p)
delete_value: Final = _quick("wasmtime_component_val_delete", None, c_void_p)
resource_of: Final = _quick("wasmtime_component_resource_any_to_host", c_void_p, c_void_p, c_void_p, c_void_p)
resource_to: Final = _quick("wasmtime_component_resource_host_to_any", c_void_p, c_void_p, c_void_p, c_void_p)
host_resource_new: Final = _quick("wasmtime_component_resource_host_new", c_void_p, c_bool, c_uint32, c_uint32)
host_resource_rep: Final = _quick("wasmtime_component_resource_host_rep", c_uint32, c_void_p)
host_resource_delete: Final = _quick("wasmtime_component_resource_host_delete", None, c_void_p)
instance_function: Final = _quick(
    "wasmtime_component_instance_get_func", c_bool, c_void_p, c_void_p, c_void_p, c_void_p
)
_error_new: Final = _quick("wasmtime_error_new", c_void_p, c_char_p)
_named = (c_void_p, c_char_p, c_size_t)
_define_immediate: Final = _quick(
    "wasmtime_component_linker_instance_add_func", c_void_p, *_named, IMMEDIATE, c_void_p, c_void_p
)
_define_waiting: Final = _quick(
    "wasmtime_component_linker_instance_add_func_async", c_void_p, *_named, WAITING, c_void_p, c_void_p
)
_define_resource: Final = _quick(
    "wasmtime_component_linker_instance_add_resource", c_void_p, *_named, c_void_p, DESTRUCTOR, c_void_p, c_void_p
)
instantiate: Final = _slow(
    "wasmtime_component_linker_instantiate_async", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p
)
call: Final = _slow(
    "wasmtime_component_func_call_async",
    c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p,
)  # fmt: skip
poll: Final = _slow("wasmtime_call_future_poll", c_bool, c_void_p)
delete_future: Final = _slow("wasmtime_call_future_delete", None, c_void_p)

byte_at: Final = ctypes.c_uint8.from_address
u32_at: Final = c_uint32.from_address
u64_at: Final = c_uint64.from_address
address_at: Final = c_void_p.from_address


def address(pointer: Any) -> int:
    """Of what one of the package's objects points at."""
    return ctypes.cast(pointer, c_void_p).value or 0


def keep_freed_memory() -> None:
    """Lets malloc keep up to 16 MiB of what is freed, in this process. Idempotent; without glibc it does nothing.

    A list of 64 KiB is 2 MiB of values, three times over: given back to the kernel after each call, they are paid for
    in page faults, six times what writing them costs.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 * 1024**2)
        mallopt(_M_TRIM_THRESHOLD, 16 * 1024**2)


def context_of(store: Any) -> int:
    """The store's context: what all calls but its own want."""
    return address(store._context())


def make_error(message: str) -> int:
    """An error that Wasmtime takes over."""
    made: int = _error_new(message.replace("\0", "\\0").encode(errors="replace"))
    return made


def raise_error(error: int | None) -> None:
    """Takes the error over. Raises wasmtime.WasmtimeError if there is one."""
    if error:
        kind: Any = wasmtime.WasmtimeError
        raise kind._from_ptr(ctypes.cast(error, _pointer_type(bindings.wasmtime_error_t)))


def define_immediate(linker_instance: Any, name: str, callback: Any) -> None:
    """Defines a host function that returns at once. NB: the callback must outlive the linker."""
    text = name.encode()
    raise_error(_define_immediate(address(linker_instance.ptr()), text, len(text), callback, None, None))


def define_waiting(linker_instance: Any, name: str, callback: Any) -> None:
    """Defines a host function that may suspend its guest. NB: as define_immediate."""
    text = name.encode()
    raise_error(_define_waiting(address(linker_instance.ptr()), text, len(text), callback, None, None))


def define_resource(linker_instance: Any, name: str, resource_type: Any, destructor: Any) -> None:
    """Defines a resource type of the host's. NB: the destructor must outlive the linker."""
    text, kind = name.encode(), address(resource_type.ptr())
    raise_error(_define_resource(address(linker_instance.ptr()), text, len(text), kind, destructor, None, None))
