"""A component's imports, each defined under the very name and version it is imported by.

Host functions are looked up without versions, so any mix of versions works. What nobody provides becomes a function
that traps when it is called: toolchains import much that a guest never uses.
"""

from collections.abc import Callable, Mapping, Set
from ctypes import c_void_p
from typing import Any

import wasmtime
from wasmtime import component as wit

from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.component_api import capi
from wasmpool_agent.component_api.calls import Call, Polling, explain
from wasmpool_agent.component_api.handles import ResourceTypes
from wasmpool_agent.component_api.lifting import Lift, lift_of
from wasmpool_agent.component_api.lowering import Lower, lower_of
from wasmpool_agent.wasi.p2.registry import Later
from wasmpool_agent.wasmtime_async import HostTrap

Function = Callable[..., object]
_Lifts = tuple[tuple[Lift, int], ...]


class Linking:
    """Links one component. `linker` and what it refers to live as long as this; `missing`: what nobody provides."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        component: wit.Component,
        functions: Mapping[str, Function],
        may_wait: Set[str],
    ) -> None:
        self.linker = wit.Linker(engine)
        self.polling = Polling()
        self.resources = ResourceTypes()
        self.missing: list[str] = []
        self._functions = functions
        self._may_wait = may_wait
        self._keep: list[object] = []
        self._destructor = capi.DESTRUCTOR(self._drop)
        items = [(name, extern.ty) for name, extern in component.type.imports(engine).items()]
        interfaces = [
            (name, [(inner, extern.ty) for inner, extern in item.exports(engine).items()])
            for name, item in items
            if isinstance(item, wit.ComponentInstanceType)
        ]
        for name, members in interfaces:
            for inner, member in members:
                if isinstance(member, wit.ResourceType):
                    self.resources.add(_key(name, inner), member)
        with self.linker.root() as root:
            for name, members in interfaces:
                with root.add_instance(name) as linked:
                    for inner, member in members:
                        self._define(linked, inner, _key(name, inner), member)
            for name, item in items:
                if not isinstance(item, wit.ComponentInstanceType):
                    self._define(root, name, name.partition("@")[0], item)

    def _define(self, linked: wit.LinkerInstance, name: str, key: str, item: object) -> None:
        match item:
            case wit.ResourceType():
                capi.define_resource(linked, name, self.resources.host_type(key), self._destructor)
            case wit.FuncType():
                self._define_function(linked, name, key, item)
            case wit.ValType():
                pass
            case _:
                raise Unsupported(f"import {key}: a {type(item).__name__} can't be provided")

    def _define_function(self, linked: wit.LinkerInstance, name: str, key: str, kind: wit.FuncType) -> None:
        function = self._functions.get(key)
        try:
            if function is None:
                raise Unsupported(f"{key} is not provided here")  # noqa: TRY301 - one way out for all
            lifts = tuple(
                (lift_of(param, self.resources), i * capi.VALUE_BYTES) for i, (_, param) in enumerate(kind.params)
            )
            lower = None if kind.result is None else lower_of(kind.result, self.resources)
        except Unsupported as error:
            self.missing.append(key)
            self._immediate(linked, name, _trap(str(error)))
            return
        if key in self._may_wait:
            self._waiting(linked, name, self._make_waiting(key, function, lifts, lower))
        else:
            self._immediate(linked, name, self._make_immediate(key, function, lifts, lower))

    def _make_immediate(self, key: str, function: Function, lifts: _Lifts, lower: Lower | None) -> Any:
        def call(
            _env: Any, _context: int, _type: int, arguments: int | None, _n: int, results: int | None, _m: int
        ) -> Any:
            try:
                instance = self._polled().instance
                handles = instance.handles
                at = arguments or 0
                outcome = function(instance.host, *[lift(handles, at + offset) for lift, offset in lifts])
                if isinstance(outcome, Later):
                    raise HostTrap(f"{key} is not among the functions that may wait")  # noqa: TRY301 - one way out for all
                if lower is not None:
                    lower(handles, results or 0, outcome)
            except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback
                return capi.make_error(explain(error, key))
            return None

        return call

    def _make_waiting(self, key: str, function: Function, lifts: _Lifts, lower: Lower | None) -> Any:
        continuation_address = self.polling.continuation

        def call(
            _env: Any, _context: int, _type: int, arguments: int | None, _n: int, results: int | None, _m: int,
            failure: int, continuation: int,
        ) -> None:  # fmt: skip
            try:
                # NB: before anything can fail, for Wasmtime calls whatever stands here once we have returned.
                (c_void_p * 3).from_address(continuation)[:] = [continuation_address, None, None]
                polled = self._polled()
                handles = polled.instance.handles
                at = arguments or 0
                outcome = function(polled.instance.host, *[lift(handles, at + offset) for lift, offset in lifts])
                if isinstance(outcome, Later):
                    polled.wait(outcome, lower, results or 0, key)
                elif lower is not None:
                    lower(handles, results or 0, outcome)
            except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback
                capi.address_at(failure).value = capi.make_error(explain(error, key))

        return call

    def _immediate(self, linked: wit.LinkerInstance, name: str, function: Any) -> None:
        callback = capi.IMMEDIATE(function)
        self._keep.append(callback)
        capi.define_immediate(linked, name, callback)

    def _waiting(self, linked: wit.LinkerInstance, name: str, function: Any) -> None:
        callback = capi.WAITING(function)
        self._keep.append(callback)
        capi.define_waiting(linked, name, callback)

    def _polled(self) -> Call:
        call = self.polling.call
        assert call is not None, "no guest is being polled"  # noqa: S101 - an invariant of this package
        return call

    def _drop(self, _env: Any, _context: int, representation: int) -> Any:
        try:
            self._polled().instance.handles.drop(representation)
        except BaseException as error:  # noqa: BLE001 - nothing may leave a ctypes callback
            return capi.make_error(explain(error, "a handle's end"))
        return None


def _key(interface: str, name: str) -> str:
    return f"{interface.partition('@')[0]}#{name}"


def _trap(message: str) -> Any:
    def call(*_: Any) -> Any:
        return capi.make_error(message)

    return call
