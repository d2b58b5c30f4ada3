"""The types of a component, for whoever links it: each value type once, resources each of their own.

Read again from a file that `component` has read already, and this time kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar, Union

from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.plans import NONE, FunctionType, Item, Resource, Type
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.types import recursion_group

MAX_STEPS: Final = 200_000
MAX_WEIGHT: Final = 10_000
"""Types within a type, counted as often as they are there: closures are made for each."""
MAX_FLAGS: Final = 32
_PRIMITIVES: Final = dict(
    enumerate(
        ["string", "char", "f64", "f32", "u64", "s64", "u32", "s32", "u16", "s16", "u8", "s8", "bool"], start=0x73
    )
)
_LABELLED: Final = frozenset({"record", "variant", "flags", "enum"})

T = TypeVar("T")


class NotLinkable(Exception):  # noqa: N818 - what the component is
    """The component may be good, but this is not linked here. The message says what."""


AnyType = Union[int, FunctionType, "ResourceType", "InstanceShape", None]
Exports = dict[str, tuple[str, object]]
"""Of a component's instance: sort ("function", "type", "instance", "component", "module") and what it is."""


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """An instance type, read anew for each import of it: its resources are others each time."""

    offset: int
    scope: "TypeScope"


@dataclass(slots=True)
class TypeScope:
    """One index space of types: int for a value type, the others as they are; None for what can't be used."""

    parent: "TypeScope | None" = None
    types: list[AnyType] = field(default_factory=list[AnyType])
    instances: list[Exports] = field(default_factory=list[Exports])

    def outer(self, levels: int, at: int) -> "TypeScope":
        """The scope `levels` further out."""
        scope = self
        for _ in range(levels):
            if scope.parent is None:
                raise ModuleInvalid(at, f"an alias reaches {levels} levels out, where nothing is")
            scope = scope.parent
        return scope


