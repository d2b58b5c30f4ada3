"""Guards as the host sees them: where compiled code checks nothing, nothing but the memory may be mapped.

Covers: guarded slots and base pages, from a memory's end to the end of its reservation and guard, before and after
growth and for the next tenant of a slot that has grown; and what lies before a memory that fills its slot.
"""

import pytest

from tests.allocation import GUEST, Guest, open_pool
from tests.conformance.host_access import base_of, toucher
from tests.conformance.paging import Paging
from wasmpool_api.limits import WASM_PAGE_BYTES

MIB = 1024 * 1024


def assert_nothing_is_mapped_behind(guest: Guest, pages: int) -> None:
    """From the memory's end to all that an index and an offset reach with elided checks, as the host sees it."""
    base, size, reach = base_of(guest), pages * WASM_PAGE_BYTES, 4 * 1024 * MIB + 32 * MIB
    with toucher() as touch:
        if size:
            assert touch.readable(base)
            assert touch.writable(base + size - 1)
        steps = (0, 1, 4095, 4096, WASM_PAGE_BYTES, 2 * MIB - 1, 2 * MIB, 4 * MIB, 64 * MIB, 1024 * MIB)
        for at in (*(size + step for step in steps), 4 * 1024 * MIB - 1, 4 * 1024 * MIB, reach - 1):
            assert not touch.readable(base + at), hex(at)
            assert not touch.writable(base + at), hex(at)


@pytest.mark.parametrize("kind", ["guarded", "base-pages"])
@pytest.mark.parametrize("first", [0, 1, 32, 96])
def test_from_a_memorys_end_to_the_end_of_its_guard_nothing_is_mapped(kind: str, first: int, paging: Paging) -> None:
    with open_pool(kind, memory_pages=96, **paging) as pool:
        module = pool.compiled(GUEST.format(limits=f"{first} 96"))
        for _ in range(2):  # the second time where the first one had grown
            guest = pool.start(module)
            pages = first
            assert_nothing_is_mapped_behind(guest, pages)
            for step in (1, 31, 1, 32, 30):
                if guest.call("grow", step) >= 0:
                    pages += step
                assert_nothing_is_mapped_behind(guest, pages)
            guest.close()


@pytest.mark.parametrize("kind", ["guarded", "base-pages"])
def test_before_a_memory_that_fills_its_slot_nothing_is_mapped(kind: str, paging: Paging) -> None:
    with open_pool(kind, slots=3, memory_pages=32, **paging) as pool, toucher() as touch:
        module = pool.compiled(GUEST.format(limits=32))
        guests = [pool.start(module) for _ in range(3)]
        for guest in guests:
            for before in (1, 4096, WASM_PAGE_BYTES, 16 * MIB):
                assert not touch.readable(base_of(guest) - before)
        for guest in guests:
            guest.close()
