"""Types of the Component Model: passed over, but for the functions of instance types.

Types nest and have no length before them, so that each has to be read to its end. Codes are those of the Component
Model's binary format.
"""

from typing import Final

from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.module import Sections, extern_type
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.scopes import Extern, InstanceType, Scope, Sort, read_alias, read_name, read_sort
from wasmpool_api.wasm.types import recursion_group, value_type

# What the engines agree on.
MAX_TYPE_DEPTH: Final = 100
_MAX_DECLARATIONS: Final = 1_000_000
_MAX_MODULE_DECLARATIONS: Final = 100_000
_MAX_PARAMETERS: Final = 1000
_MAX_FIELDS: Final = 10_000
_MAX_FLAGS: Final = 1000

_ERROR_CONTEXT: Final = 0x64
_PRIMITIVES: Final = frozenset({*range(0x73, 0x80), _ERROR_CONTEXT})
_MODULE: Final = 0x50
_RESOURCE: Final = 0x3F
_FUNCTION: Final = 0x40
_ASYNC_FUNCTION: Final = 0x43
_COMPONENT: Final = 0x41
_INSTANCE: Final = 0x42


def read_extern(reader: Reader, scope: Scope, what: str) -> Extern:
    """What an import or an export is declared to be."""
    sort = read_sort(reader, what)
    match sort:
        case Sort.CORE_MODULE | Sort.FUNCTION | Sort.COMPONENT:
            reader.u32(f"the type of {what}")
        case Sort.INSTANCE:
            return Extern(sort, _named_type(reader, scope, what))
        case Sort.VALUE:
            scope.features.add(Feature.COMPONENT_VALUES)
            component_value_type(reader, scope.features)
        case Sort.TYPE:
            at = reader.position
            bound = reader.byte("a type's bound")
            if bound == 0:
                return Extern(sort, _named_type(reader, scope, what))
            if bound != 1:
                raise ModuleInvalid(at, f"0x{bound:02x} is not a type's bound")
            return Extern(sort, is_resource=True)
    return Extern(sort)


def _named_type(reader: Reader, scope: Scope, what: str) -> InstanceType | None:
    at = reader.position
    return scope.type_at(reader.u32(f"the type of {what}"), at)


def core_type(reader: Reader, features: set[Feature]) -> None:
    """One core type of a component: a function's, or what a core module imports and exports."""
    at = reader.position
    if reader.peek() == 0:
        reader.byte("a core type")
        if reader.peek() != _MODULE:
            raise ModuleInvalid(at, f"0x00 of a core type must stand before 0x{_MODULE:02x}")
    elif reader.peek() == _MODULE:
        reader.byte("a module's type")
        for _ in range(reader.count("declarations of a module's type", _MAX_MODULE_DECLARATIONS, 2)):
            _module_declaration(reader, features)
        return
    recursion_group(reader, features)


def _module_declaration(reader: Reader, features: set[Feature]) -> None:
    at = reader.position
    match reader.byte("a declaration of a module's type"):
        case 0:
            reader.name("an import's module")
            reader.name("an import's name")
            extern_type(reader, Sections(features=features))
        case 1:
            recursion_group(reader, features)
        case 2:
            if reader.byte("an alias") != 0x10 or reader.byte("an alias") != 1:
                raise ModuleInvalid(at, "in a module's type only an outer core type can have an alias")
            reader.u32("an alias' level")
            reader.u32("an alias' index")
        case 3:
            reader.name("an export's name")
            extern_type(reader, Sections(features=features))
        case other:
            raise ModuleInvalid(at, f"0x{other:02x} is not a declaration of a module's type")


def component_type(reader: Reader, scope: Scope, depth: int = 0) -> InstanceType | None:
    """One type; None for any but an instance's."""
    at = reader.position
    code = reader.byte("a type")
    if code in {_COMPONENT, _INSTANCE}:
        if depth == MAX_TYPE_DEPTH:
            raise ModuleInvalid(at, f"types are nested more than {MAX_TYPE_DEPTH} deep")
        found = _declarations(reader, scope, depth, imports=code == _COMPONENT)
        return found if code == _INSTANCE else None
    if code in {_FUNCTION, _ASYNC_FUNCTION}:
        if code == _ASYNC_FUNCTION:
            scope.features.add(Feature.COMPONENT_ASYNC)
        _fields(reader, scope.features, "parameters", _MAX_PARAMETERS)
        result_type(reader, scope.features)
    elif code == _RESOURCE:
        value_type(reader, scope.features)
        if _flag(reader, "a resource's destructor"):
            reader.u32("a resource's destructor")
    elif code in _PRIMITIVES:
        reader.position = at
        component_value_type(reader, scope.features)
    else:
        _defined_type(reader, scope.features, code, at)
    return None


