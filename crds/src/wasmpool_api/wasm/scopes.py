"""Names, sorts and index spaces of the Component Model: what an import, an export or an alias is, and what it means.

Of types only one thing is remembered: how many functions a host would have to provide for an instance of it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from wasmpool_api.sizes import MAX_SIZE
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.reader import ModuleInvalid, Reader

_MAX_NAME_OPTIONS: Final = 3
_NAME_WITH_OPTIONS: Final = 2


class Sort(StrEnum):
    """What an import or an export of a component is."""

    CORE_MODULE = "CoreModule"
    FUNCTION = "Function"
    VALUE = "Value"
    TYPE = "Type"
    COMPONENT = "Component"
    INSTANCE = "Instance"


_CORE: Final = 0
_CORE_TYPE: Final = 0x10
_CORE_MODULE: Final = 0x11
_CORE_EXPORTS: Final = frozenset(range(5))
"""Functions, tables, memories, globals, tags."""
_SORTS: Final = {1: Sort.FUNCTION, 2: Sort.VALUE, 3: Sort.TYPE, 4: Sort.COMPONENT, 5: Sort.INSTANCE}
_OUTER: Final = frozenset({Sort.CORE_MODULE, Sort.TYPE, Sort.COMPONENT})


class ExternName(NamedTuple):
    """`name`: what it is found by. `implements`: the interface, where `name` is another. `suffix`: of the version."""

    name: str
    implements: str = ""
    suffix: str = ""

    @property
    def interface(self) -> str:
        """The interface (or the plain name) with its whole version."""
        name = self.implements or self.name
        return name + self.suffix if "@" in name else name


@dataclass(slots=True)
class InstanceType:
    """`functions`: also those of instances within. `exports`: those that are, or stand for, an instance type."""

    functions: int = 0
    exports: dict[str, "InstanceType"] = field(default_factory=dict[str, "InstanceType"])

    def add(self, name: str, extern: "Extern") -> None:
        """One more export."""
        if extern.sort is Sort.FUNCTION:
            self.functions += 1
        if extern.type is not None:
            self.exports[name] = extern.type
            if extern.sort is Sort.INSTANCE:
                # NB: two instances of a type with two instances of a type ...: in a few bytes, more than atoms.
                self.functions = min(self.functions + extern.type.functions, MAX_SIZE)


class Extern(NamedTuple):
    """What an import or an export is declared to be. `type`: the instance's; or the one that a type is equal to.

    `is_resource`: a type of its own, equal to no other.
    """

    sort: Sort
    type: InstanceType | None = None
    is_resource: bool = False


@dataclass(frozen=True, slots=True)
class Alias:
    """`sort`: None for a core type and for what a core instance exports. `levels`: None unless it is an outer one.

    `index`: of the instance whose export `name` is meant, or of what is meant in the scope `levels` further out.
    """

    offset: int
    sort: Sort | None
    index: int
    name: str = ""
    levels: int | None = None


@dataclass(slots=True)
class Scope:
    """The index spaces of types and instances; for those that are no instance type, or have none, it holds None.

    `parent`: the scope that this one stands in, which outer aliases reach.
    """

    features: set[Feature]
    parent: "Scope | None" = None
    types: list[InstanceType | None] = field(default_factory=list[InstanceType | None])
    instances: list[InstanceType | None] = field(default_factory=list[InstanceType | None])

    def type_at(self, index: int, at: int) -> InstanceType | None:
        """Raises ModuleInvalid for one that is not there yet. `at`: where it is said."""
        return _item(self.types, index, at, "type")

    def declare(self, extern: Extern) -> None:
        """An import, an export or an alias takes the next index of its sort."""
        if extern.sort is Sort.TYPE:
            self.types.append(extern.type)
        elif extern.sort is Sort.INSTANCE:
            self.instances.append(extern.type)

    def resolve(self, alias: Alias) -> None:
        """An alias takes the next index of its sort, if it is of types or instances."""
        if alias.sort not in {Sort.TYPE, Sort.INSTANCE}:
            return
        if alias.levels is not None:
            found = self._outer(alias).type_at(alias.index, alias.offset)
        else:
            instance = _item(self.instances, alias.index, alias.offset, "instance")
            found = instance.exports.get(alias.name) if instance is not None else None
        (self.types if alias.sort is Sort.TYPE else self.instances).append(found)

    def _outer(self, alias: Alias) -> "Scope":
        scope = self
        for _ in range(alias.levels or 0):
            if scope.parent is None:
                raise ModuleInvalid(alias.offset, f"an alias reaches {alias.levels} levels out, where nothing is")
            scope = scope.parent
        return scope


def _item(items: list[InstanceType | None], index: int, at: int, what: str) -> InstanceType | None:
    if index >= len(items):
        raise ModuleInvalid(at, f"{what} {index} is meant, there are {len(items)} so far")
    return items[index]


def read_sort(reader: Reader, what: str) -> Sort:
    """One or two bytes."""
    at = reader.position
    code = reader.byte(f"the sort of {what}")
    if code == _CORE:
        core = reader.byte(f"the sort of {what}")
        if core != _CORE_MODULE:
            raise ModuleInvalid(at, f"0x00 0x{core:02x} is not a sort of {what}")
        return Sort.CORE_MODULE
    if code not in _SORTS:
        raise ModuleInvalid(at, f"0x{code:02x} is not a sort of {what}")
    return _SORTS[code]


def read_name(reader: Reader, features: set[Feature], what: str) -> ExternName:
    """The name of an import or an export, in any of its encodings."""
    at = reader.position
    form = reader.byte(what)
    if form > _NAME_WITH_OPTIONS:
        raise ModuleInvalid(at, f"0x{form:02x} is not a form of {what}")
    name = reader.name(what)
    if form != _NAME_WITH_OPTIONS:
        return ExternName(name)
    implements = suffix = ""
    for _ in range(reader.count("options of a name", _MAX_NAME_OPTIONS, 2)):
        at = reader.position
        match reader.byte("an option of a name"):
            case 0:
                implements = reader.name("the interface that is implemented")
                features.add(Feature.COMPONENT_IMPLEMENTS)
            case 1:
                suffix = reader.name("the rest of a version")
            case 2:
                reader.name("an external identifier")
            case other:
                raise ModuleInvalid(at, f"0x{other:02x} is not an option of a name")
    return ExternName(name, implements, suffix)


def read_alias(reader: Reader) -> Alias:
    """One alias, whatever it is of."""
    offset = reader.position
    first = reader.byte("an alias")
    second = reader.byte("an alias") if first == _CORE else None
    form = reader.byte("an alias")
    sort = Sort.CORE_MODULE if second == _CORE_MODULE else _SORTS.get(first)
    match form:
        case 0 if sort is not None:
            return Alias(offset, sort, reader.u32("an instance's index"), reader.name("an export's name"))
        case 1 if second in _CORE_EXPORTS:
            return Alias(offset, None, reader.u32("a core instance's index"), reader.name("an export's name"))
        case 2 if sort in _OUTER or second == _CORE_TYPE:
            levels = reader.u32("an alias' level")
            return Alias(offset, sort, reader.u32("an alias' index"), levels=levels)
        case _:
            said = f"0x{first:02x}" if second is None else f"0x{first:02x} 0x{second:02x}"
            raise ModuleInvalid(offset, f"{said} 0x{form:02x} is not an alias")