@dataclass(frozen=True, slots=True)
class ResourceType:
    """The resource `number` of the plan."""

    number: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A function that the host must provide."""

    interface: str
    name: str
    type: FunctionType


def at(items: list[T], index: int, offset: int, what: str) -> T:
    """Raises ModuleInvalid for one that is not there."""
    if index >= len(items):
        raise ModuleInvalid(offset, f"{what} {index} is meant, there are {len(items)} so far")
    return items[index]


class Types:
    """Reads types of one file. Invariant: a type's items are smaller numbers than its own."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self.all: list[Type] = []
        self.resources: list[Resource] = []
        self._numbers: dict[Type, int] = {}
        self._weights: list[int] = []
        self._steps = 0

    def spend(self, steps: int = 1) -> None:
        """A few bytes can say a lot: there is a limit."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise NotLinkable(f"it takes more than {MAX_STEPS} steps to link the component")

    def number(self, kind: str, labels: tuple[str, ...] = (), items: tuple[int, ...] = ()) -> int:
        """The number of this type."""
        made = Type(kind, labels, items)
        found = self._numbers.get(made)
        if found is not None:
            return found
        if kind in _LABELLED or kind == "tuple":
            self._check_labels(kind, labels, items)
        inner = () if kind in {"own", "borrow"} else items
        weight = 1 + len(labels) + sum(self._weights[item] for item in inner if item != NONE)
        if weight > MAX_WEIGHT:
            raise NotLinkable(f"a type of more than {MAX_WEIGHT} parts")
        self._numbers[made] = len(self.all)
        self.all.append(made)
        self._weights.append(weight)
        return len(self.all) - 1

    def _check_labels(self, kind: str, labels: tuple[str, ...], items: tuple[int, ...]) -> None:
        if not labels and not items:
            raise NotLinkable(f"a {kind} of nothing")
        if len(set(labels)) != len(labels):
            raise NotLinkable(f"a {kind} with the same name twice")
        if kind == "flags" and len(labels) > MAX_FLAGS:
            raise NotLinkable(f"{len(labels)} flags: at most {MAX_FLAGS} are allowed")

    def resource(self, name: str, component: int = NONE, destructor: Item | None = None) -> ResourceType:
        """One more, equal to no other."""
        self.resources.append(Resource(name, component, destructor))
        return ResourceType(len(self.resources) - 1)

    def core_type(self, reader: Reader) -> None:
        """Passes one: of core types nothing is needed."""
        if reader.peek() in {0, 0x50}:
            raise NotLinkable("core module types")
        recursion_group(reader, set[Feature]())

    def value(self, reader: Reader, scope: TypeScope) -> int:
        """A value type where one is used."""
        offset = reader.position
        primitive = _PRIMITIVES.get(reader.peek())
        if primitive is not None:
            reader.byte("a value type")
            return self.number(primitive)
        index = reader.s33("a value type")
        if index < 0:
            raise NotLinkable("error-context")
        found = at(scope.types, index, offset, "type")
        if not isinstance(found, int):
            raise NotLinkable(f"a value of type {index}, which is no type of values that is supported")
        return found

    def optional(self, reader: Reader, scope: TypeScope) -> int:
        """A value type, or NONE."""
        return self.value(reader, scope) if reader.byte("an optional type") else NONE

    def function_type(self, reader: Reader, scope: TypeScope) -> FunctionType:
        """What stands behind 0x40."""

        def parameter() -> int:
            reader.name("a parameter's name")
            return self.value(reader, scope)

        params = self.vector(reader, parameter)
        if reader.byte("a result") == 0:
            return FunctionType(params, self.value(reader, scope))
        reader.byte("a result")
        return FunctionType(params, NONE)

    def vector(self, reader: Reader, read: Callable[[], T]) -> tuple[T, ...]:
        """That many, in a row."""
        count = reader.count("items", MAX_STEPS)
        self.spend(count)
        return tuple([read() for _ in range(count)])

    def read(self, reader: Reader, scope: TypeScope, depth: int = 0) -> AnyType:
        """One definition, as it stands in the type section. Resources are for `linking`: they need a destructor."""
        self.spend()
        code = reader.byte("a type")
        if code in _PRIMITIVES:
            return self.number(_PRIMITIVES[code])
        match code:
            case 0x72:
                fields = self.vector(reader, lambda: (reader.name("a field's name"), self.value(reader, scope)))
                return self.number("record", tuple(name for name, _ in fields), tuple(item for _, item in fields))
            case 0x71:
                cases = self.vector(reader, lambda: self._case(reader, scope))
                return self.number("variant", tuple(name for name, _ in cases), tuple(item for _, item in cases))
            case 0x70:
                return self.number("list", (), (self.value(reader, scope),))
            case 0x6F:
                return self.number("tuple", (), self.vector(reader, lambda: self.value(reader, scope)))
            case 0x6E | 0x6D:
                labels = self.vector(reader, lambda: reader.name("a label"))
                return self.number("flags" if code == 0x6E else "enum", labels)
            case 0x6B:
                return self.number("option", (), (self.value(reader, scope),))
            case 0x6A:
                return self.number("result", (), (self.optional(reader, scope), self.optional(reader, scope)))
            case 0x69 | 0x68:
                return self._handle(reader, scope, "own" if code == 0x69 else "borrow")
            case 0x40:
                return self.function_type(reader, scope)
            case 0x42:
                return self._instance_shape(reader, scope, depth)
            case _:
                raise NotLinkable(_UNLINKED.get(code, f"type 0x{code:02x}"))

    def _case(self, reader: Reader, scope: TypeScope) -> tuple[str, int]:
        name, item = reader.name("a case's name"), self.optional(reader, scope)
        reader.byte("a case")
        return name, item

    def _handle(self, reader: Reader, scope: TypeScope, kind: str) -> int:
        offset = reader.position
        found = at(scope.types, reader.u32("a resource's type"), offset, "type")
        if not isinstance(found, ResourceType):
            raise ModuleInvalid(offset, f"what {kind} is of is no resource")
        return self.number(kind, (), (found.number,))

    def _instance_shape(self, reader: Reader, scope: TypeScope, depth: int) -> InstanceShape:
        shape = InstanceShape(reader.position, scope)
        # Read once to pass it; what is found counts where it is imported.
        kept = len(self.resources)
        reader.position = self.instance(shape, "", depth)[1]
        del self.resources[kept:]
        return shape

    def instance(self, shape: InstanceShape, name: str, depth: int = 0) -> tuple[Exports, int]:
        """What an import of that shape exports, with resources of its own; and where the shape ends."""
        if depth > _MAX_DEPTH:
            raise NotLinkable(f"types nested more than {_MAX_DEPTH} deep")
        reader = Reader(self.data, shape.offset)
        scope = TypeScope(shape.scope)
        found: Exports = {}
        for _ in range(reader.count("declarations", MAX_STEPS, 2)):
            self.spend()
            match reader.byte("a declaration"):
                case 0:
                    self.core_type(reader)
                case 1:
                    scope.types.append(self.read(reader, scope, depth + 1))
                case 2:
                    self._alias(reader, scope)
                case 4:
                    self._declared(reader, scope, name, found, depth)
                case other:
                    raise NotLinkable(f"declaration 0x{other:02x} of an instance's type")
        return found, reader.position

    def _alias(self, reader: Reader, scope: TypeScope) -> None:
        offset = reader.position
        sort, target = reader.byte("an alias"), reader.byte("an alias")
        if sort == 3 and target == 2:
            outer = scope.outer(reader.u32("an alias' level"), offset)
            scope.types.append(at(outer.types, reader.u32("an alias' index"), offset, "type"))
        elif sort in {3, 5} and target == 0:
            instance = at(scope.instances, reader.u32("an instance's index"), offset, "instance")
            _, value = named(instance, reader.name("an export's name"), "type" if sort == 3 else "instance", offset)
            (scope.types if sort == 3 else scope.instances).append(value)  # type: ignore[arg-type]
        else:
            raise NotLinkable("an alias of a core type")

    def _declared(self, reader: Reader, scope: TypeScope, owner: str, found: Exports, depth: int) -> None:
        if reader.byte("an export's name") > 1:
            raise NotLinkable("names with options")
        name = reader.name("an export's name")
        found[name] = self.extern(reader, scope, owner, name, depth)

    def extern(self, reader: Reader, scope: TypeScope, owner: str, name: str, depth: int = 0) -> tuple[str, object]:
        """What an import is declared to be: it takes the next index where that is of types or instances."""
        offset = reader.position
        match reader.byte("a sort"):
            case 1:
                kind = at(scope.types, reader.u32("a function's type"), offset, "type")
                if not isinstance(kind, FunctionType):
                    raise NotLinkable(f"{name}: a function whose type is none that is supported")
                return "function", Imported(owner, name, kind)
            case 3:
                if reader.byte("a type's bound") == 0:
                    same = at(scope.types, reader.u32("a type's index"), offset, "type")
                else:
                    same = self.resource(name)
                scope.types.append(same)
                return "type", same
            case 5:
                shape = at(scope.types, reader.u32("an instance's type"), offset, "type")
                if not isinstance(shape, InstanceShape):
                    raise ModuleInvalid(offset, f"{name} is an instance of what is no instance's type")
                instance, _ = self.instance(shape, name, depth + 1)
                scope.instances.append(instance)
                return "instance", instance
            case other:
                raise NotLinkable(f"{name}: {_SORTS.get(other, 'a sort of import')} from the host")


_MAX_DEPTH: Final = 50
_SORTS: Final = {0: "a core module", 2: "a value", 4: "a component"}
_UNLINKED: Final = {
    0x43: "async functions",
    0x41: "component types",
    0x67: "lists of fixed length",
    0x66: "streams",
    0x65: "futures",
    0x64: "error-context",
    0x63: "maps",
}


def named(exports: Exports, name: str, sort: str, offset: int) -> tuple[str, object]:
    """An export. Raises ModuleInvalid where there is none of that sort."""
    found = exports.get(name)
    if found is None or found[0] != sort:
        raise ModuleInvalid(offset, f"the instance does not export the {sort} {name}")
    return found
