"""What a component boils down to for a host: core instances in order, what each imports, and the canonical definitions.

    Plan.types       value types, each once; a type names others by index, always smaller than its own
    Plan.instances   core instances in the order in which they are made
    Item             what a core module imports, or what a canonical definition uses: an export of a core instance, or
                     a host function
    Plan.hosts       the host functions: lowered imports, and resource.new, .rep and .drop
    Plan.lifts       the exported functions

Everything is plain data, to be written down by one process and read by another.
"""

import msgspec

NONE = -1
"""In place of an index: there is none."""


class Type(msgspec.Struct, frozen=True, array_like=True):
    """A value type. `kind`: "u8", "string", "record", "own" and so on, as WIT spells them.

    `labels`: of fields, cases or flags. `items`: types of fields, members, cases (NONE: without payload), of a list's
    or an option's content, of a result's two sides; of own and borrow the resource.
    """

    kind: str
    labels: tuple[str, ...] = ()
    items: tuple[int, ...] = ()


class FunctionType(msgspec.Struct, frozen=True, array_like=True):
    """`params`: types. `result`: a type or NONE."""

    params: tuple[int, ...]
    result: int


class Item(msgspec.Struct, frozen=True, array_like=True):
    """Export `name` of the core instance `instance`; or, where that is NONE, the host function `host`."""

    instance: int
    name: str = ""
    host: int = NONE


class Options(msgspec.Struct, frozen=True, array_like=True):
    """`component`: the number of the component instance whose handles are meant. `encoding`: of strings."""

    component: int
    encoding: str = "utf8"
    memory: Item | None = None
    realloc: Item | None = None
    post_return: Item | None = None


class Resource(msgspec.Struct, frozen=True, array_like=True):
    """`component`: the component instance that defines it; NONE where the host does, or an import stands for it."""

    name: str
    component: int = NONE
    destructor: Item | None = None


class Lower(msgspec.Struct, frozen=True, array_like=True, tag_field="is", tag="lower"):
    """An imported function. `interface`: with its version, empty for a bare function."""

    interface: str
    name: str
    type: FunctionType
    options: Options


class ResourceCall(msgspec.Struct, frozen=True, array_like=True, tag_field="is", tag="resource"):
    """`call`: "new", "rep" or "drop"."""

    call: str
    resource: int
    component: int


class Lift(msgspec.Struct, frozen=True, array_like=True):
    """An exported function."""

    function: Item
    type: FunctionType
    options: Options


class CoreInstance(msgspec.Struct, frozen=True, array_like=True):
    """`module`: which of the file's. `imports`: one for each import of the module, in its order."""

    module: int
    imports: tuple[Item, ...]


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """`modules`: offset and size in the file, bytes. `exports`: names of interfaces, "" for bare functions, to lifts.

    `components`: how many component instances there are.
    """

    modules: tuple[tuple[int, int], ...]
    instances: tuple[CoreInstance, ...]
    types: tuple[Type, ...]
    resources: tuple[Resource, ...]
    hosts: tuple[Lower | ResourceCall, ...]
    lifts: tuple[Lift, ...]
    exports: dict[str, dict[str, int]]
    components: int
