"""How a pool's limits become a region: the arithmetic, and nothing else.

    region   | slot 0                 | slot 1                 | ... | slot count-1           | rest |
             0                        slot_bytes               2 * slot_bytes                 ^      ^ region_bytes
                                                                       count * slot_bytes ----'
    slot     | area of memory 0       | area of memory 1       | ...      `memories` areas
    area     | memoryPages * 64 KiB   | guarded: up to a whole page of the backing |

Compact slots (addressSpaceSize under 4Gi): an area is exactly `memoryPages * 64 KiB`, whatever the page size, so a huge
page may hold many slots, and one slot may begin in the middle of a page; only the region as a whole is rounded up.

Guarded slots (4Gi and more): every area is mapped by itself at another place, so it is rounded up to whole pages of the
backing. Its address space (4 GiB and a guard for each memory) is not part of the region: it costs no memory.

Base pages: the pages are 4 KiB, which divides 64 KiB, so nothing is rounded. The memory is Wasmtime's own pool's; the
region's size is what the pod's memory request has for it.

Address space is not memory, but a process has no more than MAX_ADDRESS_SPACE_BYTES in one piece: guarded slots and
base pages take MEMORY_ADDRESS_SPACE_BYTES for each memory of each slot, all of them at once.

OnDemand: as base pages. There is no memory that is set aside, but `count` instances may use as much as so many slots,
and the pod's memory request has to have it.

Invariants, for every shape (tests/unit/api/test_region.py holds them over a grid and over random limits):
    slots lie side by side: slot_offset(i + 1) = slot_offset(i) + slot_bytes
    the last slot ends within the region, and less than a page before its end
    region_bytes is a multiple of page_bytes; slot_bytes of 64 KiB; a guarded slot's areas of page_bytes
    a slot holds its memories: memories * memoryPages * 64 KiB <= slot_bytes
"""

from dataclasses import dataclass
from typing import Final

from wasmpool_api.bounds import out_of_bounds
from wasmpool_api.codec import FieldError
from wasmpool_api.instance_pool import HUGE_PAGE_BYTES, AllocationType, Backing, Fallback, InstancePoolSpec
from wasmpool_api.limits import WASM_PAGE_BYTES
from wasmpool_api.quantities import Quantity
from wasmpool_api.sizes import BASE_PAGE_BYTES, ByteCount, Slots, WasmPages

MAX_REGION_BYTES: Final = 2**47
"""128 TiB: a process on x86-64 and on most arm64 kernels has no more address space than that."""

MEMORY_ADDRESS_SPACE_BYTES: Final = 4 * 1024**3 + 32 * 1024**2
"""All that a 32-bit index reaches, and a guard behind it."""
MAX_ADDRESS_SPACE_BYTES: Final = 85 * 1024**4
"""Two thirds of 128 TiB lie in one piece below a position-independent program."""

TABLE_ELEMENT_BYTES: Final = 8
"""A pointer, for each element of each table."""
IMPORTED_FUNCTION_BYTES: Final = 32
GLOBAL_BYTES: Final = 16
FUNCTION_REFERENCE_BYTES: Final = 32
"""In Wasmtime's instance state, for each function that can be called from outside or through a table."""
INSTANCE_STATE_BYTES: Final = 64 * 1024
"""For each instance: its store, what it has touched of its stack, and WASI's state."""
CODE_BYTES_PER_SLOT: Final = 256 * 1024
"""Compiled code. Slots with the same module share it: what one does not need is there for a larger one."""


class RegionError(FieldError):
    """The limits make no region that a machine could have. `given` and `allowed` are for the field `path`."""

    def __init__(self, path: str, given: str, allowed: str) -> None:
        super().__init__(path, f"{given} is given; allowed is {allowed}")
        self.given = given
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class BoundError(RegionError):
    """One number of the spec is less or more than it may be."""

    def __str__(self) -> str:
        return f"{self.path} is {self.given}, {self.allowed} is allowed"


@dataclass(frozen=True, slots=True)
class RegionShape:
    """A region, cut into slots. All sizes in bytes.

    `backing` is what is really under it: a pool with `type: OnDemand` has base pages, whatever it says.
    """

    backing: Backing
    page_bytes: int
    slot_bytes: int
    slots: int
    region_bytes: int
    guarded: bool

    def slot_offset(self, index: int) -> int:
        """Where slot `index` begins, in bytes from the start of the region. Raises IndexError."""
        if not 0 <= index < self.slots:
            raise IndexError(f"slot {index}: the region has {self.slots}, from 0 to {self.slots - 1}")
        return index * self.slot_bytes


