"""Names of what lies beyond WebAssembly 1.0 and shows in a binary's structure.

Only what decides whether a module can run here is named, and only as far as the sections say it, for code is never
read. So a name that is there is certain, and one that is missing says:

    SIMD          no vector in a type, a global or a constant; code may still use vectors, which every agent has
    Exceptions    no tag and no reference to an exception; code that only rethrows would still not compile
    SharedMemory  no memory is shared, so there are no threads; atomics on other memory are for the compiler to find
    the others    none: they can't be used without a type, a memory, a table or, in a component, a definition of theirs
"""

from enum import StrEnum
from typing import Final


class Feature(StrEnum):
    """In a workload's status: status.module.needs.features."""

    COMPONENT = "Component"
    COMPONENT_ASYNC = "ComponentAsync"
    COMPONENT_ERROR_CONTEXT = "ComponentErrorContext"
    COMPONENT_FIXED_LENGTH_LISTS = "ComponentFixedLengthLists"
    COMPONENT_GC = "ComponentGC"
    COMPONENT_IMPLEMENTS = "ComponentImplements"
    COMPONENT_MAPS = "ComponentMaps"
    COMPONENT_THREADS = "ComponentThreads"
    COMPONENT_VALUES = "ComponentValues"
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
        Feature.COMPONENT_ASYNC,
        Feature.COMPONENT_ERROR_CONTEXT,
        Feature.COMPONENT_FIXED_LENGTH_LISTS,
        Feature.COMPONENT_GC,
        Feature.COMPONENT_IMPLEMENTS,
        Feature.COMPONENT_MAPS,
        Feature.COMPONENT_THREADS,
        Feature.COMPONENT_VALUES,
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
