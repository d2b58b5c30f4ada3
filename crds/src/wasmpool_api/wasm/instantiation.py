"""What a component makes when it is instantiated: its steps are gone through, and nothing is run.

    value       what an index of a core module, a component or an instance stands for; a small number each, equal
                values have the same one
    frame       one component being instantiated
    memo        what a component made of the same arguments the last time

A few hundred bytes can make 2^100 core instances, by doubling. With the memo that takes a hundred steps, and the sums
are Python's integers. Where arguments differ each time, or a component is given to itself, a limit of steps ends it.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wasmpool_api.wasm.reader import ModuleInvalid
from wasmpool_api.wasm.scopes import Sort
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
    Step,
    Taken,
)

MAX_STEPS: Final = 200_000
MAX_DEPTH: Final = 2_000


@dataclass(frozen=True, slots=True)
class HostValue:
    """Something that the root imports, or that is taken out of that: nothing is known of it."""


@dataclass(frozen=True, slots=True)
class ModuleValue:
    """The core module `index` of the file."""

    index: int


@dataclass(frozen=True, slots=True)
class ComponentValue:
    """A definition (by its number) with the values that it has captured."""

    definition: int
    captured: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InstanceValue:
    """Exports by name."""

    exports: tuple[tuple[str, int], ...]


Value = HostValue | ModuleValue | ComponentValue | InstanceValue
Key = tuple[int, tuple[tuple[str, int], ...]]
"""Of a component's value and its arguments."""


class Made(NamedTuple):
    """`core_instances`: how many of each core module of the file. `from_host`: of modules that the host provides."""

    instance: int
    core_instances: dict[int, int]
    from_host: int


@dataclass(slots=True)
class Frame:
    """A component that is being instantiated, up to step `at`."""

    definition: Definition
    captured: tuple[int, ...]
    arguments: dict[str, int]
    key: Key
    at: int = 0
    items: dict[Sort, list[int]] = field(default_factory=lambda: {sort: [] for sort in COUNTED})
    core_instances: dict[int, int] = field(default_factory=dict[int, int])
    from_host: int = 0

    def add(self, made: Made) -> None:
        """What a component inside has made is also made by this one."""
        self.items[Sort.INSTANCE].append(made.instance)
        for module, count in made.core_instances.items():
            self.core_instances[module] = self.core_instances.get(module, 0) + count
        self.from_host += made.from_host

    def named(self, items: tuple[Named, ...]) -> tuple[tuple[str, int], ...]:
        """Names with values, in an order of their own."""
        return tuple(sorted((item.name, self.items[item.sort][item.index]) for item in items))


_HOST: Final = 0


