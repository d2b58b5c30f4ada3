"""The RFC's limits: ModuleLimits and InstanceLimits with the RFC's defaults, and componentLimits beside them.

Source: Wasmtime RFC "Add instance allocator support", sections ModuleLimits and InstanceLimits; componentLimits take
the names that Wasmtime gave to the same sums later.
"""

from typing import Final

import msgspec

from wasmpool_api.quantities import Quantity

WASM_PAGE_BYTES: Final = 64 * 1024
MAX_MEMORY_PAGES: Final = 65536
"""A 32-bit memory can't be larger: 65536 pages of 64 KiB are 4 GiB."""
GUARDED_FROM_BYTES: Final = 4 * 1024**3
"""From this address space per slot on, slots are guarded and bounds checks are elided; below, slots are compact."""


class ModuleLimits(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one core module may declare. Imports count what the host must provide."""

    imported_functions: int = 1000
    imported_tables: int = 0
    imported_memories: int = 0
    imported_globals: int = 0
    types: int = 100
    functions: int = 10000
    tables: int = 1
    memories: int = 1
    globals: int = 10
    table_elements: int = 10000
    memory_pages: int = 160


class ComponentLimits(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Sums over all core instances that one component instance makes."""

    core_instances: int = 30
    memories: int = 1
    tables: int = 20


class InstanceLimits(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`count`: slots per node. `address_space_size`: of a slot, in bytes; from 4 GiB on slots are guarded."""

    count: int
    address_space_size: Quantity = Quantity(6 * 1024**3)

    @property
    def guarded(self) -> bool:
        """Whether slots carry guard regions, so that compiled code needs no bounds checks."""
        return self.address_space_size >= GUARDED_FROM_BYTES