def region_shape(spec: InstancePoolSpec, backing: Backing | None = None) -> RegionShape:
    """The region of one node. `backing`: what it is made of where that is not what the spec asks for (a fallback).

    Raises RegionError.
    """
    if spec.allocation.type is AllocationType.ON_DEMAND:
        backing = Backing.BASE_PAGES
    backing = backing or spec.allocation.backing
    for wrong in out_of_bounds(spec):
        raise BoundError(*wrong)
    limits = spec.module_limits
    count, memories, pages = spec.instance_limits.count, limits.memories, limits.memory_pages
    space = _address_space(spec.instance_limits.address_space_size)
    guarded = spec.instance_limits.guarded and backing is not Backing.BASE_PAGES
    page = ByteCount(HUGE_PAGE_BYTES.get(backing, BASE_PAGE_BYTES))
    memory = WasmPages(pages).to_bytes()
    if memory * memories > space:
        raise RegionError(
            "spec.instanceLimits.addressSpaceSize",
            str(Quantity(space.value)),
            f"{Quantity((memory * memories).value)} or more, which is what a slot of memories {memories} with "
            f"memoryPages {pages} takes",
        )
    area = memory.rounded_up_to(page) if guarded else memory
    slot = area * memories
    region = Slots(count).of_bytes(slot).rounded_up_to(page)
    if region.value > MAX_REGION_BYTES:
        raise RegionError("spec.instanceLimits.count", f"{count} slots of {slot.value} bytes", _LARGEST)
    if spec.allocation.type is not AllocationType.ON_DEMAND:
        if guarded:
            stride = (area + ByteCount(MEMORY_ADDRESS_SPACE_BYTES)).rounded_up_to(page)
            way_out = "lower count, or set addressSpaceSize below 4Gi for compact slots"
            _check_address_space(count, memories, stride, way_out)
        if backing is Backing.BASE_PAGES or spec.allocation.fallback is Fallback.BASE_PAGES:
            each = max(memories, spec.component_limits.memories)
            way_out = "lower count, or take huge pages without a fallback and addressSpaceSize below 4Gi"
            _check_address_space(count, each, ByteCount(MEMORY_ADDRESS_SPACE_BYTES), way_out)
    return RegionShape(backing, page.value, slot.value, count, region.value, guarded)


def overhead_bytes_per_node(spec: InstancePoolSpec, shape: RegionShape) -> int:
    """Memory that `count` instances take outside of the region, at most, in bytes. Without the agent's own.

    count * (tables * tableElements * 8                           elements of tables
             + importedFunctions * 32 + globals * 16 + functions * 32    what Wasmtime keeps for each instance
             + 64 KiB                                             store, stack and WASI state
             + 256 KiB                                            compiled code
             + memories * (page of the backing - 64 KiB))         guarded slots on huge pages only: a memory that has
                                                                  grown ends in less than one page of ordinary memory
    """
    limits = spec.module_limits
    each = (
        limits.tables * limits.table_elements * TABLE_ELEMENT_BYTES
        + limits.imported_functions * IMPORTED_FUNCTION_BYTES
        + limits.globals * GLOBAL_BYTES
        + limits.functions * FUNCTION_REFERENCE_BYTES
        + INSTANCE_STATE_BYTES
        + CODE_BYTES_PER_SLOT
    )
    if shape.guarded:
        tail = min(shape.page_bytes, limits.memory_pages * WASM_PAGE_BYTES) - WASM_PAGE_BYTES
        each += limits.memories * tail
    return Slots(shape.slots).of_bytes(ByteCount(each)).value


_LARGEST: Final = f"a region of {MAX_REGION_BYTES} bytes (128Ti) on each node"


def _check_address_space(count: int, memories: int, each: ByteCount, way_out: str) -> None:
    most = MAX_ADDRESS_SPACE_BYTES // (memories * each.value)
    if count > most:
        given = f"{count} with {memories} memories, {each.value} bytes of address space for each memory,"
        raise RegionError("spec.instanceLimits.count", given, f"1 to {most}: {way_out}")


def _address_space(size: Quantity) -> ByteCount:
    path = "spec.instanceLimits.addressSpaceSize"
    if not WASM_PAGE_BYTES <= size <= MAX_REGION_BYTES or size % WASM_PAGE_BYTES:
        raise RegionError(path, str(size), "a multiple of 64Ki, from 64Ki to 128Ti")
    return ByteCount(int(size))
