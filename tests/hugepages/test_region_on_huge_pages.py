"""The region on real huge pages: reserved whole or refused with both numbers, touched before it is announced.

NB: other programs that reserve huge pages at the same moment change what these tests count.
"""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest
import wasmtime

from tests.allocation import GUEST, open_pool, shape_of
from tests.hugepages.reservation import HUGE_PAGE_BYTES, borrowed_huge_pages, free_pages, pages
from wasmpool_agent.region import Region, ReserveError
from wasmpool_api.instance_pool import Backing
from wasmpool_api.reasons import RegionReason
from wasmpool_api.region import RegionShape

pytestmark = pytest.mark.hugepages


@pytest.fixture(autouse=True)
def borrowed() -> Iterator[None]:
    """A few pages for each test; what an engine of an earlier one still holds is let go first."""
    gc.collect()
    with borrowed_huge_pages(40):
        yield


def shape_of_pages(count: int) -> RegionShape:
    return RegionShape(Backing.HUGE_PAGES_2MI, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES, count, count * HUGE_PAGE_BYTES, False)


def test_the_nodes_free_pages_fall_by_the_region_and_rise_again() -> None:
    before = free_pages()
    with Region.reserve(shape_of_pages(7)):
        assert free_pages() == before - 7
    assert free_pages() == before


def test_progress_is_told_in_steps_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    with Region.reserve(shape_of_pages(40), lambda done, total: seen.append((done, total))):
        assert seen == [(32, 40), (40, 40)]


def test_after_the_reservation_no_touch_faults_on_a_page_that_is_not_there() -> None:
    with Region.reserve(shape_of_pages(16)) as region:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for page in range(16):
            region.native.write(page * HUGE_PAGE_BYTES, b"x")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 5


def test_more_pages_than_are_free_are_refused_with_both_numbers_and_nothing_is_kept() -> None:
    free, total = free_pages(), pages()
    with pytest.raises(ReserveError) as refused:
        Region.reserve(shape_of_pages(free + 3))
    assert refused.value.reason is RegionReason.INSUFFICIENT_HUGE_PAGES
    wanted = f"{free + 3} pages of 2 MiB are wanted, {free} of the node's {total} are free"
    assert refused.value.message == f"allocation.backing HugePages2Mi: {wanted}"
    assert free_pages() == free


def test_what_one_region_holds_is_not_free_for_the_next() -> None:
    free = free_pages()
    with Region.reserve(shape_of_pages(free - 2)), pytest.raises(ReserveError, match=r"3 pages .* 2 of the node's"):
        Region.reserve(shape_of_pages(3))


def test_an_interrupted_reservation_gives_everything_back() -> None:
    free = free_pages()

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Region.reserve(shape_of_pages(8), interrupt)
    assert free_pages() == free


def test_the_pages_come_back_when_the_last_process_that_maps_them_is_killed() -> None:
    free = free_pages()
    with Region.reserve(shape_of_pages(4)) as region:
        code = f"from wasmpool_agent import _native; r = _native.Region({region.fd}, 8388608); print('up'); input()"
        child = subprocess.Popen(
            [sys.executable, "-uc", code], pass_fds=[region.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
    assert free_pages() == free - 4
    child.kill()
    child.communicate()
    assert free_pages() == free


@pytest.mark.parametrize("kind", ["compact", "guarded"])
def test_many_small_slots_share_a_huge_page_only_where_they_are_compact(kind: str) -> None:
    shape = shape_of(kind, slots=10, memories=1, memory_pages=3, page_bytes=HUGE_PAGE_BYTES)
    assert shape.region_bytes // HUGE_PAGE_BYTES == (1 if kind == "compact" else 10)
    with open_pool(kind, slots=10, memory_pages=3, page_bytes=HUGE_PAGE_BYTES) as pool:
        module = pool.compiled('(module (memory (export "memory") 3))')
        guests = [pool.start(module) for _ in range(10)]
        for number, guest in enumerate(guests, 1):
            guest.memory.write(guest.store, bytes([number]) * 196608, 0)
        for number, guest in enumerate(guests, 1):
            assert set(guest.memory.read(guest.store, 0, 196608)) == {number}
            guest.close()
        for index in range(10):
            pool.region.prove_clean(index)


@pytest.mark.parametrize("kind", ["compact", "guarded"])
def test_a_page_of_1_gib_is_a_region_of_its_own(kind: str) -> None:
    """Where the kernel gives one: it seldom has so much in one piece, and then says so."""
    gib = 1024**3
    slots = 4 if kind == "compact" else 1  # a guarded slot ends where a page does
    with (
        borrowed_huge_pages(1, gib),
        open_pool(kind, slots=slots, memory_pages=4096, page_bytes=gib) as pool,
    ):
        assert pages("free", gib) == 0
        module = pool.compiled(GUEST.format(limits="4096 4096"))
        guests = [pool.start(module) for _ in range(slots)]
        last = 4096 * 65536 - 1
        for guest in guests:
            guest.call("store8", last)
            assert guest.call("load8", last) == 1
            with pytest.raises(wasmtime.Trap, match="out of bounds"):
                guest.call("load8", last + 1)
            guest.close()
        for index in range(slots):
            pool.region.prove_clean(index)
        del guests, module


def test_a_descriptor_is_all_that_another_user_without_rights_needs() -> None:
    """Workers run as a user that may reserve nothing; the descriptor carries the pages."""
    with Region.reserve(shape_of_pages(2)) as region:
        code = (
            f"import os; os.setuid(65532)\nfrom wasmpool_agent import _native\n"
            f"r = _native.Region({region.fd}, 4194304); r.write(4194303, b'x'); print(r.first_dirty(0, 4194304))"
        )
        readable = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", "from wasmpool_agent import _native\n" + code]
        done = subprocess.run(command, pass_fds=[region.fd], capture_output=True, text=True, check=False, env=readable)
        assert done.stdout == "4194303\n", done.stderr
