"""The compile side: a component's core modules and the glue between them as compiled code, and how they go together."""

from collections.abc import Collection

import wasmtime

from wasmpool_agent.canonical.glue import Glue
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.linked import START, Linked, Step, check_options, encode, function_key, slot_key
from wasmpool_agent.canonical.shims import find_shims
from wasmpool_agent.canonical.starting import export_start
from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.data_segments import join_data_segments
from wasmpool_api.wasm.linking import link
from wasmpool_api.wasm.linking_types import NotLinkable
from wasmpool_api.wasm.module import Sections, read_module
from wasmpool_api.wasm.plans import NONE, Item, Lift, Lower, Plan, ResourceCall
from wasmpool_api.wasm.preamble import PREAMBLE_BYTES
from wasmpool_api.wasm.reader import Reader


def compile_component(engine: wasmtime.Engine, component: bytes, may_wait: Collection[str]) -> list[bytes]:
    """The plan, then the compiled core modules, for `Program.load`. `may_wait`: functions that may return Later.

    Raises Unsupported, wasmpool_api.wasm.ModuleInvalid, wasmtime.WasmtimeError.
    """
    linked, modules = link_component(component, may_wait)
    return [encode(linked), *(bytes(wasmtime.Module(engine, module).serialize()) for module in modules)]


def link_component(component: bytes, may_wait: Collection[str]) -> tuple[Linked, list[bytes]]:
    """Pure: the plan and the core modules, before they are compiled. Raises Unsupported, ModuleInvalid."""
    try:
        plan = link(component)
    except NotLinkable as error:
        raise Unsupported(str(error)) from error
    return _Linker(component, plan, may_wait).linked()


