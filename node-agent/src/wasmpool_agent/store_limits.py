"""What one store may hold beside its slot: told by the supervisor, which knows the limits, held by the worker."""

from typing import Final

import msgspec

from wasmpool_api.instance_pool import AdmissionMode, InstancePoolSpec

_COUNTED_TABLE_ELEMENTS: Final = 1_000_000
_COUNTED_TABLES: Final = 100


class StoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_pages`: per memory, pages of 64 KiB; `table_elements`: per table."""

    memory_pages: int
    memories: int
    tables: int
    table_elements: int

    @classmethod
    def of(cls, spec: InstancePoolSpec, memory_pages: int | None = None) -> "StoreLimits":
        """The pool's; `memory_pages`: the workload's own, which can only be lower.

        Where module limits are only counted, tables, which are not in the slot, get another bound.
        """
        limits, counted = spec.module_limits, spec.admission.mode is AdmissionMode.COUNT
        return cls(
            memory_pages=limits.memory_pages if memory_pages is None else min(limits.memory_pages, memory_pages),
            memories=max(limits.memories, spec.component_limits.memories),
            tables=max(limits.tables, _COUNTED_TABLES) if counted else limits.tables,
            table_elements=max(limits.table_elements, _COUNTED_TABLE_ELEMENTS) if counted else limits.table_elements,
        )
