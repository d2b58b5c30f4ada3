"""The sections of a component: its core modules are read, its wiring is written down as steps to be counted later.

A component may hold others, which may be instantiated any number of times, with modules and components as arguments.
So what it makes is not seen in its sections; `instantiation` finds out by going through the steps.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wasmpool_api.wasm.canonical import canonical_definition
from wasmpool_api.wasm.component_types import component_type, core_type, read_extern
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.module import MAX_ITEMS, Sections, extern_kind, read_module
from wasmpool_api.wasm.preamble import BinaryKind, expect_preamble
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.scopes import Alias, Extern, ExternName, Scope, Sort, read_alias, read_name, read_sort
from wasmpool_api.wasm.wiring import (
    COUNTED,
    Bundle,
    Captured,
    Copy,
    Definition,
    Imported,
    Instantiate,
    InstantiateCore,
    Module,
    Named,
    Nested,
    Taken,
)

# What the engines agree on.
MAX_MODULES_AND_COMPONENTS: Final = 1000
"""In the whole file."""
_MAX_INSTANCES: Final = 10_000
_MAX_ARGUMENTS: Final = 100_000
_MAX_START_ARGUMENTS: Final = 1000


class CoreModule(NamedTuple):
    """`offset`, `size_bytes`: where it is in the file."""

    offset: int
    size_bytes: int
    sections: Sections


class ComponentImport(NamedTuple):
    """`extern`: of the root's imports alone the host must provide anything."""

    name: ExternName
    extern: Extern


@dataclass(slots=True)
class Contents:
    """Everything in the file of a component. `exports`: the root's, of any sort."""

    root: Definition
    features: set[Feature]
    modules: list[CoreModule] = field(default_factory=list[CoreModule])
    imports: list[ComponentImport] = field(default_factory=list[ComponentImport])
    exports: list[tuple[ExternName, Sort]] = field(default_factory=list[tuple[ExternName, Sort]])
    components: int = 1


def read_component(reader: Reader) -> Contents:
    """Reads all sections; `reader` stands behind the preamble. Raises ModuleInvalid."""
    features = {Feature.COMPONENT}
    contents = Contents(Definition(reader.position, Scope(features)), features)
    # A stack of our own: they may be nested a thousand deep.
    stack = [(reader, contents.root)]
    while stack:
        reader, definition = stack[-1]
        if not reader.remaining:
            stack.pop()
            if definition.parent is not None:
                definition.parent.add(Nested(definition), Sort.COMPONENT)
            continue
        at = reader.position
        section = reader.byte("a section")
        if section not in _SECTIONS:
            raise ModuleInvalid(at, f"section {section} is not known in a component; 0 to 11 are")
        body = reader.section(f"the {_SECTIONS[section]} section")
        if section == _COMPONENT:
            contents.components += 1
            _check_number(contents, at)
            expect_preamble(body, BinaryKind.COMPONENT)
            inner = Scope(features, definition.scope)
            stack.append((body, Definition(body.position, inner, definition)))
        else:
            _section(section, at, body, definition, contents)
    return contents


_SECTIONS: Final = {
    0: "custom",
    1: "core module",
    2: "core instance",
    3: "core type",
    4: "component",
    5: "instance",
    6: "alias",
    7: "type",
    8: "canonical",
    9: "start",
    10: "import",
    11: "export",
}
_COMPONENT: Final = 4


def _check_number(contents: Contents, at: int) -> None:
    number = len(contents.modules) + contents.components
    if number > MAX_MODULES_AND_COMPONENTS:
        raise ModuleInvalid(at, f"{number} modules and components: at most {MAX_MODULES_AND_COMPONENTS} are allowed")


def _section(section: int, at: int, body: Reader, definition: Definition, contents: Contents) -> None:
    features, scope = contents.features, definition.scope
    match section:
        case 0:
            body.name("a custom section's name")
            body.position = body.end
        case 1:
            start = body.position
            expect_preamble(body, BinaryKind.MODULE)
            definition.add(Module(len(contents.modules)), Sort.CORE_MODULE)
            sections = read_module(body)
            features |= sections.features
            contents.modules.append(CoreModule(start, body.end - start, sections))
            _check_number(contents, at)
        case 2:
            for _ in range(body.count("core instances", _MAX_INSTANCES, 2)):
                _core_instance(body, definition)
        case 3:
            for _ in range(body.count("core types", MAX_ITEMS, 2)):
                core_type(body, features)
        case 5:
            for _ in range(body.count("instances", _MAX_INSTANCES, 2)):
                _instance(body, definition)
        case 6:
            for _ in range(body.count("aliases", MAX_ITEMS, 3)):
                _alias(read_alias(body), definition)
        case 7:
            for _ in range(body.count("types", MAX_ITEMS)):
                scope.types.append(component_type(body, scope))
        case 8:
            for _ in range(body.count("canonical definitions", MAX_ITEMS)):
                canonical_definition(body, features)
        case 9:
            _start(body, features)
        case 10:
            for _ in range(body.count("imports", MAX_ITEMS, 4)):
                _import(body, definition, contents)
        case _:
            for _ in range(body.count("exports", MAX_ITEMS, 5)):
                _export(body, definition, contents)
    body.expect_end(f"the {_SECTIONS[section]} section")


