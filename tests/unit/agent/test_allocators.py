"""What every allocator promises, and what only the two that use the region do.

Covers: exact traps at every step of growth; growth to the slot's end and then -1, counted; wiping, proved through the
next tenant and by reading the region; exhaustion with its numbers; modules of two memories; instantiations that fail;
features that no slot can hold, refused by name; memories outside of a slot; slots given back early, late and twice;
modules that never fit, refused with every reason.
"""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, GUEST, IN_REGION, Guest, open_pool
from wasmpool_agent.allocators import NoFreeSlotError
from wasmpool_agent.allocators.compact import CompactAllocator
from wasmpool_agent.engine import DEFAULT_TUNABLES, engine_config
from wasmpool_agent.refusals import EngineRefusedError, ModuleRefusedError
from wasmpool_agent.slots import SlotCounts, SlotState
from wasmpool_agent.wasmtime_private import apply_tunables
from wasmpool_api.limits import WASM_PAGE_BYTES
from wasmpool_api.wasm_workload import ModuleNeeds

PAGES = 96
"""Three huge pages: growth passes the end of a huge page, and ends inside of one."""

all_kinds = pytest.mark.parametrize("kind", ALL_KINDS)
in_region = pytest.mark.parametrize("kind", IN_REGION)

ACCESSES = (
    ("load8", 1, 0),
    ("store8", 1, 0),
    ("load32", 4, 0),
    ("load64", 8, 0),
    ("load32+64Ki", 4, 65536),
    ("load32+30Mi", 4, 0x1E00000),
)


def addresses(size: int, width: int, offset: int) -> set[int]:
    """Around the end of the memory, of the pages under it, and of what an index reaches."""
    ends = {0, size, size + 4096, size + WASM_PAGE_BYTES, size + 2**21, 2**31, 2**32}
    return {
        address
        for end in ends
        for address in (end - offset - width, end - offset - width + 1, end - width, end - 1, end, end + 1)
        if 0 <= address < 2**32
    }


def assert_traps_are_exact(guest: Guest, pages: int) -> int:
    """An access succeeds if, and only if, all of its bytes lie inside the memory. Returns how many were tried."""
    size, tried = pages * WASM_PAGE_BYTES, 0
    for name, width, offset in ACCESSES:
        for address in addresses(size, width, offset):
            try:
                guest.call(name, address)
                inside = True
            except wasmtime.Trap:
                inside = False
            assert inside == (address + offset + width <= size), (name, hex(address), pages)
            tried += 1
    return tried


@in_region
@pytest.mark.parametrize("limits", ["0", "1", "1 1", "1 40", "17", "31", "32", "33 80", "64", "95", "96", "96 96"])
def test_traps_are_exact_at_each_size_that_a_memory_takes(kind: str, limits: str, page_bytes: int) -> None:
    pages = int(limits.split(maxsplit=1)[0])
    most = min(PAGES, int((limits + " 65536").split()[1]))
    with open_pool(kind, memory_pages=PAGES, page_bytes=page_bytes) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=limits)))
        assert_traps_are_exact(guest, pages)
        for step in (1, 1, 29, 1, 1, 31, 1, 32, 1):
            if pages + step > most:
                assert guest.call("grow", step) == -1
            else:
                assert guest.call("grow", step) == pages
                pages += step
            assert_traps_are_exact(guest, pages)
        guest.close()


@all_kinds
def test_growth_keeps_what_was_written_gives_zeros_and_ends_at_the_slots_end(kind: str, page_bytes: int) -> None:
    with open_pool(kind, memory_pages=PAGES, page_bytes=page_bytes) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits="1 65536")))
        if kind == "on-demand":  # only the store's limiter, which is the worker's, stops it
            guest.store.set_limits(memory_size=PAGES * WASM_PAGE_BYTES)
        pages = 1
        guest.call("fill", 0, 1, WASM_PAGE_BYTES)
        for step in (0, 1, 2, 27, 3, 40, 21, 1):
            assert guest.call("grow", step) == pages
            pages += step
            size = pages * WASM_PAGE_BYTES
            content = bytes(guest.memory.read(guest.store, 0, size))
            assert content == b"\1" * (size - step * WASM_PAGE_BYTES) + bytes(step * WASM_PAGE_BYTES)
            guest.call("fill", 0, 1, size)
        assert pages == PAGES
        for step in (1, 40, 65535 - PAGES):
            assert guest.call("grow", step) == -1
        assert guest.call("size") == PAGES
        assert bytes(guest.memory.read(guest.store, 0, PAGES * WASM_PAGE_BYTES)).count(1) == PAGES * WASM_PAGE_BYTES
        if kind in IN_REGION:
            stats = pool.in_region.stats()
            assert (stats.grown, stats.grow_refused) == (7, 3)
        guest.close()


