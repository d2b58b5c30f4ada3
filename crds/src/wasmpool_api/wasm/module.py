"""The sections of a core module: counted, checked for order and size, and otherwise left alone."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from wasmpool_api.limits import MAX_MEMORY_PAGES, WASM_PAGE_BYTES
from wasmpool_api.wasm.expressions import constant_expression
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.types import reference_type, type_section, value_type

MAX_ITEMS: Final = 1_000_000
"""Functions, imports, exports, globals, tags: what the engines agree on."""
MAX_MEMORIES: Final = 100
MAX_TABLES: Final = 100
MAX_SEGMENTS: Final = 100_000
_MEMORY64_PAGES: Final = 2**48


class ExternKind(StrEnum):
    """What an import or an export is."""

    FUNCTION = "Function"
    TABLE = "Table"
    MEMORY = "Memory"
    GLOBAL = "Global"
    TAG = "Tag"


class Import(NamedTuple):
    """What the host must provide."""

    module: str
    name: str
    kind: ExternKind


@dataclass(frozen=True, slots=True)
class Export:
    """`index` counts imported and defined ones of that kind."""

    name: str
    kind: ExternKind
    index: int


class Memory(NamedTuple):
    """`minimum`, `maximum` in pages of `page_bytes`; without a maximum it may grow to all that its index reaches."""

    minimum: int
    maximum: int | None
    shared: bool
    is64: bool
    page_bytes: int = WASM_PAGE_BYTES

    @property
    def minimum_wasm_pages(self) -> int:
        """In pages of 64 KiB, rounded up."""
        return -(-self.minimum * self.page_bytes // WASM_PAGE_BYTES)


class Table(NamedTuple):
    """`minimum`, `maximum` in elements."""

    minimum: int
    maximum: int | None
    is64: bool


@dataclass(slots=True)
class Sections:
    """What the sections of one core module declare; filled while they are read.

    `data_bytes`: of the data section behind its count, so of all segments with the few bytes that say where they go.
    """

    types: int = 0
    imports: list[Import] = field(default_factory=list[Import])
    imported_memories: list[Memory] = field(default_factory=list[Memory])
    imported_tables: list[Table] = field(default_factory=list[Table])
    functions: int = 0
    tables: list[Table] = field(default_factory=list[Table])
    memories: list[Memory] = field(default_factory=list[Memory])
    tags: int = 0
    globals: int = 0
    exports: list[Export] = field(default_factory=list[Export])
    start: int | None = None
    bodies: int = 0
    announced_data: int | None = None
    data: int = 0
    data_bytes: int = 0
    features: set[Feature] = field(default_factory=set[Feature])


_CUSTOM: Final = 0
_ORDER: Final[dict[int, tuple[int, str]]] = {
    section: (place, name)
    for place, (section, name) in enumerate(
        [
            (1, "type"),
            (2, "import"),
            (3, "function"),
            (4, "table"),
            (5, "memory"),
            (13, "tag"),
            (6, "global"),
            (7, "export"),
            (8, "start"),
            (9, "element"),
            (12, "data count"),
            (10, "code"),
            (11, "data"),
        ],
        start=1,
    )
}
_KINDS: Final = (
    ExternKind.FUNCTION,
    ExternKind.TABLE,
    ExternKind.MEMORY,
    ExternKind.GLOBAL,
    ExternKind.TAG,
)


def read_module(reader: Reader) -> Sections:
    """Reads all sections; `reader` stands behind the preamble. Raises ModuleInvalid."""
    found = Sections()
    last, last_name = 0, ""
    while reader.remaining:
        at = reader.position
        section = reader.byte("a section")
        if section == _CUSTOM:
            reader.section("a custom section").name("a custom section's name")
            continue
        if section not in _ORDER:
            raise ModuleInvalid(at, f"section {section} is not known; 0 to 13 are")
        place, name = _ORDER[section]
        if place <= last:
            problem = "is there twice" if place == last else f"comes after the {last_name} section"
            raise ModuleInvalid(at, f"the {name} section {problem}")
        last, last_name = place, name
        _read_section(section, reader.section(f"the {name} section"), found)
    _check_counts(reader.position, found)
    return found


def _read_section(section: int, body: Reader, found: Sections) -> None:
    features = found.features
    match section:
        case 1:
            found.types = type_section(body, features)
        case 2:
            _imports(body, found)
        case 3:
            found.functions = body.count("functions", MAX_ITEMS)
            body.skip_u32s(found.functions, "functions")
        case 4:
            count = body.count("tables", MAX_TABLES, 3)
            found.tables = [_defined_table(body, features) for _ in range(count)]
        case 5:
            found.memories = [_memory(body, features) for _ in range(body.count("memories", MAX_MEMORIES, 2))]
        case 13:
            found.tags = body.count("tags", MAX_ITEMS, 2)
            for _ in range(found.tags):
                _tag(body, features)
        case 6:
            found.globals = body.count("globals", MAX_ITEMS, 3)
            for _ in range(found.globals):
                _global_type(body, features)
                constant_expression(body, features)
        case 7:
            found.exports = [_export(body) for _ in range(body.count("exports", MAX_ITEMS, 3))]
        case 8:
            found.start = body.u32("the start function's index")
        case 12:
            found.announced_data = body.u32("the number of data segments")
        case 9:
            body.count("element segments", MAX_SEGMENTS, 3)
            body.position = body.end
        case 10:
            found.bodies = body.count("function bodies", MAX_ITEMS, 3)
            body.position = body.end
        case _:
            found.data = body.count("data segments", MAX_SEGMENTS, 2)
            found.data_bytes = body.remaining
            body.position = body.end
    body.expect_end(f"the {_ORDER[section][1]} section")


def _check_counts(end: int, found: Sections) -> None:
    if found.bodies != found.functions:
        raise ModuleInvalid(end, f"{found.functions} functions are declared, {found.bodies} have a body")
    if found.announced_data is not None and found.announced_data != found.data:
        raise ModuleInvalid(end, f"{found.announced_data} data segments are announced, {found.data} are there")
    if len(found.memories) + len(found.imported_memories) > 1:
        found.features.add(Feature.MULTI_MEMORY)


_SAME_MODULE: Final = 0x7F
_SAME_TYPE: Final = 0x7E


def _imports(body: Reader, found: Sections) -> None:
    for _ in range(body.count("imports", MAX_ITEMS, 4)):
        module, name = body.name("an import's module"), body.name("an import's name")
        if name or body.peek() not in {_SAME_MODULE, _SAME_TYPE}:
            found.imports.append(Import(module, name, extern_type(body, found)))
        elif body.byte("a group of imports") == _SAME_MODULE:
            for _ in range(_group(body, found, 3)):
                name = body.name("an import's name")
                found.imports.append(Import(module, name, extern_type(body, found)))
        else:
            _of_one_type(body, found, module)


def _of_one_type(body: Reader, found: Sections, module: str) -> None:
    tables, memories = len(found.imported_tables), len(found.imported_memories)
    kind = extern_type(body, found)
    # The type is said once, and is that of each name: of none, where there is no name.
    imported_tables, imported_memories = found.imported_tables[tables:], found.imported_memories[memories:]
    del found.imported_tables[tables:], found.imported_memories[memories:]
    for _ in range(_group(body, found, 1)):
        found.imports.append(Import(module, body.name("an import's name"), kind))
        found.imported_tables += imported_tables
        found.imported_memories += imported_memories


def _group(body: Reader, found: Sections, least_bytes: int) -> int:
    at = body.position
    count = body.count("imports of a group", MAX_ITEMS, least_bytes)
    if len(found.imports) + count > MAX_ITEMS:
        raise ModuleInvalid(at, f"{len(found.imports) + count} imports: at most {MAX_ITEMS} are allowed")
    return count


def extern_type(body: Reader, found: Sections) -> ExternKind:
    """What an import must be. Tables and memories are noted as imported ones."""
    kind = extern_kind(body, "an import")
    match kind:
        case ExternKind.FUNCTION:
            body.u32("a function's type")
        case ExternKind.TABLE:
            found.imported_tables.append(_table(body, found.features))
        case ExternKind.MEMORY:
            found.imported_memories.append(_memory(body, found.features))
        case ExternKind.GLOBAL:
            _global_type(body, found.features)
        case ExternKind.TAG:
            _tag(body, found.features)
    return kind


def _export(body: Reader) -> Export:
    name = body.name("an export's name")
    kind = extern_kind(body, "an export")
    return Export(name, kind, body.u32("an export's index"))


def extern_kind(body: Reader, what: str) -> ExternKind:
    """One byte. `what` is for the message."""
    at = body.position
    code = body.byte(f"the kind of {what}")
    if code >= len(_KINDS):
        raise ModuleInvalid(at, f"0x{code:02x} is not a kind of {what}")
    return _KINDS[code]


def _tag(body: Reader, features: set[Feature]) -> None:
    at = body.position
    if body.byte("a tag's attribute") != 0:
        raise ModuleInvalid(at, "a tag's attribute must be 0")
    body.u32("a tag's type")
    features.add(Feature.EXCEPTIONS)


def _global_type(body: Reader, features: set[Feature]) -> None:
    value_type(body, features)
    at = body.position
    flags = body.byte("a global's mutability")
    if flags & 0x02:
        features.add(Feature.SHARED_EVERYTHING)
    if flags > 3:
        raise ModuleInvalid(at, f"0x{flags:02x} is not a global's mutability")


def _defined_table(body: Reader, features: set[Feature]) -> Table:
    if body.peek() != 0x40:
        return _table(body, features)
    body.byte("a table")
    at = body.position
    if body.byte("a table's reserved byte") != 0:
        raise ModuleInvalid(at, "the byte behind 0x40 of a table must be 0")
    features.add(Feature.FUNCTION_REFERENCES)
    table = _table(body, features)
    constant_expression(body, features)
    return table


def _table(body: Reader, features: set[Feature]) -> Table:
    reference_type(body, features)
    at = body.position
    flags = body.byte("a table's limits")
    if flags > 7:
        raise ModuleInvalid(at, f"0x{flags:02x} are no flags of a table's limits")
    if flags & 0x02:
        features.add(Feature.SHARED_EVERYTHING)
    is64 = bool(flags & 0x04)
    if is64:
        features.add(Feature.MEMORY64)
    minimum, maximum = _limits(body, flags, "a table", is64)
    return Table(minimum, maximum, is64)


def _memory(body: Reader, features: set[Feature]) -> Memory:
    at = body.position
    flags = body.byte("a memory's limits")
    if flags > 0x0F:
        raise ModuleInvalid(at, f"0x{flags:02x} are no flags of a memory's limits")
    shared, is64 = bool(flags & 0x02), bool(flags & 0x04)
    minimum, maximum = _limits(body, flags, "a memory", is64)
    page_bytes = WASM_PAGE_BYTES
    if flags & 0x08:
        features.add(Feature.CUSTOM_PAGE_SIZES)
        log2 = body.u32("a memory's page size")
        if log2 not in {0, 16}:
            raise ModuleInvalid(at, f"a memory's pages are 1 or 65536 bytes, not 2^{log2}")
        page_bytes = 1 << log2
    largest = (_MEMORY64_PAGES if is64 else MAX_MEMORY_PAGES) * WASM_PAGE_BYTES // page_bytes
    # NB: without large pages the whole index range is not a page more than its last byte: 2^32 - 1, 2^64 - 1.
    largest -= page_bytes == 1
    for limit in (minimum, maximum or 0):
        if limit > largest:
            raise ModuleInvalid(at, f"a memory of {limit} pages of {page_bytes} bytes: at most {largest} are allowed")
    if shared:
        features.add(Feature.SHARED_MEMORY)
        if maximum is None:
            raise ModuleInvalid(at, "a shared memory must have a maximum")
    if is64:
        features.add(Feature.MEMORY64)
    return Memory(minimum, maximum, shared, is64, page_bytes)


def _limits(body: Reader, flags: int, what: str, is64: bool) -> tuple[int, int | None]:
    at = body.position
    number = body.u64 if is64 else body.u32
    minimum = number(f"the minimum of {what}")
    maximum = number(f"the maximum of {what}") if flags & 0x01 else None
    if maximum is not None and maximum < minimum:
        raise ModuleInvalid(at, f"the minimum of {what}, {minimum}, is more than its maximum, {maximum}")
    return minimum, maximum
