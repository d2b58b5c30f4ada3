"""The wheel's async C API, typed: guests that can be suspended, polled and dropped, and host functions that may wait.

Everything passes addresses, not ctypes pointer objects: making those costs more than the calls themselves.

Traps, all of them seen:
* An exception that leaves a ctypes callback is printed and dropped, and Wasmtime reads the return value as success.
  So every callback here is made by HostFunctions, which turns anything into a trap of the guest.
* A callback object that is garbage collected is a jump into freed memory: `HostFunctions` owns them and must live as
  long as the linker and everything linked with it.
* While a `Call` exists its store belongs to it: no export may be read and no epoch deadline set from outside.
* The result cells must not move and must outlive the future, so `Call` owns them.
"""

import ctypes
import re
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from struct import Struct, calcsize
from typing import Any, Final, Generic, Protocol, TypeVar

import wasmtime

from wasmpool_agent.wasmtime_private import bindings, dll

I32: Final = "I"
I64: Final = "Q"
"""Value types of host functions as `struct` spells them. Both are unsigned on this side."""

RESULTS_MAX: Final = 1
"""An entry point may return at most one value, which is not looked at."""

_CAUSE_NUMBER: Final = re.compile(r"^\d+: ")

GuestT = TypeVar("GuestT")
Immediate = Callable[[int, "tuple[int, ...]"], int]
"""(caller, arguments) -> the i32 result. Raises HostTrap to end the guest."""
Waiting = Callable[[int, "tuple[int, ...]"], "int | Wait"]
"""As Immediate; or something to wait for, and then the result is 0."""

_pointer_type: Any = ctypes.POINTER
_UNCHECKED = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t)
_ASYNC = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p)
_CONTINUE = ctypes.CFUNCTYPE(c_bool, c_void_p)
_VALUE_BYTES: Final = ctypes.sizeof(bindings.wasmtime_val_t)
_VALUE_OFFSET: Final = bindings.wasmtime_val_t.of.offset
_RAW_BYTES: Final = ctypes.sizeof(bindings.wasmtime_val_raw_t)
# wasmtime/val.h and extern.h
_KIND_I32: Final = 0
_KIND_FUNC: Final = 0
_KIND_MEMORY: Final = 3


def quick(name: str, result: Any, *arguments: Any) -> Any:
    """A call that keeps the GIL: for what returns in well under a microsecond and calls nothing back."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, dll))


def slow(name: str, result: Any, *arguments: Any) -> Any:
    """A call that runs guest code or maps memory: the GIL is released."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, dll))


