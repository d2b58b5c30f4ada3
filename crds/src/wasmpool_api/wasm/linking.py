"""How a component is linked: its definitions are gone through once, and what is left is a `Plan`.

Everything that only names things (aliases, exports, instances of what is there already, components within) is gone by
the end. What is not linked raises NotLinkable, with the reason; bytes that are no component raise ModuleInvalid.

Types of arguments and exports are not compared: that is for the engine, which compares those of core modules.
"""

from dataclasses import dataclass, field
from typing import Final, cast

from wasmpool_api.wasm.component import read_component
from wasmpool_api.wasm.linking_types import (
    AnyType,
    Exports,
    Imported,
    NotLinkable,
    ResourceType,
    Types,
    TypeScope,
    at,
    named,
)
from wasmpool_api.wasm.module import extern_kind
from wasmpool_api.wasm.plans import (
    NONE,
    CoreInstance,
    FunctionType,
    Item,
    Lift,
    Lower,
    Options,
    Plan,
    ResourceCall,
)
from wasmpool_api.wasm.preamble import PREAMBLE_BYTES, BinaryKind, expect_preamble, kind_of
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.types import value_type

MAX_DEPTH: Final = 50
_ENCODINGS: Final = ("utf8", "utf16", "latin1+utf16")
_CORE_KINDS: Final = 5
_FUNCTION, _MEMORY = 0, 2
_I32: Final = 0x7F


@dataclass(frozen=True, slots=True)
class _CoreExports:
    """A core instance: `number` of the plan, or (NONE) made of `items`."""

    number: int
    items: dict[str, Item]

    def item(self, name: str, offset: int) -> Item:
        if self.number != NONE:
            return Item(self.number, name)
        if name not in self.items:
            raise ModuleInvalid(offset, f"the core instance does not export {name}")
        return self.items[name]


@dataclass(frozen=True, slots=True)
class _Within:
    """A component that stands inside, with what it can see."""

    start: int
    end: int
    scope: "_Scope"


@dataclass(frozen=True, slots=True)
class _Lifted:
    """The exported function `number` of the plan."""

    number: int


@dataclass(slots=True)
class _Scope(TypeScope):
    """The index spaces of one component instance. `number`: which."""

    number: int = 0
    functions: list[object] = field(default_factory=list[object])
    components: list[object] = field(default_factory=list[object])
    core_modules: list[int] = field(default_factory=list[int])
    core_instances: list[_CoreExports] = field(default_factory=list[_CoreExports])
    core_items: tuple[list[Item], ...] = field(default_factory=lambda: tuple([] for _ in range(_CORE_KINDS)))
    exports: Exports = field(default_factory=dict[str, tuple[str, object]])


def link(data: bytes | memoryview) -> Plan:
    """Raises ModuleInvalid, NotLinkable."""
    if kind_of(data) is not BinaryKind.COMPONENT:
        raise NotLinkable("a core module")
    contents = read_component(Reader(data, PREAMBLE_BYTES))
    linking = _Linking(data, {module.offset: number for number, module in enumerate(contents.modules)})
    linking.wanted = [[(each.module, each.name) for each in module.sections.imports] for module in contents.modules]
    root = linking.component(PREAMBLE_BYTES, len(data), None, {}, 0)
    return Plan(
        modules=tuple((module.offset, module.size_bytes) for module in contents.modules),
        instances=tuple(linking.instances),
        types=tuple(linking.types.all),
        resources=tuple(linking.types.resources),
        hosts=tuple(linking.hosts),
        lifts=tuple(linking.lifts),
        exports=_exported(root.exports),
        components=linking.components,
    )


def _exported(exports: Exports) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, (sort, value) in exports.items():
        if isinstance(value, _Lifted):
            found.setdefault("", {})[name] = value.number
        elif sort == "instance":
            inner = cast("Exports", value)
            functions = {each: lifted.number for each, (_, lifted) in inner.items() if isinstance(lifted, _Lifted)}
            found[name] = functions
    return found