def _core_instance(body: Reader, definition: Definition) -> None:
    at = body.position
    match body.byte("a core instance"):
        case 0:
            index = body.u32("a core module's index")
            definition.steps.append(InstantiateCore(definition.check(Sort.CORE_MODULE, index, at)))
            for _ in range(body.count("arguments", _MAX_ARGUMENTS, 3)):
                body.name("an argument's name")
                at = body.position
                if body.byte("an argument's sort") != 0x12:
                    raise ModuleInvalid(at, "an argument of a core instance must be a core instance, 0x12")
                body.u32("an argument's index")
        case 1:
            for _ in range(body.count("exports", _MAX_ARGUMENTS, 3)):
                body.name("an export's name")
                extern_kind(body, "an export")
                body.u32("an export's index")
        case other:
            raise ModuleInvalid(at, f"0x{other:02x} is not a form of core instance")


def _instance(body: Reader, definition: Definition) -> None:
    at = body.position
    match body.byte("an instance"):
        case 0:
            component = definition.check(Sort.COMPONENT, body.u32("a component's index"), at)
            named = [
                _named(body, body.name("an argument's name"), definition)
                for _ in range(body.count("arguments", _MAX_ARGUMENTS, 3))
            ]
            arguments = tuple(each for each in named if each.sort in COUNTED)
            definition.add(Instantiate(at, component, arguments), Sort.INSTANCE)
        case 1:
            features = definition.scope.features
            named = [
                _named(body, read_name(body, features, "an export's name").name, definition)
                for _ in range(body.count("exports", _MAX_ARGUMENTS, 4))
            ]
            definition.add(Bundle(tuple(each for each in named if each.sort in COUNTED)), Sort.INSTANCE)
        case other:
            raise ModuleInvalid(at, f"0x{other:02x} is not a form of instance")
    # NB: of an instance that is made here no type is known: it is nothing that the host has to provide.
    definition.scope.instances.append(None)


def _named(body: Reader, name: str, definition: Definition) -> Named:
    sort = read_sort(body, "an argument or an export")
    at = body.position
    index = body.u32("an index")
    if sort in COUNTED:
        definition.check(sort, index, at)
    return Named(name, sort, index)


def _alias(alias: Alias, definition: Definition) -> None:
    definition.scope.resolve(alias)
    sort = alias.sort
    if sort is None or sort not in COUNTED:
        return
    at = alias.offset
    if alias.levels is None:
        definition.check(Sort.INSTANCE, alias.index, at)
        definition.add(Taken(at, sort, alias.index, alias.name), sort)
    elif alias.levels == 0:
        definition.add(Copy(sort, definition.check(sort, alias.index, at)), sort)
    else:
        definition.add(Captured(sort, definition.capture(sort, alias.levels, alias.index, at)), sort)


def _start(body: Reader, features: set[Feature]) -> None:
    features.add(Feature.COMPONENT_VALUES)
    body.u32("the start function's index")
    for _ in range(body.count("arguments", _MAX_START_ARGUMENTS)):
        body.u32("an argument's index")
    body.u32("the number of results")


def _import(body: Reader, definition: Definition, contents: Contents) -> None:
    name = read_name(body, contents.features, "an import's name")
    extern = read_extern(body, definition.scope, "an import")
    definition.scope.declare(extern)
    if extern.sort in COUNTED:
        definition.add(Imported(name.name, extern.sort), extern.sort)
    if definition.parent is None:
        contents.imports.append(ComponentImport(name, extern))


def _export(body: Reader, definition: Definition, contents: Contents) -> None:
    scope = definition.scope
    name = read_name(body, contents.features, "an export's name")
    at = body.position
    sort = read_sort(body, "an export")
    index = body.u32("an export's index")
    kept = None
    if sort is Sort.TYPE:
        kept = scope.type_at(index, at)
    if sort is Sort.INSTANCE:
        kept = scope.instances[definition.check(sort, index, at)]
    ascribed = body.byte("an export's type")
    if ascribed > 1:
        raise ModuleInvalid(body.position - 1, f"0x{ascribed:02x}: an export's type begins with 0 (none) or 1")
    if ascribed:
        read_extern(body, scope, "an export")
    scope.declare(Extern(sort, kept))
    if sort in COUNTED:
        definition.exports.append(Named(name.name, sort, definition.check(sort, index, at)))
        definition.add(Copy(sort, index), sort)
    if definition.parent is None:
        contents.exports.append((name, sort))
