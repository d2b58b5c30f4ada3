"""How a component is wired: the steps by which it makes core instances, of core modules, components and instances.

Each step makes the next item of an index space, but for the last one, which makes a core instance. What can't lead to
a core instance (functions, values, types, what core instances export) has no step.
"""

from dataclasses import dataclass, field
from typing import Final

from wasmpool_api.wasm.reader import ModuleInvalid
from wasmpool_api.wasm.scopes import Scope, Sort

COUNTED: Final = (Sort.CORE_MODULE, Sort.COMPONENT, Sort.INSTANCE)
"""What can lead to a core instance, and has its index space followed."""


@dataclass(frozen=True, slots=True)
class Named:
    """An argument, or an export: the item `index` of the index space of `sort`."""

    name: str
    sort: Sort
    index: int


@dataclass(frozen=True, slots=True)
class Module:
    """Step: the core module `index` of the file is the next core module."""

    index: int


@dataclass(frozen=True, slots=True)
class Nested:
    """Step: a component that stands inside is the next component."""

    definition: "Definition"


@dataclass(frozen=True, slots=True)
class Imported:
    """Step: what is given under this name is the next of its sort."""

    name: str
    sort: Sort


@dataclass(frozen=True, slots=True)
class Copy:
    """Step: an export or an alias: the item `index` is also the next of its sort."""

    sort: Sort
    index: int


@dataclass(frozen=True, slots=True)
class Captured:
    """Step: the outer item `index` of those that the definition captures is the next of its sort."""

    sort: Sort
    index: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Step: an export of an instance is the next of its sort."""

    offset: int
    sort: Sort
    instance: int
    name: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Step: an instance made of what is there already is the next instance."""

    exports: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Instantiate:
    """Step: what a component makes of the arguments is the next instance."""

    offset: int
    component: int
    arguments: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class InstantiateCore:
    """Step: one core instance of a core module."""

    module: int


Step = Module | Nested | Imported | Copy | Captured | Taken | Bundle | Instantiate | InstantiateCore


@dataclass(frozen=True, slots=True)
class Capture:
    """Where an outer item comes from: the parent's index space, or what the parent has captured itself."""

    sort: Sort
    captured: bool
    index: int


@dataclass(slots=True, eq=False)
class Definition:
    """One component of the file. Invariant: every index in `steps` and `exports` is of something that is there by then.

    `counts`: how many items the index spaces of COUNTED have. `captures`: outer items, each once.
    """

    offset: int
    scope: Scope
    parent: "Definition | None" = None
    steps: list[Step] = field(default_factory=list[Step])
    exports: list[Named] = field(default_factory=list[Named])
    counts: dict[Sort, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    captures: dict[Capture, int] = field(default_factory=dict[Capture, int])

    def add(self, step: Step, sort: Sort) -> None:
        """A step that makes the next item of `sort`."""
        self.steps.append(step)
        self.counts[sort] += 1

    def check(self, sort: Sort, index: int, at: int) -> int:
        """Raises ModuleInvalid where there is no such item so far."""
        if index >= self.counts[sort]:
            raise ModuleInvalid(at, f"{sort.value} {index} is meant, there are {self.counts[sort]} so far")
        return index

    def capture(self, sort: Sort, levels: int, index: int, at: int) -> int:
        """The number, among the captures, of the item `index` of the component `levels` further out."""
        chain: list[Definition] = [self]
        for _ in range(levels):
            parent = chain[-1].parent
            if parent is None:
                raise ModuleInvalid(at, f"an alias reaches {levels} levels out, where nothing is")
            chain.append(parent)
        number = chain.pop().check(sort, index, at)
        captured = False
        for definition in reversed(chain):
            number = definition.captures.setdefault(Capture(sort, captured, number), len(definition.captures))
            captured = True
        return number