class _Linking:
    """Goes through the sections of one file."""

    def __init__(self, data: bytes | memoryview, modules: dict[int, int]) -> None:
        self.data = data
        self.modules = modules
        self.wanted: list[list[tuple[str, str]]] = []
        self.types = Types(data)
        self.instances: list[CoreInstance] = []
        self.hosts: list[Lower | ResourceCall] = []
        self.lifts: list[Lift] = []
        self.components = 0

    def component(self, start: int, end: int, parent: _Scope | None, given: Exports, depth: int) -> _Scope:
        """One component instance. `start`: behind its preamble."""
        if depth > MAX_DEPTH:
            raise NotLinkable(f"components within each other more than {MAX_DEPTH} deep")
        scope = _Scope(parent, number=self.components)
        self.components += 1
        reader = Reader(self.data, start, end)
        while reader.remaining:
            self.types.spend()
            section = reader.byte("a section")
            body = reader.section("a section")
            match section:
                case 0:
                    continue
                case 1:
                    scope.core_modules.append(self.modules[body.position])
                case 4:
                    expect_preamble(body, BinaryKind.COMPONENT)
                    scope.components.append(_Within(body.position, body.end, scope))
                case 9:
                    raise NotLinkable("start functions of components")
                case _:
                    self._items(section, body, scope, given, depth)
        return scope

    def _items(self, section: int, body: Reader, scope: _Scope, given: Exports, depth: int) -> None:
        count = body.u32("the number of items")
        self.types.spend(count)
        for _ in range(count):
            match section:
                case 2:
                    self._core_instance(body, scope)
                case 3:
                    self.types.core_type(body)
                case 5:
                    self._instance(body, scope, depth)
                case 6:
                    self._alias(body, scope)
                case 7:
                    scope.types.append(self._type(body, scope))
                case 8:
                    self._canonical(body, scope)
                case 10:
                    self._import(body, scope, given)
                case _:
                    self._export(body, scope)

    def _type(self, body: Reader, scope: _Scope) -> AnyType:
        if body.peek() != 0x3F:
            return self.types.read(body, scope)
        offset = body.position
        body.byte("a type")
        if body.byte("a resource's representation") != _I32:
            raise NotLinkable("resources that are not represented by an i32")
        destructor = None
        if body.byte("a resource's destructor"):
            destructor = at(scope.core_items[_FUNCTION], body.u32("a destructor"), offset, "core function")
        return self.types.resource(f"resource {len(self.types.resources)}", scope.number, destructor)

    def _core_instance(self, body: Reader, scope: _Scope) -> None:
        offset = body.position
        if body.byte("a core instance") == 0:
            module = at(scope.core_modules, body.u32("a core module"), offset, "core module")
            arguments: dict[str, _CoreExports] = {}
            for _ in range(body.u32("arguments")):
                name = body.name("an argument's name")
                body.byte("an argument's sort")
                arguments[name] = at(scope.core_instances, body.u32("an argument"), offset, "core instance")
            self.types.spend(len(self.wanted[module]))
            imports: list[Item] = []
            for owner, name in self.wanted[module]:
                if owner not in arguments:
                    raise ModuleInvalid(offset, f"the core module imports {owner}, which nobody gives to it")
                imports.append(arguments[owner].item(name, offset))
            self.instances.append(CoreInstance(module, tuple(imports)))
            scope.core_instances.append(_CoreExports(len(self.instances) - 1, {}))
            return
        items: dict[str, Item] = {}
        for _ in range(body.u32("exports")):
            name = body.name("an export's name")
            code = body.peek()
            extern_kind(body, "an export")
            items[name] = at(scope.core_items[code], body.u32("an export"), offset, "core item")
        scope.core_instances.append(_CoreExports(NONE, items))

    def _sorted(self, body: Reader, scope: _Scope) -> tuple[str, object]:
        """A sort and an index: what is meant."""
        offset = body.position
        match body.byte("a sort"):
            case 0:
                body.byte("a sort")
                return "module", at(scope.core_modules, body.u32("an index"), offset, "core module")
            case 1:
                return "function", at(scope.functions, body.u32("an index"), offset, "function")
            case 3:
                return "type", at(scope.types, body.u32("an index"), offset, "type")
            case 4:
                return "component", at(scope.components, body.u32("an index"), offset, "component")
            case 5:
                return "instance", at(scope.instances, body.u32("an index"), offset, "instance")
            case _:
                raise NotLinkable("values")

    def _add(self, scope: _Scope, sort: str, value: object) -> None:
        spaces: dict[str, list[object]] = {
            "function": scope.functions,
            "type": scope.types,  # type: ignore[dict-item]
            "component": scope.components,
            "instance": scope.instances,  # type: ignore[dict-item]
            "module": scope.core_modules,  # type: ignore[dict-item]
        }
        spaces[sort].append(value)

    def _instance(self, body: Reader, scope: _Scope, depth: int) -> None:
        offset = body.position
        if body.byte("an instance") == 0:
            component = at(scope.components, body.u32("a component"), offset, "component")
            if not isinstance(component, _Within):
                raise NotLinkable("a component from the host")
            given: Exports = {}
            for _ in range(body.u32("arguments")):
                name = body.name("an argument's name")
                given[name] = self._sorted(body, scope)
            made = self.component(component.start, component.end, component.scope, given, depth + 1)
            scope.instances.append(made.exports)
            return
        exports: Exports = {}
        for _ in range(body.u32("exports")):
            name = _extern_name(body)
            exports[name] = self._sorted(body, scope)
        scope.instances.append(exports)

    def _alias(self, body: Reader, scope: _Scope) -> None:
        offset = body.position
        sort = body.byte("an alias")
        core = body.byte("an alias") if sort == 0 else NONE
        match body.byte("an alias"):
            case 0:
                instance = at(scope.instances, body.u32("an instance"), offset, "instance")
                wanted = "module" if core != NONE else _SORTS.get(sort, "value")
                self._add(scope, *named(instance, body.name("an export's name"), wanted, offset))
            case 1:
                source = at(scope.core_instances, body.u32("a core instance"), offset, "core instance")
                scope.core_items[core].append(source.item(body.name("an export's name"), offset))
            case _:
                outer = scope.outer(body.u32("an alias' level"), offset)
                index = body.u32("an alias' index")
                if sort == 3:
                    scope.types.append(at(outer.types, index, offset, "type"))
                elif sort == 4 and isinstance(outer, _Scope):
                    scope.components.append(at(outer.components, index, offset, "component"))
                elif core == 0x11 and isinstance(outer, _Scope):
                    scope.core_modules.append(at(outer.core_modules, index, offset, "core module"))
                else:
                    raise NotLinkable("an alias of an outer core type")

    def _import(self, body: Reader, scope: _Scope, given: Exports) -> None:
        offset = body.position
        name = _extern_name(body)
        if scope.parent is None:
            sort, value = self.types.extern(body, scope, "", name)
            if sort == "function":
                scope.functions.append(value)
            return
        argument = given.get(name)
        if argument is None:
            raise ModuleInvalid(offset, f"the component imports {name}, which nobody gives to it")
        _skip_extern(body)
        self._add(scope, *argument)

    def _export(self, body: Reader, scope: _Scope) -> None:
        name = _extern_name(body)
        sort, value = self._sorted(body, scope)
        scope.exports[name] = (sort, value)
        self._add(scope, sort, value)
        if body.byte("an export's type"):
            _skip_extern(body)

    def _options(self, body: Reader, scope: _Scope) -> Options:
        encoding, used = 0, dict[int, Item]()
        for _ in range(body.u32("options")):
            offset = body.position
            code = body.byte("a canonical option")
            if code < len(_ENCODINGS):
                encoding = code
            elif code in _OPTION_SPACES:
                used[code] = at(scope.core_items[_OPTION_SPACES[code]], body.u32("an index"), offset, "core item")
            else:
                raise NotLinkable("async or garbage-collected functions")
        return Options(scope.number, _ENCODINGS[encoding], used.get(3), used.get(4), used.get(5))

    def _canonical(self, body: Reader, scope: _Scope) -> None:
        offset = body.position
        code = body.byte("a canonical definition")
        match code:
            case 0:
                body.byte("a canonical definition")
                function = at(scope.core_items[_FUNCTION], body.u32("a function"), offset, "core function")
                options = self._options(body, scope)
                kind = at(scope.types, body.u32("a type"), offset, "type")
                if not isinstance(kind, FunctionType):
                    raise ModuleInvalid(offset, "a function is lifted to what is no function's type")
                self.lifts.append(Lift(function, kind, options))
                scope.functions.append(_Lifted(len(self.lifts) - 1))
                return
            case 1:
                body.byte("a canonical definition")
                meant = at(scope.functions, body.u32("a function"), offset, "function")
                if not isinstance(meant, Imported):
                    raise NotLinkable("calls between the components that it is composed of")
                made: Lower | ResourceCall = Lower(meant.interface, meant.name, meant.type, self._options(body, scope))
            case 2 | 3 | 4:
                resource = at(scope.types, body.u32("a resource"), offset, "type")
                if not isinstance(resource, ResourceType):
                    raise ModuleInvalid(offset, "a resource's function is of what is no resource")
                call = {2: "new", 3: "drop", 4: "rep"}[code]
                if call != "drop" and self.types.resources[resource.number].component != scope.number:
                    raise ModuleInvalid(offset, f"resource.{call} of a resource that is defined elsewhere")
                made = ResourceCall(call, resource.number, scope.number)
            case _:
                raise NotLinkable(f"the canonical definition 0x{code:02x} (async, threads or error-context)")
        self.hosts.append(made)
        scope.core_items[_FUNCTION].append(Item(NONE, host=len(self.hosts) - 1))


_OPTION_SPACES: Final = {3: _MEMORY, 4: _FUNCTION, 5: _FUNCTION}
_SORTS: Final = {1: "function", 3: "type", 4: "component", 5: "instance"}


def _extern_name(body: Reader) -> str:
    if body.byte("a name") > 1:
        raise NotLinkable("names with options")
    return body.name("a name")


def _skip_extern(body: Reader) -> None:
    """What `read_component` has looked at already."""
    match body.byte("a sort"):
        case 0:
            body.byte("a sort")
        case 2:
            if body.byte("a value's bound"):
                value_type(body, set())
                return
        case 3:
            if body.byte("a type's bound"):
                return
        case _:
            pass
    body.u32("an index")
