"""A component that is loaded: compiled, linked, its types made into closures. One for many instances."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import wasmtime

from wasmpool_agent.canonical.arrangement import Exported, Making
from wasmpool_agent.canonical.binding import Binding, Function, Running
from wasmpool_agent.canonical.glue import MODULE, NEXT, VALUE, allocator
from wasmpool_agent.canonical.instance import Instance
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.lifting import Lifting
from wasmpool_agent.canonical.linked import Linked, decode, function_key, slot_key
from wasmpool_agent.canonical.lowering import Lowering
from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.wasmtime_async import HostTrap, address_of
from wasmpool_agent.wasmtime_cells import (
    EXTERN_BYTES,
    Cells,
    RawFunction,
    RawFunctions,
    Values,
    cell_of,
    wanted,
)
from wasmpool_api.wasm.plans import NONE, Lift, Lower, Options

MAX_IDLE_CELLS: Final = 8
"""Kept for the next instances."""
_word: Final = cell_of("I")
_answer: Final = cell_of("s")


class Program:
    """See the package. `core_instances`, `tables`: what a store must allow an instance."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        linked: Linked,
        modules: Sequence[wasmtime.Module],
        functions: Mapping[str, Function],
    ) -> None:
        self.engine = engine
        self.plan = linked.plan
        self.running = Running()
        self.options: list[Options] = []
        self.names = tuple(resource.name for resource in linked.plan.resources)
        self.glue = len(linked.plan.instances)
        self.core_instances = len(linked.steps) + 1
        self.tables = linked.tables
        self.starts = tuple(step.number for step in linked.steps if step.starts)
        self.exports = {name: frozenset(found) for name, found in linked.plan.exports.items()}
        self.missing: tuple[str, ...] = ()
        self._modules = tuple(modules)
        self._functions = RawFunctions(engine)
        self._layouts = Layouts(linked.plan.types)
        self._lifting = Lifting(self._layouts, linked.plan.resources)
        self._lowering = Lowering(self._layouts, linked.plan.resources)
        self._slots = linked.slots
        self._idle: list[Cells] = []
        self._exported: dict[tuple[str, str], Exported] = {}
        self._linked: list[wasmtime.InstancePre] = []
        self.externs = 0
        hosts = self._hosts(linked, functions)
        self.making = self._plan_making(linked, hosts)
        self.items = self.externs
        # One for each memory, function and table that an instance may look for.
        self.externs += len(self.options) + 2 * len(linked.slots) + 3 * len(linked.plan.lifts) + len(self.starts) + 2
        self.externs += len(linked.plan.lifts) + len(linked.plan.resources)

    @classmethod
    def load(
        cls,
        engine: wasmtime.Engine,
        plan: bytes | memoryview,
        modules: Sequence[wasmtime.Module],
        functions: Mapping[str, Function],
    ) -> "Program":
        """What `compile_component` made. Raises Unsupported, wasmtime.WasmtimeError."""
        try:
            linked = decode(plan)
        except msgspec.DecodeError as error:
            raise Unsupported(f"a plan that was not made by this version: {error}") from error
        return cls(engine, linked, modules, functions)

    def instance(self, store: wasmtime.Store, host: object) -> Instance:
        """A new one, in a new store."""
        return Instance(self, store, host)

    def context_number(self, options: Options) -> int:
        """Functions with the same memory, handles and encoding have one context."""
        wanted = Options(options.component, options.encoding, options.memory)
        if wanted not in self.options:
            self.options.append(wanted)
        return self.options.index(wanted)

    def take_cells(self) -> Cells:
        """For one instance, to be given back."""
        return self._idle.pop() if self._idle else Cells(self.glue + 1, self.externs)

    def give_cells(self, cells: Cells) -> None:
        """They are nobody's any more."""
        if len(self._idle) < MAX_IDLE_CELLS:
            self._idle.append(cells)

    def exported(self, interface: str, function: str) -> Exported:
        """Raises KeyError where there is no such export."""
        found = self._exported.get((interface, function))
        if found is None:
            lift = self.plan.lifts[self.plan.exports[interface][function]]
            found = self._exported[interface, function] = self._export(lift)
        return found

    def _hosts(self, linked: Linked, functions: Mapping[str, Function]) -> dict[str, int]:
        binding = Binding(self.plan, self._layouts, self.running, self.context_number)
        waiting = frozenset(linked.waiting)
        missing: list[str] = []
        hosts: dict[str, int] = {}
        for name, params, results in linked.glue_imports:
            made: RawFunction
            if name == NEXT:
                label, made = "realloc", self._next
            elif name.startswith(VALUE):
                label, made = "result", partial(self._value, cell_of(results))
            else:
                host = self.plan.hosts[int(name)]
                if isinstance(host, Lower):
                    label = function_key(host)
                    function = functions.get(label)
                    if function is None:
                        missing.append(label)
                        function = partial(_missing, label)
                    made = binding.lower(host, function, waits=int(name) in waiting)
                else:
                    label, made = f"resource.{host.call} of {self.names[host.resource]}", binding.resource(host)
            hosts[name] = self._functions.add(label, params, results, made)
        self.missing = tuple(dict.fromkeys(missing))
        return hosts

    def _next(self, address: int) -> None:
        state = self.running.state
        if state is None:
            raise HostTrap("no instance is being polled")
        _answer(address).value = state.next(_word(address).value)

    def _value(self, cell: Callable[[int], Any], address: int) -> None:
        state = self.running.state
        if state is None:
            raise HostTrap("no instance is being polled")
        cell(address).value = state.value

    def _plan_making(self, linked: Linked, hosts: dict[str, int]) -> tuple[Making, ...]:
        glue = self._functions.link(self._modules[0], [(MODULE, name, number) for name, number in hosts.items()])
        self._linked.append(glue)
        found = [Making(self.glue, address_of(glue.ptr()), True, 0, b"", 0, ())]
        plain = frozenset(linked.plain)
        for step in linked.steps:
            slots = tuple((slot, name.encode()) for slot, name in step.slots)
            module = self._modules[step.part]
            if all(item.instance == NONE and item.host in plain for item in step.imports):
                names = [
                    (*name, hosts[str(item.host)])
                    for name, item in zip(linked.names[step.part], step.imports, strict=True)
                ]
                pre = self._functions.link(module, names)
                self._linked.append(pre)
                found.append(Making(step.number, address_of(pre.ptr()), True, 0, b"", 0, slots))
                continue
            begin, count = self.externs, len(step.imports)
            self.externs += count
            items = [
                (self.glue, str(item.host)) if item.instance == NONE else (item.instance, item.name)
                for item in step.imports
            ]
            address = address_of(module.ptr())
            found.append(Making(step.number, address, False, count, wanted(items), begin * EXTERN_BYTES, slots))
        return tuple(found)

    def _export(self, lift: Lift) -> Exported:
        layouts, kind = self._layouts, lift.type
        signature = layouts.signature(kind, lowered=False)
        lower: Callable[..., None]
        if signature.params_in_memory:
            lower = self._lowering.record_storer(kind.params)
        else:
            lower = self._lowering.tuple_lowerer(kind.params)
        returned: tuple[int, int] | None = None
        lifted: Callable[..., object] | None = None
        if signature.result_in_memory:
            returned = layouts.size(kind.result)
            lifted = self._lifting.loader(kind.result)
        elif kind.result != NONE:
            lifted = self._lifting.lifter(kind.result, 0)
        realloc = lift.options.realloc
        return Exported(
            item=lift.function,
            context=self.context_number(lift.options),
            component=lift.options.component,
            params=Values(signature.params),
            results=Values(signature.results),
            lower=lower,
            lift=lifted,
            in_memory=layouts.record_size(kind.params) if signature.params_in_memory else None,
            returned=returned,
            allocator="" if realloc is None else allocator(self._slots.get(slot_key(realloc), 0)),
            post_return=lift.options.post_return,
            count=len(kind.params),
        )


def _missing(key: str, *_: object) -> object:
    raise HostTrap(f"{key} is not provided here")
