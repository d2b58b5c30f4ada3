"""A component's guest that runs, or is suspended: what the scheduler polls."""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from ctypes import c_void_p
from typing import TYPE_CHECKING, Any

import wasmtime

from wasmpool_agent.component_api import capi
from wasmpool_agent.component_api.lifting import Lift
from wasmpool_agent.component_api.lowering import Lower
from wasmpool_agent.wasi.p2.registry import Later
from wasmpool_agent.wasmtime_async import GuestTrap, HostTrap, Wait, split_trap

if TYPE_CHECKING:
    from wasmpool_agent.component_api.program import Instance

Placement = Callable[[], AbstractContextManager[None]]
"""Makes what is entered around a poll in which memories may be made."""


def explain(error: BaseException, name: str) -> str:
    """What a guest's trap says: a HostTrap's own words, or that the named function failed in the host."""
    return str(error) if isinstance(error, HostTrap) else f"{name} failed in the host: {error!r}"


class Polling:
    """Whose guest runs in this moment: host functions belong to a program, and serve the one that is being polled."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self._continue = capi.CONTINUE(self._go_on)
        self.continuation = ctypes.cast(self._continue, c_void_p).value or 0

    def _go_on(self, _env: int | None) -> bool:
        return self.call is None or self.call.go_on()


class Call:
    """As wasmtime_async.Call: an instantiation, or a call of an export. Close it before its store.

    Invariant: while `waits_for` is set, polling is pointless until that is ready; else the guest wants to run.
    """

    def __init__(self, polling: Polling, instance: "Instance", placement: Placement = nullcontext) -> None:
        self.instance = instance
        self.waits_for: Wait | None = None
        self._polling = polling
        self._placement = placement
        self._future = 0
        self._error = c_void_p()
        self._pending: tuple[Later, Lower | None, int, str] | None = None
        self._failed = ""

    def poll(self) -> bool:
        """Lets the guest run until it ends (True), waits for something, or has used up its time slice.

        Raises GuestTrap where it trapped, wasmtime.WasmtimeError where an instance could not be made at all.
        """
        self._polling.call = self
        try:
            with self._placement():
                ended = bool(capi.poll(self._future))
        finally:
            self._polling.call = None
        if self._failed:
            self.close()
            raise GuestTrap(self._failed, "")
        if not ended:
            return False
        self._drop_future()
        error, self._error.value = self._error.value, None
        if not error:
            self._take_result()
            self.close()
            return True
        self.close()
        try:
            capi.raise_error(error)
        except wasmtime.WasmtimeError as failure:
            message, backtrace = split_trap(str(failure))
            if backtrace or not self._is_instantiation():
                raise GuestTrap(message, backtrace) from None
            raise
        return True

    def close(self) -> None:
        """Idempotent. Drops the future: a guest that has not ended is unwound, without running any of its code."""
        self._drop_future()
        self._pending = None

    def wait(self, later: Later, lower: Lower | None, results: int, name: str) -> None:
        """For host functions: the guest is suspended until `later` has a result, which goes to `results`."""
        self._pending = later, lower, results, name
        self.waits_for = later.wait

    def go_on(self) -> bool:
        """Whether the suspended guest may go on; called by Wasmtime, inside a poll, on the guest's own stack."""
        if self._pending is None:
            return True
        later, lower, results, name = self._pending
        try:
            while later.wait.ready():
                outcome = later.then()
                if isinstance(outcome, Later):
                    later = outcome
                    continue
                if lower is not None:
                    lower(self.instance.handles, results, outcome)
                self._pending = self.waits_for = None
                return True
            self._pending = later, lower, results, name
            self.waits_for = later.wait
        except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback
            # Wasmtime takes no error from a continuation: it is left waiting, and `poll` drops it.
            self._failed = explain(error, name)
            self.waits_for = None
        return False

    def begin(self, future: int) -> None:
        """For Instance alone."""
        self._future = future

    @property
    def error_cell(self) -> int:
        """For Instance alone: where the future puts its error."""
        return ctypes.addressof(self._error)

    def _drop_future(self) -> None:
        future, self._future = self._future, 0
        if future:
            capi.delete_future(future)

    def _is_instantiation(self) -> bool:
        return True

    def _take_result(self) -> None:
        pass


class FunctionCall(Call):
    """A call of an exported function."""

    def __init__(self, polling: Polling, instance: "Instance", parameters: list[Lower], result: Lift | None) -> None:
        super().__init__(polling, instance)
        self.function = capi.FUNCTION()
        self._parameters = parameters
        self._lift = result
        self._values: Any = (capi.VALUE * (len(parameters) + 1))()
        self._held = False
        self._result: object = None

    def arguments(self, values: tuple[object, ...]) -> tuple[int, int, int, int]:
        """Writes the arguments down: (their address, how many, where the result goes, how many)."""
        first = ctypes.addressof(self._values)
        self._held = True
        for i, (lower, value) in enumerate(zip(self._parameters, values, strict=True)):
            lower(self.instance.handles, first + i * capi.VALUE_BYTES, value)
        return first, len(values), first + len(values) * capi.VALUE_BYTES, int(self._lift is not None)

    def result(self) -> object:
        """What the function returned, lifted; None if it returns nothing. Only after `poll` said True."""
        return self._result

    def close(self) -> None:
        """See Call."""
        super().close()
        if self._held:
            self._held = False
            first = ctypes.addressof(self._values)
            for i in range(len(self._values)):
                capi.delete_value(first + i * capi.VALUE_BYTES)

    def _is_instantiation(self) -> bool:
        return False

    def _take_result(self) -> None:
        if self._lift is not None:
            at = ctypes.addressof(self._values) + len(self._parameters) * capi.VALUE_BYTES
            self._result = self._lift(self.instance.handles, at)