@all_kinds
@pytest.mark.parametrize(("first", "grown"), [(1, 0), (1, PAGES - 1), (33, 30), (PAGES, 0)])
def test_the_next_tenant_of_a_slot_reads_only_zeros(kind: str, first: int, grown: int, page_bytes: int) -> None:
    with open_pool(kind, slots=1, memory_pages=PAGES, page_bytes=page_bytes) as pool:
        victim = pool.start(pool.compiled(GUEST.format(limits=first)), workload=1)
        if grown:
            assert victim.call("grow", grown) == first
        size = (first + grown) * WASM_PAGE_BYTES
        victim.memory.write(victim.store, b"SECRET!!" * (size // 8), 0)
        assert victim.call("dirty", size) == size // 8
        victim.close()
        if kind in IN_REGION:
            pool.region.prove_clean(victim.slot.index)
        for limits in (str(first), str(PAGES), "0"):
            curious = pool.start(pool.compiled(GUEST.format(limits=limits)), workload=2)
            assert curious.slot.index == victim.slot.index
            pages = int(limits)
            if pages < PAGES:
                assert curious.call("grow", PAGES - pages) == pages
            assert curious.call("dirty", PAGES * WASM_PAGE_BYTES) == 0
            curious.close()


@in_region
def test_a_worker_killed_with_a_secret_in_its_memory_leaves_zeros(kind: str) -> None:
    size = PAGES * WASM_PAGE_BYTES
    with open_pool(kind, slots=2, memory_pages=PAGES) as pool:
        code = (
            "import os, signal, wasmtime\nfrom tests.allocation import GUEST, Pool\n"
            "from wasmpool_agent.allocators.compact import CompactAllocator\n"
            "from wasmpool_agent.allocators.guarded import GuardedAllocator\n"
            "from wasmpool_agent.engine import engine_config\nfrom wasmpool_agent.region import Region\n"
            "from wasmpool_agent.slots import SlotTable\nfrom wasmpool_api.instance_pool import Backing\n"
            "from wasmpool_api.region import RegionShape\n"
            f"shape = RegionShape(Backing.BASE_PAGES, 4096, {size}, 2, {2 * size}, {kind == 'guarded'})\n"
            f"region, table = Region.attach({pool.region.fd}, shape), SlotTable.attach({pool.table.fd})\n"
            f"a = {'GuardedAllocator' if kind == 'guarded' else 'CompactAllocator'}"
            f"(region, table, 9, memories=1, memory_pages={PAGES})\n"
            f"pool = Pool({kind!r}, region, table, a, wasmtime.Engine(engine_config(a)))\n"
            "guest = pool.start(pool.compiled(GUEST.format(limits='40')))\n"
            "guest.call('grow', 20); guest.call('fill', 0, 83, 60 * 65536)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            pass_fds=[pool.region.fd, pool.table.fd],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -9, done.stderr
        assert pool.table.owned_by(9) == [0]
        assert pool.region.native.first_dirty(0, pool.region.shape.slot_bytes) is not None
        assert pool.table.reclaim(9, pool.region) == 1
        pool.region.prove_clean(0)
        assert pool.table.counts().free == 2


@all_kinds
def test_when_all_slots_are_taken_the_next_is_told_so_with_numbers_and_a_closed_one_helps(kind: str) -> None:
    with open_pool(kind, slots=3) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        guests = [pool.start(module) for _ in range(3)]
        with pytest.raises(NoFreeSlotError, match="of 3, 3 are used, 0 are being wiped, 0 are quarantined") as refused:
            pool.start(module)
        assert refused.value.counts == SlotCounts(free=0, used=3, wiping=0, quarantined=0)
        guests[1].close()
        again = pool.start(module)
        assert again.slot.index == guests[1].slot.index
        for guest in (guests[0], guests[2], again):
            guest.close()
        assert pool.table.counts() == SlotCounts(free=3, used=0, wiping=0, quarantined=0)


@all_kinds
def test_all_slots_work_at_the_same_time_and_do_not_see_each_other(kind: str, page_bytes: int) -> None:
    with open_pool(kind, slots=5, memory_pages=3, page_bytes=page_bytes) as pool:
        module = pool.compiled(GUEST.format(limits=3))
        guests = [pool.start(module, workload=i) for i in range(5)]
        for number, guest in enumerate(guests, 1):
            guest.call("fill", 0, number, 3 * WASM_PAGE_BYTES)
        for number, guest in enumerate(guests, 1):
            assert set(guest.memory.read(guest.store, 0, 3 * WASM_PAGE_BYTES)) == {number}
        for guest in guests:
            guest.close()


@in_region
def test_a_memory_lies_inside_of_its_slot_of_the_region(kind: str, page_bytes: int) -> None:
    with open_pool(kind, slots=3, memory_pages=PAGES, page_bytes=page_bytes) as pool:
        module = pool.compiled(GUEST.format(limits=2))
        guests = [pool.start(module) for _ in range(3)]
        slot_bytes = pool.region.shape.slot_bytes
        for guest in guests:
            guest.call("fill", 0, 0x77, 2 * WASM_PAGE_BYTES)
            content = pool.region.native.read(pool.region.shape.slot_offset(guest.slot.index), slot_bytes)
            assert content.count(0x77) == 2 * WASM_PAGE_BYTES
            # Compact: at the slot's start. Guarded: it ends where the slot's pages end.
            assert content.find(0x77) == (0 if kind == "compact" else slot_bytes - 2 * WASM_PAGE_BYTES)
        for guest in guests:
            guest.close()


TWO_MEMORIES = """(module (memory (export "memory") 1) (memory $second (export "second") 2)
  (func (export "copy") (memory.copy $second 0 (i32.const 65536) (i32.const 0) (i32.const 65536)))
  (func (export "grow2") (param i32) (result i32) (memory.grow $second (local.get 0)))
  (func (export "load2") (param i32) (result i32) (i32.load8_u $second (local.get 0))))"""


@all_kinds
def test_a_slot_of_two_memories_holds_two_and_wipes_both(kind: str, page_bytes: int) -> None:
    with open_pool(kind, slots=1, memories=2, memory_pages=4, page_bytes=page_bytes) as pool:
        module = pool.compiled(TWO_MEMORIES)
        guest = pool.start(module)
        guest.memory.write(guest.store, b"\x55" * WASM_PAGE_BYTES, 0)
        guest.call("copy")
        assert [guest.call("load2", address) for address in (0, 65535, 65536, 131071)] == [0, 0, 0x55, 0x55]
        with pytest.raises(wasmtime.Trap):
            guest.call("load2", 131072)
        if kind != "on-demand":
            assert [guest.call("grow2", 2), guest.call("grow2", 1)] == [2, -1]
        guest.close()
        guest = pool.start(module)
        assert [guest.call("load2", address) for address in (0, 65535, 65536, 131071)] == [0, 0, 0, 0]
        guest.close()
        if kind in IN_REGION:
            pool.region.prove_clean(0)


@in_region
def test_a_memory_more_than_a_slot_holds_is_refused_with_both_numbers(kind: str) -> None:
    with open_pool(kind, slots=1, memories=2) as pool:
        with pytest.raises(wasmtime.WasmtimeError, match="memories: 3 are asked for, a slot holds 2"):
            pool.start(pool.compiled("(module (memory 1) (memory 1) (memory 1))"))
        with pytest.raises(wasmtime.WasmtimeError, match="memory 1 needs 327680 bytes, a slot holds 262144"):
            pool.start(pool.compiled("(module (memory 1) (memory 5))"))
        assert pool.in_region.stats().refused == 2
        assert pool.table.counts().free == 1
        pool.region.prove_clean(0)


@all_kinds
@pytest.mark.parametrize(
    ("wat", "error"),
    [
        ('(module (memory 1) (data (i32.const 65530) "too long"))', "out of bounds memory access"),
        (
            "(module (memory 1) (func $f (i32.store8 (i32.const 9) (i32.const 9)) unreachable) (start $f))",
            "unreachable",
        ),
        ('(module (import "no" "such" (func)) (memory 1))', "import"),
    ],
)
def test_an_instantiation_that_fails_loses_no_slot_and_leaves_no_byte(kind: str, wat: str, error: str) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled(wat)
        for _ in range(3):
            with pytest.raises((wasmtime.WasmtimeError, wasmtime.Trap), match=error):
                pool.start(module)
        assert pool.table.counts() == SlotCounts(free=1, used=0, wiping=0, quarantined=0)
        if kind in IN_REGION:
            pool.region.prove_clean(0)
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))
        assert guest.call("dirty", WASM_PAGE_BYTES) == 0
        guest.close()


def test_data_segments_land_and_are_gone_for_the_next_tenant(page_bytes: int) -> None:
    for kind in ALL_KINDS:
        with open_pool(kind, slots=1, page_bytes=page_bytes) as pool:
            with_data = GUEST.replace("(func", '(data (i32.const 65530) "spans two pages") (func', 1).format(limits=2)
            guest = pool.start(pool.compiled(with_data))
            assert bytes(guest.memory.read(guest.store, 65530, 65545)) == b"spans two pages"
            guest.close()
            guest = pool.start(pool.compiled(GUEST.format(limits=2)))
            assert guest.call("dirty", 2 * WASM_PAGE_BYTES) == 0
            guest.close()


@all_kinds
@pytest.mark.parametrize(
    ("wat", "named"),
    [
        ("(module (memory 1 2 shared))", "threads"),
        ("(module (memory i64 1))", "memory64|64-bit"),
        ("(module (table 1 externref))", "gc"),
        ("(module (type (struct (field i32))))", "gc"),
        ("(module (memory 1 (pagesize 1)))", "page"),
        ("(module (tag))", "exceptions"),
    ],
)
def test_what_no_slot_can_hold_is_refused_by_name_when_it_is_compiled(kind: str, wat: str, named: str) -> None:
    with open_pool(kind) as pool, pytest.raises(wasmtime.WasmtimeError, match=f"(?i){named}"):
        pool.compiled(wat)


@in_region
def test_a_memory_outside_of_a_slot_is_refused(kind: str) -> None:
    with open_pool(kind) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        with pytest.raises(wasmtime.WasmtimeError, match="outside of an instantiation in a slot"):
            wasmtime.Instance(pool.store(), module, [])
        slot = pool.allocator.allocate(1)
        with pool.allocator.initialize(slot):
            pass
        with pytest.raises(wasmtime.WasmtimeError, match="outside of an instantiation in a slot"):
            wasmtime.Instance(pool.store(), module, [])
        with pool.allocator.initialize(slot), pytest.raises(OSError, match="busy"), pool.allocator.initialize(slot):
            pass
        assert pool.allocator.deallocate(slot)
        with pytest.raises(PermissionError), pool.allocator.initialize(slot):
            pass


@in_region
def test_an_engine_with_other_settings_gets_no_memory(kind: str) -> None:
    with open_pool(kind) as pool:
        config = wasmtime.Config()
        apply_tunables(config, DEFAULT_TUNABLES)
        config.memory_init_cow = False  # else this would abort
        config.memory_guard_size = 65536
        pool.allocator.install(config)
        engine = wasmtime.Engine(config)
        slot = pool.allocator.allocate(1)
        with (
            pool.allocator.initialize(slot),
            pytest.raises(wasmtime.WasmtimeError, match=f"not those of {kind} slots: memory reservation 4294967296"),
        ):
            wasmtime.Instance(wasmtime.Store(engine), wasmtime.Module(engine, "(module (memory 1))"), [])
        pool.allocator.deallocate(slot)


@in_region
def test_a_slot_given_back_before_its_store_is_closed_is_free_once_it_is(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))
        guest.call("fill", 0, 1, WASM_PAGE_BYTES)
        assert pool.in_region.live_memories(guest.slot) == 1
        assert pool.allocator.deallocate(guest.slot) is False
        assert pool.table.counts().used == 1
        with pytest.raises(NoFreeSlotError):
            pool.allocator.allocate(1)
        guest.store.close()
        assert pool.table.counts().free == 1
        assert pool.in_region.stats().deferred == 1
        pool.region.prove_clean(0)


