"""Growth and what the kernel has to give for it: ordinary memory for a tail, and mappings of the process.

Covers: a tail that the kernel refuses, which is a growth refused with everything as it was; how many mappings a memory
takes while it grows by every step, against the number that pools are held to, and that all of them go with it.
"""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import wasmtime

from tests.allocation import GUEST, Guest, open_pool
from tests.conformance.host_access import base_of
from tests.conformance.paging import Paging
from wasmpool_agent.allocators.guarded import mappings_of
from wasmpool_api.limits import WASM_PAGE_BYTES

GIB, MIB = 1024**3, 1024**2
PAGES = 128
"""Four huge pages."""


@contextmanager
def no_more_ordinary_memory_than(spare_bytes: int) -> Generator[None]:
    """For this process, and so much more than it has now."""
    used = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if "VmData" in line)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(used.split()[1]) * 1024 + spare_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize("first", [1, 16, 33])
def test_a_tail_that_the_kernel_refuses_is_a_growth_refused_with_everything_as_it_was(
    first: int,
) -> None:
    with open_pool("guarded", memory_pages=PAGES, page_bytes=2 * MIB, ordinary_memory=True) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=f"{first} {PAGES}")))
        guest.call("fill", 0, 0x5A, first * WASM_PAGE_BYTES)
        assert guest.call("grow", 1) == first
        guest.call("fill", first * WASM_PAGE_BYTES, 0x5A, WASM_PAGE_BYTES)
        pages = first + 1
        with no_more_ordinary_memory_than(MIB + MIB // 2):
            refused = [guest.call("grow", step) for step in (30, 62)]  # with the page before: all but 64 KiB of a page
        assert refused == [-1, -1]
        assert pool.in_region.stats().grow_refused == 2
        assert guest.call("size") == pages
        with pytest.raises(wasmtime.Trap, match="out of bounds memory access"):
            guest.call("load8", pages * WASM_PAGE_BYTES)
        assert guest.call("grow", 30) == pages
        content = bytes(guest.memory.read(guest.store, 0, (pages + 30) * WASM_PAGE_BYTES))
        assert content == b"\x5a" * (pages * WASM_PAGE_BYTES) + bytes(30 * WASM_PAGE_BYTES)
        guest.close()
        pool.region.prove_clean(guest.slot.index)


def mappings_around(guest: Guest, start: int) -> int:
    """How many there are from `start` to the end of what an index and an offset reach."""
    end = start + 4 * GIB
    ranges = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text("utf-8").splitlines())
    return sum(int(low, 16) < end and int(high, 16) > start for low, high in ranges)


@pytest.mark.parametrize("first", [0, 1, 32, 33, PAGES])
@pytest.mark.parametrize("step", [1, 3, 31, 32, 33])
def test_a_memory_that_grows_takes_no_more_mappings_than_are_counted_for_it(
    first: int, step: int, paging: Paging
) -> None:
    area_bytes = PAGES * WASM_PAGE_BYTES
    with open_pool("guarded", slots=1, memory_pages=PAGES, **paging) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=f"{first} {PAGES}")))
        start = base_of(guest) + first * WASM_PAGE_BYTES - area_bytes
        counted = [mappings_around(guest, start)]
        assert counted == [2]
        while guest.call("grow", step) >= 0:
            counted.append(mappings_around(guest, start))
        assert max(counted) <= mappings_of(area_bytes, paging["page_bytes"])
        if paging == Paging(page_bytes=2 * MIB) and (first, step) == (1, 1):
            assert max(counted) == mappings_of(area_bytes, 2 * MIB)
        guest.store.close()
        assert mappings_around(guest, start) == 2
        assert pool.allocator.deallocate(guest.slot)
