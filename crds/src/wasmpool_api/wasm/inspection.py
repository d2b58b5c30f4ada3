"""What is known about a binary after it has been read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wasmpool_api.sizes import MAX_SIZE
from wasmpool_api.wasm.component import ComponentImport, Contents, read_component
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.instantiation import instantiate
from wasmpool_api.wasm.interfaces import Interface
from wasmpool_api.wasm.module import Export, ExternKind, Import, Memory, Sections, Table, read_module
from wasmpool_api.wasm.preamble import PREAMBLE_BYTES, BinaryKind, kind_of
from wasmpool_api.wasm.reader import Reader
from wasmpool_api.wasm.scopes import Extern, Sort
from wasmpool_api.wasm_workload import ComponentNeeds, ModuleNeeds

__all__ = [
    "BinaryKind",
    "Component",
    "CoreModule",
    "Export",
    "ExternKind",
    "Import",
    "Inspection",
    "InterfaceExport",
    "InterfaceImport",
    "Memory",
    "Sort",
    "Table",
    "inspect",
    "inspect_module",
]


@dataclass(frozen=True, slots=True)
class InterfaceImport:
    """What a component wants of the host under one name. `functions`: how many of them, 1 for a function.

    An interface is an instance of functions and types. `name`: what the import is called where that is not `interface`.
    """

    interface: Interface
    sort: Sort
    functions: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class InterfaceExport:
    """What a component provides under one name."""

    interface: Interface
    sort: Sort


@dataclass(frozen=True, slots=True)
class CoreModule:
    """A core module of a component. `offset`: in bytes from the start of the file. `imports`: the inner wiring.

    `instances`: how many core instances of it one instance of the component makes, at most 2^63 - 1.
    """

    offset: int
    size_bytes: int
    needs: ModuleNeeds
    imports: tuple[Import, ...]
    instances: int


@dataclass(frozen=True, slots=True)
class Component:
    """`modules`: in the order of the file. `needs`, `sums`: over all core instances that one instance of it makes.

    In `sums` memory_pages and table_elements are added up too, over all memories and tables; imported is also what one
    core module takes from another. `from_host`: how many core instances are of core modules that the host would have to
    provide; nothing is known of them.
    """

    modules: tuple[CoreModule, ...]
    needs: ComponentNeeds
    sums: ModuleNeeds
    imports: tuple[InterfaceImport, ...]
    exports: tuple[InterfaceExport, ...]
    from_host: int = 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """A binary's interface and needs. Memories and tables: the imported ones, then the defined ones, as their index is.

    `data_bytes`: the initial contents of its memories, at most: of the data sections of all its core instances.
    `component`: what there is instead of the interface of a core module, from `imports` on, where `kind` is Component.
    """

    kind: BinaryKind
    needs: ModuleNeeds
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[Memory, ...] = ()
    tables: tuple[Table, ...] = ()
    tags: int = 0
    start: int | None = None
    data_bytes: int = 0
    component: Component | None = None

    @property
    def has_start(self) -> bool:
        """Whether instantiation runs code of the module (the start section; `_start` is an export)."""
        return self.start is not None

    def exports_function(self, name: str) -> bool:
        """Whether there is an exported function of that name."""
        return any(export.name == name and export.kind is ExternKind.FUNCTION for export in self.exports)


def inspect(data: bytes | memoryview) -> Inspection:
    """Reads a binary, a core module or a component. Raises ModuleInvalid.

    Takes time for each section, type, import, table, memory, global, export and definition, not for code and data.
    """
    kind = kind_of(data)
    reader = Reader(data, PREAMBLE_BYTES)
    if kind is BinaryKind.COMPONENT:
        return _component(read_component(reader))
    sections = read_module(reader)
    return Inspection(
        kind,
        needs=_needs(sections),
        imports=tuple(sections.imports),
        exports=tuple(sections.exports),
        memories=(*sections.imported_memories, *sections.memories),
        tables=(*sections.imported_tables, *sections.tables),
        tags=sections.tags,
        start=sections.start,
        data_bytes=sections.data_bytes,
    )


def inspect_module(data: bytes | memoryview) -> ModuleNeeds:
    """What a binary needs, counted as ModuleLimits counts it. Raises ModuleInvalid."""
    return inspect(data).needs


def _component(contents: Contents) -> Inspection:
    made = instantiate(contents.root)
    counts = [made.core_instances.get(index, 0) for index in range(len(contents.modules))]
    modules = [module.sections for module in contents.modules]
    needs = [_needs(module) for module in modules]
    imports = tuple(_import(each) for each in contents.imports if _must_be_provided(each.extern))
    sums = _sums(modules, needs, counts)
    return Inspection(
        BinaryKind.COMPONENT,
        needs=_largest(needs, sum(each.functions for each in imports), contents.features),
        data_bytes=min(sum(each.data_bytes * count for each, count in zip(modules, counts, strict=True)), MAX_SIZE),
        component=Component(
            modules=tuple(
                CoreModule(module.offset, module.size_bytes, need, tuple(module.sections.imports), min(count, MAX_SIZE))
                for module, need, count in zip(contents.modules, needs, counts, strict=True)
            ),
            needs=ComponentNeeds(
                core_instances=min(sum(counts) + made.from_host, MAX_SIZE), memories=sums.memories, tables=sums.tables
            ),
            sums=sums,
            imports=imports,
            exports=tuple(InterfaceExport(Interface.parse(name.interface), sort) for name, sort in contents.exports),
            from_host=min(made.from_host, MAX_SIZE),
        ),
    )


def _must_be_provided(extern: Extern) -> bool:
    """A type that is equal to another one is agreed on, not provided."""
    return extern.sort is not Sort.TYPE or extern.is_resource


def _import(found: ComponentImport) -> InterfaceImport:
    name, extern = found
    functions = extern.type.functions if extern.sort is Sort.INSTANCE and extern.type is not None else 0
    return InterfaceImport(
        interface=Interface.parse(name.interface),
        sort=extern.sort,
        functions=1 if extern.sort is Sort.FUNCTION else functions,
        name=name.name if name.implements else "",
    )


def _needs(sections: Sections) -> ModuleNeeds:
    imported = Counter(each.kind for each in sections.imports)
    return ModuleNeeds(
        imported_functions=imported[ExternKind.FUNCTION],
        imported_tables=imported[ExternKind.TABLE],
        imported_memories=imported[ExternKind.MEMORY],
        imported_globals=imported[ExternKind.GLOBAL],
        types=sections.types,
        functions=sections.functions,
        tables=len(sections.tables),
        memories=len(sections.memories),
        globals=sections.globals,
        # NB: a 64-bit table may say 2^64 - 1, which no JSON of Kubernetes can hold.
        table_elements=min(max((table.minimum for table in sections.tables), default=0), MAX_SIZE),
        memory_pages=max((memory.minimum_wasm_pages for memory in sections.memories), default=0),
        features=_features(sections.features),
    )


def _largest(modules: Sequence[ModuleNeeds], host_functions: int, features: set[Feature]) -> ModuleNeeds:
    """Of each count the largest; imported is what the host must provide, not what one module gives to another."""

    def largest(field: str) -> int:
        counts: list[int] = [getattr(needs, field) for needs in modules]
        return max(counts, default=0)

    return ModuleNeeds(
        imported_functions=min(host_functions, MAX_SIZE),
        types=largest("types"),
        functions=largest("functions"),
        tables=largest("tables"),
        memories=largest("memories"),
        globals=largest("globals"),
        table_elements=largest("table_elements"),
        memory_pages=largest("memory_pages"),
        features=_features(features),
    )


def _sums(modules: Sequence[Sections], needs: Sequence[ModuleNeeds], counts: Sequence[int]) -> ModuleNeeds:
    """All of it times the instances that there are."""

    def total(each: Iterable[int]) -> int:
        return min(sum(number * count for number, count in zip(each, counts, strict=True)), MAX_SIZE)

    return ModuleNeeds(
        imported_functions=total(module.imported_functions for module in needs),
        imported_tables=total(module.imported_tables for module in needs),
        imported_memories=total(module.imported_memories for module in needs),
        imported_globals=total(module.imported_globals for module in needs),
        types=total(module.types for module in needs),
        functions=total(module.functions for module in needs),
        tables=total(module.tables for module in needs),
        memories=total(module.memories for module in needs),
        globals=total(module.globals for module in needs),
        table_elements=total(sum(table.minimum for table in module.tables) for module in modules),
        memory_pages=total(sum(memory.minimum_wasm_pages for memory in module.memories) for module in modules),
    )


def _features(features: Iterable[Feature]) -> tuple[str, ...]:
    return tuple(sorted(feature.value for feature in features))