@all_kinds
def test_a_slot_given_back_twice_is_an_error(kind: str) -> None:
    with open_pool(kind) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))
        guest.close()
        with pytest.raises(PermissionError):
            pool.allocator.deallocate(guest.slot)
        assert pool.table.counts().free == 2


@in_region
def test_a_slot_in_an_unknown_state_is_wiped_before_its_next_use(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        slot = pool.allocator.allocate(1)
        pool.table.native.mark_dirty(slot.index, 1)
        pool.region.native.write(0, b"left behind" * 1000)
        pool.table.release(slot.index)
        assert pool.table.record(0).state is SlotState.UNKNOWN
        guest = pool.start(pool.compiled(GUEST.format(limits=4)))
        assert guest.call("dirty", 4 * WASM_PAGE_BYTES) == 0
        guest.close()
        assert pool.table.record(0).state is SlotState.FREE


@in_region
def test_the_engine_may_outlive_everything_it_was_made_from(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))
    guest.call("fill", 0, 1, WASM_PAGE_BYTES)
    assert guest.call("load8", 65535) == 1
    pool.table.close()
    del pool.allocator, pool.region, pool.table
    guest.store.close()


@in_region
def test_instances_cost_no_mapping_and_after_the_first_no_page_fault(kind: str, page_bytes: int) -> None:
    with open_pool(kind, slots=4, memory_pages=32, page_bytes=page_bytes) as pool:
        module = pool.compiled(GUEST.format(limits=32))

        def cycle() -> None:
            guest = pool.start(module)
            guest.call("fill", 0, 1, 32 * WASM_PAGE_BYTES)
            guest.close()

        for _ in range(20):
            cycle()
        maps = Path("/proc/self/maps")
        mappings = maps.read_bytes().count(b"\n")
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            cycle()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 50  # of Python's own heap
        assert maps.read_bytes().count(b"\n") - mappings <= 2