_caller_context = quick("wasmtime_caller_context", c_void_p, c_void_p)
_caller_export_get = quick("wasmtime_caller_export_get", c_bool, c_void_p, c_char_p, c_size_t, c_void_p)
_instance_export_get = quick("wasmtime_instance_export_get", c_bool, c_void_p, c_void_p, c_char_p, c_size_t, c_void_p)
_memory_data = quick("wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
_memory_size = quick("wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)
_trap_new = quick("wasmtime_trap_new", c_void_p, c_char_p, c_size_t)
_define_unchecked = quick(
    "wasmtime_linker_define_func_unchecked",
    c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, _UNCHECKED, c_void_p, c_void_p,
)  # fmt: skip
_define_async = quick(
    "wasmtime_linker_define_async_func",
    c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, _ASYNC, c_void_p, c_void_p,
)  # fmt: skip
# NB: the header promises an error pointer, the library returns nothing: what would be read is garbage.
_yield_and_update = quick("wasmtime_context_epoch_deadline_async_yield_and_update", None, c_void_p, c_uint64)
_poll = slow("wasmtime_call_future_poll", c_bool, c_void_p)
_delete = slow("wasmtime_call_future_delete", None, c_void_p)
_instantiate = slow(
    "wasmtime_instance_pre_instantiate_async", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p
)
_call = slow(
    "wasmtime_func_call_async",
    c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p,
)  # fmt: skip


class HostTrap(Exception):  # noqa: N818 - Wasmtime's word
    """Raised by a host function to end the guest that called it, with this message."""


class GuestTrap(Exception):  # noqa: N818 - Wasmtime's word
    """The guest trapped. `message` is the cause in one line, `backtrace` the wasm frames, innermost first."""

    def __init__(self, message: str, backtrace: str) -> None:
        super().__init__(message)
        self.message = message
        self.backtrace = backtrace


class ExportedMemory:
    """The memory that an instance exports as "memory", seen by host functions.

    Found at the first host call, for a start function may call the host before the instance is known. The address
    may change and the size grow with any guest instruction: ask again in every host call.
    """

    __slots__ = ("_caller", "_context", "_extern", "_handle")

    def __init__(self) -> None:
        self._caller = 0
        self._context = 0
        self._handle = 0
        self._extern = bindings.wasmtime_extern_t()

    def enter(self, caller: int) -> None:
        """At the beginning of every host function that may look at the memory."""
        self._caller = caller

    def extent(self) -> tuple[int, int]:
        """Address and length in bytes, valid until the guest runs again. HostTrap where there is no such export."""
        if not self._handle:
            self._find()
        return _memory_data(self._context, self._handle) or 0, _memory_size(self._context, self._handle)

    def _find(self) -> None:
        found = _caller_export_get(self._caller, b"memory", 6, ctypes.addressof(self._extern))
        if not found or self._extern.kind != _KIND_MEMORY:
            raise HostTrap('the module calls the host but exports no memory named "memory"')
        self._context = _caller_context(self._caller)
        self._handle = ctypes.addressof(self._extern.of)


class Wait(Protocol):
    """What a suspended guest waits for."""

    def ready(self) -> bool:
        """Whether the guest can go on. Called from inside a poll: quick, and it does not raise."""
        ...

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Has `wake` called once, on this thread, when `ready` may have become true. Returns what calls that off."""
        ...


@dataclass(frozen=True, slots=True)
class Later:
    """What a component's host function returns whose guest waits.

    `then` gives the result once `wait` is ready, or another Later.
    """

    wait: Wait
    then: Callable[[], object]


class HostFunctions(Generic[GuestT]):
    """Defines host functions on a linker and keeps their callbacks alive: one per engine, as long as the engine.

    Host functions belong to the linker, not to an instance; whom they serve is `guest`, the one being polled.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self.linker = wasmtime.Linker(engine)
        self._polled: Call[GuestT] | None = None
        self._keep: list[object] = []
        self._continue = _CONTINUE(self._poll_wait)
        self._continue_address = ctypes.cast(self._continue, c_void_p).value

    @property
    def guest(self) -> GuestT:
        """The guest whose host call this is. Only inside a host function."""
        assert self._polled is not None, "no guest is being polled"  # noqa: S101 - an invariant of this module
        return self._polled.guest

    def define(self, module: str, name: str, params: str, result: bool, function: Immediate) -> None:
        """A host function that returns at once; `params` in I32 and I64. The bare call costs 0.3 us."""
        arguments = Struct("<" + "".join(f"{kind}{_RAW_BYTES - calcsize(kind)}x" for kind in params))

        def call(_env: int | None, caller: int, values: int, _count: int) -> int | None:
            try:
                outcome = function(caller, arguments.unpack(ctypes.string_at(values, arguments.size)))
                if result:
                    c_uint32.from_address(values).value = outcome
            except HostTrap as trap:
                return make_trap(str(trap))
            except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback, see above
                return make_trap(f"{module}.{name} failed in the host: {error!r}")
            return None

        self._add(_define_unchecked, module, name, params, result, _UNCHECKED(call))

    def define_waiting(self, module: str, name: str, params: str, function: Waiting) -> None:
        """A host function with one i32 result that may suspend its guest; `params` in I32 and I64."""
        rest = _VALUE_BYTES - _VALUE_OFFSET
        arguments = Struct("<" + "".join(f"{_VALUE_OFFSET}x{kind}{rest - calcsize(kind)}x" for kind in params))

        def call(
            _env: int | None, caller: int, values: int, _n: int, results: int, _m: int, trap: int, continuation: int
        ) -> None:
            try:
                # NB: before anything can fail, for Wasmtime calls whatever stands here once we have returned.
                (c_void_p * 3).from_address(continuation)[:] = [self._continue_address, None, None]
                outcome = function(caller, arguments.unpack(ctypes.string_at(values, arguments.size)))
                errno = outcome if isinstance(outcome, int) else 0
                c_uint8.from_address(results).value = _KIND_I32
                c_uint32.from_address(results + _VALUE_OFFSET).value = errno
                if not isinstance(outcome, int) and self._polled is not None:
                    self._polled.waits_for = outcome
            except HostTrap as error:
                c_void_p.from_address(trap).value = make_trap(str(error))
            except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback, see above
                c_void_p.from_address(trap).value = make_trap(f"{module}.{name} failed in the host: {error!r}")

        self._add(_define_async, module, name, params, True, _ASYNC(call))

    def instantiate(self, module: wasmtime.InstancePre, store: wasmtime.Store, guest: GuestT) -> "Call[GuestT]":
        """Makes an instance and runs its start function, if it has one."""
        call = Call(self, guest)
        call.begin(_instantiate(address_of(module.ptr()), context_of(store), *call.instance_cells()))
        return call

    def call(
        self, store: wasmtime.Store, instantiated: "Call[GuestT]", name: str, guest: GuestT
    ) -> "Call[GuestT] | None":
        """Calls an exported function that takes nothing. None where the instance exports no such function."""
        context = context_of(store)
        call = Call(self, guest)
        function = call.function_cell(context, instantiated, name)
        if not function:
            return None
        call.begin(_call(context, function, *call.value_cells(), *call.failure_cells()))
        return call

    def _poll_wait(self, _env: int | None) -> bool:
        polled = self._polled
        if polled is None or polled.waits_for is None:
            return True
        if not polled.waits_for.ready():
            return False
        polled.waits_for = None
        return True

    def poll(self, call: "Call[GuestT]", future: int) -> bool:
        """For Call alone."""
        self._polled = call
        try:
            return bool(_poll(future))
        finally:
            self._polled = None

    def _add(self, define: Any, module: str, name: str, params: str, result: bool, callback: Any) -> None:
        kinds = {I32: wasmtime.ValType.i32, I64: wasmtime.ValType.i64}
        kind = wasmtime.FuncType([kinds[param]() for param in params], [wasmtime.ValType.i32()] if result else [])
        names = (module.encode(), len(module.encode()), name.encode(), len(name.encode()))
        self._keep.append(callback)
        raise_error(define(address_of(self.linker.ptr()), *names, address_of(kind.ptr()), callback, None, None))


class Call(Generic[GuestT]):
    """A guest that runs, or is suspended, in an instantiation or in a call. Close it before its store.

    Invariant: while `waits_for` is set, polling is pointless until that is ready; else the guest wants to run.
    """

    def __init__(self, functions: HostFunctions[GuestT], guest: GuestT) -> None:
        self.guest = guest
        self.waits_for: Wait | None = None
        self.instance = bindings.wasmtime_instance_t()
        self._functions = functions
        self._future = 0
        self._failure = (c_void_p * 2)()
        self._function = bindings.wasmtime_extern_t()
        self._values = (bindings.wasmtime_val_t * RESULTS_MAX)()
        self._results = 0

    def poll(self) -> bool:
        """Lets the guest run until it ends (True), waits for something, or has used up its time slice.

        Raises GuestTrap where it trapped, wasmtime.WasmtimeError where the call could not be made at all.
        """
        if not self._functions.poll(self, self._future):
            return False
        self.close()
        trap, error = self._failure
        self._failure[:] = [None, None]
        raise_failure(trap, error)
        return True

    def close(self) -> None:
        """Idempotent. Drops the future: a guest that has not ended is unwound, without running any of its code."""
        future, self._future = self._future, 0
        if future:
            _delete(future)

    def begin(self, future: int) -> None:
        """For HostFunctions alone, as are the cells below: addresses that live as long as this object."""
        self._future = future

    def instance_cells(self) -> tuple[int, int, int]:
        return ctypes.addressof(self.instance), *self.failure_cells()

    def failure_cells(self) -> tuple[int, int]:
        base = ctypes.addressof(self._failure)
        return base, base + ctypes.sizeof(c_void_p)

    def value_cells(self) -> tuple[int, int, int, int]:
        values = ctypes.addressof(self._values)
        return values, 0, values, self._results

    def function_cell(self, context: int, instantiated: "Call[GuestT]", name: str) -> int:
        instance, text = ctypes.addressof(instantiated.instance), name.encode()
        if not _instance_export_get(context, instance, text, len(text), ctypes.addressof(self._function)):
            return 0
        return ctypes.addressof(self._function.of) if self._function.kind == _KIND_FUNC else 0


def yield_every_tick(store: wasmtime.Store) -> None:
    """Before instantiation: guests of this store give the thread back at every tick of the engine's epoch."""
    context = context_of(store)
    _yield_and_update(context, 1)
    store.set_epoch_deadline(1)


def address_of(pointer: Any) -> int:
    """Of what a ctypes pointer points to; 0 for none."""
    return ctypes.cast(pointer, c_void_p).value or 0


def make_trap(message: str) -> int:
    """The address of a new trap, for whom it is returned to."""
    text = message.encode()
    address: int = _trap_new(text, len(text))
    return address


# What the package keeps to itself is reached through Any, in `context_of`, `raise_error` and `trap_message` alone.
def context_of(store: Any) -> int:
    """The address of a store's context."""
    return address_of(store._context())


def raise_error(error: int | None) -> None:
    """wasmtime.WasmtimeError for the error at that address, which it takes."""
    if error:
        kind: Any = wasmtime.WasmtimeError
        raise kind._from_ptr(ctypes.cast(error, _pointer_type(bindings.wasmtime_error_t)))


def raise_failure(trap: int | None, error: int | None) -> None:
    """GuestTrap or wasmtime.WasmtimeError for what a call ended with; takes both."""
    if trap:
        raise GuestTrap(*split_trap(trap_message(trap)))
    try:
        raise_error(error)
    except wasmtime.WasmtimeError as failure:
        # Traps that a host function made come as errors; what tells them from a refusal is that wasm was running.
        message, backtrace = split_trap(str(failure))
        if backtrace:
            raise GuestTrap(message, backtrace) from None
        raise


def trap_message(trap: int) -> str:
    """Of the trap at that address, which it takes."""
    kind: Any = wasmtime.Trap
    return str(kind._from_ptr(ctypes.cast(trap, _pointer_type(bindings.wasm_trap_t))).message)


def split_trap(text: str) -> tuple[str, str]:
    """Wasmtime's text of a trap as (cause in one line, frames one per line); no frames where there were none."""
    head, _, causes = text.partition("\n\nCaused by:\n")
    title, _, frames = head.partition("wasm backtrace:\n")
    if not frames:
        return text.strip(), ""
    lines = (_CAUSE_NUMBER.sub("", line.strip()) for line in causes.splitlines())
    message = ": ".join(line.removeprefix("wasm trap: ") for line in lines if line)
    return message or title.strip(), "\n".join(line.strip() for line in frames.splitlines())
