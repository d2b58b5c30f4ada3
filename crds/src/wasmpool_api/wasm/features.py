"""Names of what lies beyond WebAssembly 1.0 and shows in a binary's structure.

Only what decides whether a module can run here is named; what shows in code alone (most of SIMD, tail calls, atomics
on memory that is not shared) is for the compiler to find.
"""

from enum import StrEnum
from typing import Final


class Feature(StrEnum):
    """In a workload's status: status.module.needs.features."""

    COMPONENT = "Component"
    CUSTOM_PAGE_SIZES = "CustomPageSizes"
    EXCEPTIONS = "Exceptions"
    EXTERN_REF = "ExternRef"
    FUNCTION_REFERENCES = "FunctionReferences"
    GC = "GC"
    MEMORY64 = "Memory64"
    MULTI_MEMORY = "MultiMemory"
    SHARED_EVERYTHING = "SharedEverything"
    SHARED_MEMORY = "SharedMemory"
    SIMD = "SIMD"
    STACK_SWITCHING = "StackSwitching"


UNSUPPORTED: Final[frozenset[str]] = frozenset(
    {
        Feature.COMPONENT,
        Feature.CUSTOM_PAGE_SIZES,
        Feature.EXCEPTIONS,
        Feature.EXTERN_REF,
        Feature.FUNCTION_REFERENCES,
        Feature.GC,
        Feature.MEMORY64,
        Feature.SHARED_EVERYTHING,
        Feature.SHARED_MEMORY,
        Feature.STACK_SWITCHING,
    }
)
"""No agent runs these: slots can't hold such memories, or a garbage-collected heap would take a slot unasked."""
