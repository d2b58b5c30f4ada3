"""What one store may hold beside its slot: told by the supervisor, which knows the limits, held by the worker."""

from typing import Final

import msgspec

from wasmpool_api.instance_pool import AdmissionMode, InstancePoolSpec
from wasmpool_api.wasm_workload import ComponentNeeds

_COUNTED_TABLE_ELEMENTS: Final = 1_000_000
_COUNTED_TABLES: Final = 100
_OF_THE_HOST: Final = 1
"""What links a component's modules is a module too, with a table."""


class StoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_pages`: per memory, pages of 64 KiB; `table_elements`: per table; `instances`: of core modules."""

    memory_pages: int
    memories: int
    tables: int
    table_elements: int
    instances: int = 1

    @classmethod
    def of(
        cls, spec: InstancePoolSpec, memory_pages: int | None = None, component: ComponentNeeds | None = None
    ) -> "StoreLimits":
        """The pool's; `memory_pages`: the workload's own, which can only be lower. `component`: what one makes.

        Where module limits are only counted, tables, which are not in the slot, get another bound.
        """
        limits, counted = spec.module_limits, spec.admission.mode is AdmissionMode.COUNT
        tables = max(limits.tables, _COUNTED_TABLES) if counted else limits.tables
        if component is not None:
            tables = max(tables, component.tables + _OF_THE_HOST)
        return cls(
            memory_pages=limits.memory_pages if memory_pages is None else min(limits.memory_pages, memory_pages),
            memories=max(limits.memories, spec.component_limits.memories),
            tables=tables,
            table_elements=max(limits.table_elements, _COUNTED_TABLE_ELEMENTS) if counted else limits.table_elements,
            instances=1 if component is None else component.core_instances + _OF_THE_HOST,
        )
