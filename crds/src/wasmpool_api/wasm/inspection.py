"""What is known about a binary after it has been read."""

from collections import Counter
from dataclasses import dataclass

from wasmpool_api.sizes import MAX_SIZE
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.module import Export, ExternKind, Import, Memory, Sections, Table, read_module
from wasmpool_api.wasm.preamble import PREAMBLE_BYTES, BinaryKind, kind_of
from wasmpool_api.wasm.reader import Reader
from wasmpool_api.wasm_workload import ModuleNeeds

__all__ = ["BinaryKind", "Export", "ExternKind", "Import", "Inspection", "Memory", "Table", "inspect", "inspect_module"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A binary's interface and needs. Memories and tables: the imported ones, then the defined ones, as their index is.

    Of a component only `kind` and `needs.features` say something so far.
    """

    kind: BinaryKind
    needs: ModuleNeeds
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[Memory, ...] = ()
    tables: tuple[Table, ...] = ()
    tags: int = 0
    start: int | None = None

    @property
    def has_start(self) -> bool:
        """Whether instantiation runs code of the module (the start section; `_start` is an export)."""
        return self.start is not None

    def exports_function(self, name: str) -> bool:
        """Whether there is an exported function of that name."""
        return any(export.name == name and export.kind is ExternKind.FUNCTION for export in self.exports)


def inspect(data: bytes | memoryview) -> Inspection:
    """Reads a binary: a core module, or a component as far as that goes. Raises ModuleInvalid.

    Takes time for each section, type, import, table, memory, global and export, not for code and data.
    """
    kind = kind_of(data)
    reader = Reader(data, PREAMBLE_BYTES)
    if kind is BinaryKind.COMPONENT:
        _skip_sections(reader)
        return Inspection(kind, ModuleNeeds(features=(Feature.COMPONENT.value,)))
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
    )


def inspect_module(data: bytes | memoryview) -> ModuleNeeds:
    """What a binary needs, counted as ModuleLimits counts it. Raises ModuleInvalid.

    NB: a component's needs are not counted yet; the feature "Component" is what they have, and `judge` refuses it.
    """
    return inspect(data).needs


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
        features=tuple(sorted(feature.value for feature in sections.features)),
    )


def _skip_sections(reader: Reader) -> None:
    while reader.remaining:
        reader.byte("a section")
        reader.section("a section")