@in_region
def test_growth_leaves_no_mapping_behind(kind: str, page_bytes: int) -> None:
    with open_pool(kind, slots=1, memory_pages=PAGES, page_bytes=page_bytes) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        maps = Path("/proc/self/maps")
        pool.start(module).close()
        mappings = maps.read_bytes().count(b"\n")
        for _ in range(5):
            guest = pool.start(module)
            for step in (3, 40, 1, PAGES - 45):
                assert guest.call("grow", step) >= 0
                guest.call("fill", 0, 1, guest.call("size") * WASM_PAGE_BYTES)
            guest.close()
            pool.region.prove_clean(0)
        assert maps.read_bytes().count(b"\n") - mappings <= 2


@all_kinds
def test_a_module_that_never_fits_is_refused_before_it_is_compiled_with_every_reason(kind: str) -> None:
    with open_pool(kind, memories=2, memory_pages=4) as pool:
        pool.allocator.validate_module(ModuleNeeds(memories=2, memory_pages=4, features=("SIMD",)))
        with pytest.raises(ModuleRefusedError) as refused:
            pool.allocator.validate_module(ModuleNeeds(memories=3, memory_pages=5, features=("SharedMemory", "SIMD")))
        assert refused.value.problems == (
            "the module needs SharedMemory, which this agent does not support",
            "memories: the module needs 3, a slot holds 2",
            "memoryPages: the module needs 5, a slot's memory has 4",
        )