class _Linker:
    def __init__(self, component: bytes, plan: Plan, may_wait: Collection[str]) -> None:
        self._component = component
        self._plan = plan
        self._may_wait = may_wait
        self._layouts = Layouts(plan.types)
        self._slots: dict[str, int] = {}
        self._items: list[Item] = []
        self._glue = Glue()
        self._sections = [self._read(number) for number in range(len(plan.modules))]
        self._shimmed = find_shims(component, plan, self._sections)
        self._forwards: dict[Item, Item] = {}

    def linked(self) -> tuple[Linked, list[bytes]]:
        plan = self._plan
        sections = self._sections
        for number, host in enumerate(plan.hosts):
            if isinstance(host, Lower):
                self._lower(number, host)
            else:
                self._resource(number, host)
        for lift in plan.lifts:
            self._lift(lift)
        made = [number for number in range(len(plan.instances)) if number not in self._shimmed.unused]
        imports = {number: self._imports(number) for number in made}
        used = list(dict.fromkeys(plan.instances[number].module for number in made))
        parts = {module: part for part, module in enumerate(used, start=1)}
        steps = tuple(self._step(number, imports[number], parts) for number in made)
        self._check_starts(steps, sections)
        self._glue.slots = len(self._items)
        names = tuple(tuple((each.module, each.name) for each in sections[module].imports) for module in used)
        linked = Linked(
            plan=plan,
            steps=steps,
            plain=tuple(number for number, _, _ in self._glue.plain),
            waiting=tuple(
                [number for number, _, _, _ in self._glue.waiting] + [number for number, _ in self._glue.destructors]
            ),
            slots=self._slots,
            names=((), *names),
            glue_imports=tuple(self._glue.imports()),
            tables=1 + sum(len(sections[plan.instances[number].module].tables) for number in made),
        )
        return linked, [self._glue.module(), *(self._module(module, sections[module]) for module in used)]

    def _bytes(self, number: int) -> bytes:
        offset, size = self._plan.modules[number]
        return self._component[offset : offset + size]

    def _read(self, number: int) -> Sections:
        return read_module(Reader(self._bytes(number), PREAMBLE_BYTES))

    def _module(self, number: int, sections: Sections) -> bytes:
        module = self._bytes(number)
        if sections.start is not None:
            module = export_start(module, START)
        return join_data_segments(module)

    def _slot(self, item: Item | None) -> int:
        if item is None:
            return -1
        item = self._resolved(item)
        if item.instance == NONE:
            raise Unsupported("a realloc or destructor that the host gives")
        key = slot_key(item)
        if key not in self._slots:
            self._slots[key] = len(self._items)
            self._items.append(item)
        return self._slots[key]

    def _lower(self, number: int, lower: Lower) -> None:
        signature = self._layouts.signature(lower.type, lowered=True)
        key = function_key(lower)
        result = () if lower.type.result == NONE else (lower.type.result,)
        points = any(self._layouts.points(each) for each in result)
        check_options(self._layouts, lower.options, (*lower.type.params, *result), realloc=points, name=key)
        if (signature.params_in_memory or signature.result_in_memory) and lower.options.memory is None:
            raise Unsupported(f"{key} passes values without a memory")
        if points or key in self._may_wait:
            slot = self._slot(lower.options.realloc) if points else -1
            self._glue.waiting.append((number, signature.params, signature.results, slot))
        else:
            self._glue.plain.append((number, signature.params, signature.results))

    def _resource(self, number: int, call: ResourceCall) -> None:
        resource = self._plan.resources[call.resource]
        if call.call == "drop" and resource.destructor is not None:
            self._glue.destructors.append((number, self._slot(resource.destructor)))
        else:
            self._glue.plain.append((number, "I", "" if call.call == "drop" else "I"))

    def _lift(self, lift: Lift) -> None:
        signature = self._layouts.signature(lift.type, lowered=False)
        result = () if lift.type.result == NONE else (lift.type.result,)
        points = any(self._layouts.points(each) for each in lift.type.params)
        realloc = points or signature.params_in_memory
        check_options(self._layouts, lift.options, (*lift.type.params, *result), realloc=realloc, name="an export")
        if (realloc or signature.result_in_memory) and lift.options.memory is None:
            raise Unsupported("an export passes values without a memory")
        used = (lift.function, lift.options.memory, lift.options.realloc, lift.options.post_return)
        if lift.function.instance == NONE or any(item and item.instance in self._shimmed.unused for item in used):
            raise Unsupported("an export is a host function, or a shim")
        if realloc:
            self._glue.allocators.append(self._slot(lift.options.realloc))

    def _resolved(self, item: Item) -> Item:
        """What stands behind shims."""
        for _ in range(len(self._plan.instances)):
            if item not in self._shimmed.replaced:
                return item
            item = self._shimmed.replaced[item]
        raise Unsupported("shims that call each other in a circle")

    def _imports(self, number: int) -> tuple[Item, ...]:
        """What a core instance gets; where that is made later, a function of the glue that calls on."""
        found: list[Item] = []
        for item in self._plan.instances[number].imports:
            target = self._resolved(item)
            if target.instance in self._shimmed.unused:
                raise Unsupported("a shim that is used as something else, too")
            if target.instance >= number:
                target = self._forward(item, target)
            found.append(target)
        return tuple(found)

    def _forward(self, item: Item, target: Item) -> Item:
        if item not in self._shimmed.types:
            raise Unsupported("a core instance that imports from one that is made later")
        if target not in self._forwards:
            slot = self._slot(target)
            label = f"forward {slot}"
            signature = self._shimmed.types[item]
            self._glue.forwards.append((label, slot, signature.params, signature.results))
            self._forwards[target] = Item(len(self._plan.instances), label)
        return self._forwards[target]

    def _step(self, number: int, imports: tuple[Item, ...], parts: dict[int, int]) -> Step:
        module = self._plan.instances[number].module
        slots = tuple((slot, item.name) for slot, item in enumerate(self._items) if item.instance == number)
        return Step(number, parts[module], imports, self._sections[module].start is not None, slots)

    def _check_starts(self, steps: tuple[Step, ...], sections: list[Sections]) -> None:
        """A start function runs after all has been instantiated: nobody must be able to tell."""
        started = False
        for step in steps:
            found = sections[self._plan.instances[step.number].module]
            if started and found.data and found.imported_memories:
                raise Unsupported("a start function before another module writes its data to the same memory")
            started = started or step.starts