@dataclass(slots=True)
class Machine:
    """Goes through the steps of one root."""

    values: list[Value] = field(default_factory=lambda: [HostValue()])
    numbers: dict[Value, int] = field(default_factory=lambda: {HostValue(): _HOST})
    definitions: list[Definition] = field(default_factory=list[Definition])
    definition_numbers: dict[int, int] = field(default_factory=dict[int, int])
    exports: dict[int, dict[str, int]] = field(default_factory=dict[int, dict[str, int]])
    memo: dict[Key, Made] = field(default_factory=dict[Key, Made])
    steps: int = 0

    def number(self, value: Value) -> int:
        """NB: a value holds numbers, not values: hashing one that shares parts with itself would take for ever."""
        found = self.numbers.get(value)
        if found is None:
            found = self.numbers[value] = len(self.values)
            self.values.append(value)
        return found

    def definition_number(self, definition: Definition) -> int:
        """Definitions are the same only if they are one."""
        found = self.definition_numbers.get(id(definition))
        if found is None:
            found = self.definition_numbers[id(definition)] = len(self.definitions)
            self.definitions.append(definition)
        return found

    def run(self, root: Definition) -> Made:
        """Raises ModuleInvalid where the wiring can't be what it says."""
        key: Key = (self.number(ComponentValue(self.definition_number(root), ())), ())
        stack = [Frame(root, (), {}, key)]
        while True:
            frame = stack[-1]
            if frame.at == len(frame.definition.steps):
                stack.pop()
                made = self._finished(frame)
                if not stack:
                    return made
                stack[-1].add(made)
                continue
            step = frame.definition.steps[frame.at]
            frame.at += 1
            if isinstance(step, Instantiate):
                inner = self._enter(step, frame, len(stack))
                if inner is not None:
                    stack.append(inner)
            else:
                self._spend(1 + len(step.exports) if isinstance(step, Bundle) else 1, frame.definition.offset)
                self._step(step, frame, is_root=len(stack) == 1)

    def _enter(self, step: Instantiate, frame: Frame, depth: int) -> Frame | None:
        self._spend(1 + len(step.arguments), step.offset)
        number = frame.items[Sort.COMPONENT][step.component]
        value = self.values[number]
        if not isinstance(value, ComponentValue):
            frame.items[Sort.INSTANCE].append(_HOST)
            return None
        arguments = frame.named(step.arguments)
        key: Key = (number, arguments)
        if key in self.memo:
            made = self.memo[key]
            self._spend(len(made.core_instances) // 16, step.offset)
            frame.add(made)
            return None
        if depth == MAX_DEPTH:
            raise ModuleInvalid(step.offset, f"components are instantiated more than {MAX_DEPTH} deep")
        return Frame(self.definitions[value.definition], value.captured, dict(arguments), key)

    def _finished(self, frame: Frame) -> Made:
        exports = frame.named(tuple(frame.definition.exports))
        self._spend(len(exports), frame.definition.offset)
        made = Made(self.number(InstanceValue(exports)), frame.core_instances, frame.from_host)
        self.memo[frame.key] = made
        return made

    def _spend(self, steps: int, at: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise ModuleInvalid(at, f"it takes more than {MAX_STEPS} steps to find out what the component instantiates")

    def _step(self, step: Step, frame: Frame, *, is_root: bool) -> None:
        items = frame.items
        match step:
            case InstantiateCore(module):
                value = self.values[items[Sort.CORE_MODULE][module]]
                if isinstance(value, ModuleValue):
                    frame.core_instances[value.index] = frame.core_instances.get(value.index, 0) + 1
                else:
                    frame.from_host += 1
            case Module(index):
                items[Sort.CORE_MODULE].append(self.number(ModuleValue(index)))
            case Nested(definition):
                captured = tuple(
                    frame.captured[capture.index] if capture.captured else items[capture.sort][capture.index]
                    for capture in definition.captures
                )
                value = ComponentValue(self.definition_number(definition), captured)
                items[Sort.COMPONENT].append(self.number(value))
            case Imported(name, sort):
                items[sort].append(_HOST if is_root else self._argument(name, sort, frame))
            case Copy(sort, index):
                items[sort].append(items[sort][index])
            case Captured(sort, index):
                items[sort].append(frame.captured[index])
            case Taken(offset, sort, instance, name):
                items[sort].append(self._export(items[Sort.INSTANCE][instance], name, sort, offset))
            case Bundle(exports):
                items[Sort.INSTANCE].append(self.number(InstanceValue(frame.named(exports))))
            case Instantiate():
                raise AssertionError("_enter does this")

    def _argument(self, name: str, sort: Sort, frame: Frame) -> int:
        offset = frame.definition.offset
        if name not in frame.arguments:
            raise ModuleInvalid(offset, f"the component imports {name}, which nobody gives to it")
        return self._checked(frame.arguments[name], sort, offset, name)

    def _export(self, instance: int, name: str, sort: Sort, offset: int) -> int:
        value = self.values[instance]
        if not isinstance(value, InstanceValue):
            return _HOST
        exports = self.exports.setdefault(instance, {})
        if not exports:
            exports.update(value.exports)
        if name not in exports:
            raise ModuleInvalid(offset, f"the instance does not export {name}")
        return self._checked(exports[name], sort, offset, name)

    def _checked(self, number: int, sort: Sort, offset: int, name: str) -> int:
        value = self.values[number]
        if not isinstance(value, (HostValue, _VALUES[sort])):
            raise ModuleInvalid(offset, f"{name} is not of the sort {sort.value}")
        return number


_VALUES: Final[dict[Sort, type[Value]]] = {
    Sort.CORE_MODULE: ModuleValue,
    Sort.COMPONENT: ComponentValue,
    Sort.INSTANCE: InstanceValue,
}


def instantiate(root: Definition) -> Made:
    """Everything that one instance of the root makes. Raises ModuleInvalid."""
    return Machine().run(root)