def test_slots_that_do_not_fit_the_region_are_refused() -> None:
    with open_pool("compact", slots=2, memory_pages=4) as pool:
        for memories, pages in ((1, 5), (0, 4), (3, 4), (1, 0)):
            with pytest.raises(EngineRefusedError):
                CompactAllocator(pool.region, pool.table, 1, memories=memories, memory_pages=pages)


def test_a_guest_gets_the_same_answers_from_every_allocator() -> None:
    answers = {}
    for kind in ALL_KINDS:
        with open_pool(kind, memory_pages=40) as pool:
            guest = pool.start(pool.compiled(GUEST.format(limits="2 40")))
            answers[kind] = [
                guest.call("size"),
                guest.call("grow", 3),
                guest.call("fill", 7, 0xAB, 300_000),
                guest.call("load32", 299_998),
                guest.call("dirty", 327_680),
                guest.call("grow", 36),
                guest.call("grow", 35),
                guest.call("size"),
            ]
            guest.close()
    assert len({tuple(answer) for answer in answers.values()}) == 1, answers


def test_the_configuration_is_the_allocators_to_the_end() -> None:
    """The creator's owner is the configuration: dropping one that no engine used gives everything back."""
    with open_pool("guarded") as pool:
        before = Path("/proc/self/maps").read_bytes().count(b"\n")
        for _ in range(20):
            engine_config(pool.allocator).close()
        assert Path("/proc/self/maps").read_bytes().count(b"\n") <= before + 1
