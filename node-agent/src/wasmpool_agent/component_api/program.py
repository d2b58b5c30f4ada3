"""Components as programs: loaded and linked once, instantiated for each guest."""

import ctypes
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Self

import wasmtime
from wasmtime import component as wit

from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.component_api import capi
from wasmpool_agent.component_api.calls import Call, FunctionCall, Placement
from wasmpool_agent.component_api.handles import Handles
from wasmpool_agent.component_api.lifting import Lift, lift_of
from wasmpool_agent.component_api.linking import Function, Linking
from wasmpool_agent.component_api.lowering import Lower, lower_of
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import FUNCTIONS, MAY_WAIT
from wasmpool_agent.wasmtime_async import yield_every_tick


def compile_component(engine: wasmtime.Engine, component: bytes) -> list[bytes]:
    """The compiled code, for `Program.load` on an engine of equal settings. Raises wasmtime.WasmtimeError."""
    return [bytes(wit.Component(engine, component).serialize())]


@dataclass(frozen=True, slots=True)
class _Export:
    index: wit.ExportIndex
    parameters: list[Lower]
    result: Lift | None


class Program:
    """A component, linked. `exports`: the functions of each exported interface; those of none are those of "".

    `missing`: the imports that nobody provides, without versions; a guest that calls one traps.
    """

    def __init__(
        self, engine: wasmtime.Engine, component: wit.Component, functions: Mapping[str, Function], may_wait: Set[str]
    ) -> None:
        self._component = component
        self._linking = Linking(engine, component, functions, may_wait)
        self._types: dict[tuple[str, str], wit.FuncType] = {}
        self._known: dict[tuple[str, str], _Export] = {}
        for name, extern in component.type.exports(engine).items():
            match extern.ty:
                case wit.ComponentInstanceType() as interface:
                    for inner, member in interface.exports(engine).items():
                        if isinstance(kind := member.ty, wit.FuncType):
                            self._types[name, inner] = kind
                case wit.FuncType() as kind:
                    self._types["", name] = kind
                case _:
                    pass
        self.missing = tuple(self._linking.missing)
        interfaces = {interface for interface, _ in self._types}
        self.exports = {it: frozenset(name for outer, name in self._types if outer == it) for it in interfaces}

    @classmethod
    def load(
        cls,
        engine: wasmtime.Engine,
        parts: Sequence[bytes | str | os.PathLike[str]],
        functions: Mapping[str, Function] = FUNCTIONS,
        may_wait: Set[str] = MAY_WAIT,
    ) -> Self:
        """`parts`: what `compile_component` made; as files, which are mapped and so shared, or as bytes.

        NB: compiled code is trusted like the agent itself. Raises wasmtime.WasmtimeError if it is of another engine,
        Unsupported if an import is of a kind that no host function can be.
        """
        capi.keep_freed_memory()
        (part,) = parts
        if isinstance(part, bytes):
            component = wit.Component.deserialize(engine, part)
        else:
            component = wit.Component.deserialize_file(engine, os.fspath(part))
        return cls(engine, component, functions, may_wait)

    def instance(self, store: wasmtime.Store, host: Host) -> "Instance":
        """Nothing runs yet. The store must be new, and of the same engine.

        NB: each core instance counts towards the store's limits, and a component may have a dozen.
        """
        return Instance(self, self._linking, store, host)

    def cells(self) -> tuple[int, int]:
        """For Instance alone: the addresses of linker and component."""
        return capi.address(self._linking.linker.ptr()), capi.address(self._component.ptr())

    def export(self, export: str, function: str) -> _Export:
        """For Instance alone."""
        found = self._known.get((export, function))
        if found is None:
            kind = self._types.get((export, function))
            outer = self._component.get_export_index(export) if export else None
            index = None if kind is None else self._component.get_export_index(function, outer)
            if kind is None or index is None:
                raise Unsupported(f"the component exports no function {export}#{function}")
            resources = self._linking.resources
            parameters = [lower_of(param, resources) for _, param in kind.params]
            found = _Export(index, parameters, None if kind.result is None else lift_of(kind.result, resources))
            self._known[export, function] = found
        return found


class Instance:
    """One guest: its store, its handles, and what it may see of the host. Close it before the store.

    One `Call` at a time: while one exists, the store belongs to it.
    """

    def __init__(self, program: Program, linking: Linking, store: wasmtime.Store, host: Host) -> None:
        self.host = host
        self.handles = Handles(capi.context_of(store))
        self._program = program
        self._linking = linking
        self._store = store
        self._cell = capi.INSTANCE()

    def instantiate(self, placement: Placement) -> Call:
        """Makes all of its core instances. `placement`: see the allocators' initialize; entered around each poll."""
        yield_every_tick(self._store)
        call = Call(self._linking.polling, self, placement)
        linker, component = self._program.cells()
        instance = ctypes.addressof(self._cell)
        call.begin(capi.instantiate(linker, self.handles.context, component, instance, call.error_cell))
        return call

    def call(self, export: str, function: str, *lifted: object) -> FunctionCall:
        """Calls an export, once the instantiation has ended. Raises Unsupported, or what lowering raises."""
        found = self._program.export(export, function)
        call = FunctionCall(self._linking.polling, self, found.parameters, found.result)
        index, cell = capi.address(found.index.ptr()), ctypes.addressof(call.function)
        if not capi.instance_function(ctypes.addressof(self._cell), self.handles.context, index, cell):
            raise Unsupported(f"the instance has no function {export}#{function}")
        try:
            arguments = call.arguments(lifted)
        except BaseException:
            call.close()
            raise
        self._store.set_epoch_deadline(1)  # ticks since it was made are not the call's
        call.begin(capi.call(cell, self.handles.context, *arguments, call.error_cell))
        return call

    def close(self) -> None:
        """Ends what its handles stand for. Idempotent."""
        self.handles.close()
