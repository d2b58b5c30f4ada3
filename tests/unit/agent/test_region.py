"""The region on ordinary pages: reserved, mapped again elsewhere, read, wiped, closed; and what is refused.

What needs huge pages is in tests/hugepages/.
"""

import os
import subprocess
import sys

import pytest

from tests.allocation import shape_of
from wasmpool_agent import _native
from wasmpool_agent.region import Region, ReserveError, SlotNotCleanError
from wasmpool_api.instance_pool import Backing
from wasmpool_api.reasons import RegionReason
from wasmpool_api.region import RegionShape

SHAPE = shape_of("compact", slots=3, memories=1, memory_pages=2, page_bytes=4096)
GIB = 1024**3


def test_all_processes_map_the_same_bytes() -> None:
    with Region.reserve(SHAPE) as region:
        code = (
            f"from wasmpool_agent import _native; _native.Region({region.fd}, {SHAPE.region_bytes}).write(5, b'hello')"
        )
        subprocess.run([sys.executable, "-c", code], pass_fds=[region.fd], check=True)
        assert region.native.read(4, 7) == b"\0hello\0"
        with Region.attach(os.dup(region.fd), SHAPE) as second:
            assert second.native.read(5, 5) == b"hello"


def test_base_pages_take_no_memory_until_they_are_used() -> None:
    shape = RegionShape(Backing.BASE_PAGES, 4096, 10 * GIB, 100, 1000 * GIB, False)
    seen: list[tuple[int, int]] = []
    with Region.reserve(shape, lambda done, total: seen.append((done, total))) as region:
        region.native.write(999 * GIB, b"x")
        assert os.stat(region.fd).st_blocks * 512 <= 8192
        assert seen == [(1000 * GIB // 4096, 1000 * GIB // 4096)]


def test_a_slot_is_proved_clean_to_its_last_byte_and_no_further() -> None:
    with Region.reserve(SHAPE) as region:
        region.native.write(SHAPE.slot_offset(2), b"x")
        region.prove_clean(1)
        region.native.write(SHAPE.slot_offset(2) - 1, b"y")
        with pytest.raises(SlotNotCleanError, match="slot 1 is not clean: the byte at offset 131071 is") as found:
            region.prove_clean(1)
        assert (found.value.index, found.value.offset) == (1, SHAPE.slot_bytes - 1)
        region.native.wipe(SHAPE.slot_offset(1), SHAPE.slot_bytes)
        region.prove_clean(1)
        assert region.native.read(SHAPE.slot_offset(2), 1) == b"x"


def test_wipes_are_counted_with_their_bytes_and_how_long_they_took() -> None:
    before = _native.wipe_stats()
    with Region.reserve(SHAPE) as region:
        region.native.wipe(0, SHAPE.region_bytes)
        region.native.wipe(0, 0)
    after = _native.wipe_stats()
    assert (after[0] - before[0], after[1] - before[1]) == (1, SHAPE.region_bytes)
    assert after[2] > before[2]
    assert sum(after[3]) - sum(before[3]) == 1


@pytest.mark.parametrize("range_", [(-1, 1), (0, -1), (0, 3 * 131072 + 1), (3 * 131072, 1), (2**62, 2**62)])
def test_ranges_outside_of_the_region_are_refused(range_: tuple[int, int]) -> None:
    with Region.reserve(SHAPE) as region:
        for method in (region.native.read, region.native.wipe, region.native.populate, region.native.first_dirty):
            with pytest.raises(ValueError, match="outside of the region's 393216 bytes"):
                method(*range_)
        with pytest.raises(ValueError, match="outside"):
            region.native.write(393215, b"xx")


def test_a_closed_region_says_so_and_closes_again() -> None:
    region = Region.reserve(SHAPE)
    region.close()
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.prove_clean(0)
    assert region.fd == -1


def test_a_descriptor_that_is_shorter_than_the_region_is_refused_instead_of_a_later_sigbus() -> None:
    fd = os.memfd_create("short")
    os.ftruncate(fd, SHAPE.region_bytes - 1)
    with pytest.raises(OSError, match="Invalid argument"):
        Region.attach(fd, SHAPE)
    os.close(fd)


@pytest.mark.parametrize("length", [0, -5, 1])
def test_a_length_that_no_region_has_is_refused(length: int) -> None:
    with pytest.raises((ValueError, OSError)):
        _native.memfd("x", length, 4096)


def test_more_than_the_address_space_is_refused_with_the_reason_and_the_number() -> None:
    shape = RegionShape(Backing.BASE_PAGES, 4096, 2**40, 2**22, 2**62, False)
    with pytest.raises(ReserveError, match=f"{2**62} bytes are wanted: Cannot allocate memory") as refused:
        Region.reserve(shape)
    assert refused.value.reason is RegionReason.RESERVE_FAILED


def test_pages_of_1_gib_that_the_node_does_not_have_are_not_configured() -> None:
    try:
        with open("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", encoding="ascii") as file:
            has = int(file.read())
    except FileNotFoundError:
        has = 0
    if has:
        pytest.skip("this machine has huge pages of 1 GiB")
    shape = RegionShape(Backing.HUGE_PAGES_1GI, GIB, GIB, 2, 2 * GIB, False)
    with pytest.raises(ReserveError, match="2 pages of 1024 MiB are wanted, the node has none") as refused:
        Region.reserve(shape)
    assert refused.value.reason is RegionReason.HUGE_PAGES_NOT_CONFIGURED
