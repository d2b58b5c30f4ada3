"""Inspection of WebAssembly binaries: what a module needs, without running or compiling it.

    preamble      which kind of binary it is, and helpful words about what is none
    reader        bytes to numbers; never trusts a length
    features      names of the proposals that decide whether a module can run
    types         value types and the type section
    expressions   constant expressions
    module        the sections of a core module
    scopes, component_types, canonical    what stands in a component beside its core modules
    component     the sections of a component
    instantiation how many core instances it makes
    interfaces    names of what it imports and exports
    linking, linking_types, plans         how its core modules go together, for whoever hosts it
    inspection    what comes out

It looks at structure, not at code: the bodies of code, data and element sections are skipped, after their length has
been checked against the file. What it accepts may still be refused by a compiler; what it refuses no engine takes.
"""

from wasmpool_api.wasm.features import UNSUPPORTED, Feature
from wasmpool_api.wasm.inspection import (
    BinaryKind,
    Component,
    CoreModule,
    Export,
    ExternKind,
    Import,
    Inspection,
    InterfaceExport,
    InterfaceImport,
    Memory,
    Sort,
    Table,
    inspect,
    inspect_module,
)
from wasmpool_api.wasm.interfaces import Interface
from wasmpool_api.wasm.reader import ModuleInvalid

__all__ = [
    "UNSUPPORTED",
    "BinaryKind",
    "Component",
    "CoreModule",
    "Export",
    "ExternKind",
    "Feature",
    "Import",
    "Inspection",
    "Interface",
    "InterfaceExport",
    "InterfaceImport",
    "Memory",
    "ModuleInvalid",
    "Sort",
    "Table",
    "inspect",
    "inspect_module",
]