def _declarations(reader: Reader, scope: Scope, depth: int, *, imports: bool) -> InstanceType:
    inner = Scope(scope.features, scope)
    found = InstanceType()
    for _ in range(reader.count("declarations", _MAX_DECLARATIONS, 2)):
        at = reader.position
        form = reader.byte("a declaration")
        if form == 0:
            core_type(reader, scope.features)
        elif form == 1:
            inner.types.append(component_type(reader, inner, depth + 1))
        elif form == 2:
            inner.resolve(read_alias(reader))
        elif form == 3 and imports:
            read_name(reader, scope.features, "an import's name")
            inner.declare(read_extern(reader, inner, "an import"))
        elif form == 4:
            name = read_name(reader, scope.features, "an export's name")
            extern = read_extern(reader, inner, "an export")
            inner.declare(extern)
            found.add(name.name, extern)
        else:
            raise ModuleInvalid(at, f"0x{form:02x} is not a declaration")
    return found


def component_value_type(reader: Reader, features: set[Feature]) -> None:
    """A primitive type in a byte, or the index of a defined one."""
    at = reader.position
    code = reader.peek()
    if code in _PRIMITIVES:
        reader.byte("a value type")
        if code == _ERROR_CONTEXT:
            features.add(Feature.COMPONENT_ERROR_CONTEXT)
    elif reader.s33("a value type") < 0:
        raise ModuleInvalid(at, f"0x{code:02x} is not a value type of a component")


def result_type(reader: Reader, features: set[Feature]) -> None:
    """What a function returns: 0 and a type, or 1 0 for nothing."""
    at = reader.position
    form = reader.byte("a result")
    if form == 0:
        component_value_type(reader, features)
    elif form != 1 or reader.byte("a result") != 0:
        raise ModuleInvalid(at, "a result is either 0 and a type, or 1 and 0")


def _defined_type(reader: Reader, features: set[Feature], code: int, at: int) -> None:
    match code:
        case 0x72:
            _fields(reader, features, "fields", _MAX_FIELDS)
        case 0x71:
            for _ in range(reader.count("cases", _MAX_FIELDS, 3)):
                reader.name("a case's name")
                _optional(reader, features)
                end = reader.position
                if reader.byte("a case") != 0:
                    raise ModuleInvalid(end, "a case must end with 0")
        case 0x70 | 0x6B:  # list, option
            component_value_type(reader, features)
        case 0x6F:
            for _ in range(reader.count("members of a tuple", _MAX_FIELDS)):
                component_value_type(reader, features)
        case 0x6E | 0x6D:  # flags, enum
            for _ in range(reader.count("labels", _MAX_FLAGS if code == 0x6E else _MAX_FIELDS)):
                reader.name("a label")
        case 0x6A:
            _optional(reader, features)
            _optional(reader, features)
        case 0x69 | 0x68:  # own, borrow
            reader.u32("a resource's type")
        case 0x67:
            features.add(Feature.COMPONENT_FIXED_LENGTH_LISTS)
            component_value_type(reader, features)
            reader.u32("a list's length")
        case 0x66 | 0x65:  # stream, future
            features.add(Feature.COMPONENT_ASYNC)
            _optional(reader, features)
        case 0x63:
            features.add(Feature.COMPONENT_MAPS)
            component_value_type(reader, features)
            component_value_type(reader, features)
        case _:
            raise ModuleInvalid(at, f"0x{code:02x} is not a type of a component")


def _fields(reader: Reader, features: set[Feature], what: str, most: int) -> None:
    for _ in range(reader.count(what, most, 2)):
        reader.name(f"the name of one of the {what}")
        component_value_type(reader, features)


def _optional(reader: Reader, features: set[Feature]) -> None:
    if _flag(reader, "an optional type"):
        component_value_type(reader, features)


def _flag(reader: Reader, what: str) -> bool:
    at = reader.position
    there = reader.byte(what)
    if there > 1:
        raise ModuleInvalid(at, f"{what} begins with 0 (none) or 1, not with 0x{there:02x}")
    return there == 1
