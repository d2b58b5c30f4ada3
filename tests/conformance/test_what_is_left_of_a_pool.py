"""Cases that allocators are seldom tested for, each of which could give one tenant's bytes to another, or end a worker.

Covers: a process that is forked while guests live; a store that is closed by another thread; two pools in one process;
exceptions and traps while a memory is being made; a second memory that is refused; a clearing of huge pages that the
kernel rounds down to nothing.
"""

import ctypes
import gc
import mmap
import os
import threading
from collections.abc import Callable

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, GUEST, IN_REGION, Guest, open_pool
from tests.hugepages.reservation import HUGE_PAGE_BYTES
from wasmpool_agent.slots import SlotCounts, SlotState
from wasmpool_api.limits import WASM_PAGE_BYTES

all_kinds = pytest.mark.parametrize("kind", ALL_KINDS)
in_region = pytest.mark.parametrize("kind", IN_REGION)
ONE_FREE = SlotCounts(free=1, used=0, wiping=0, quarantined=0)


def in_a_fork(action: Callable[[], bool]) -> int:
    """The child's wait status: its exit code is 0 where the action says True."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@in_region
def test_a_fork_that_closes_its_copy_of_a_store_takes_nothing_from_the_guest_that_lives_on(kind: str) -> None:
    with open_pool(kind, slots=1, memory_pages=40) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits="1 40")))
        guest.call("grow", 35)
        guest.call("fill", 0, 0x33, 36 * WASM_PAGE_BYTES)

        def close() -> bool:
            guest.store.close()
            gc.collect()
            return True

        assert in_a_fork(close) == 0
        assert guest.call("load8", 0) == guest.call("load8", 36 * WASM_PAGE_BYTES - 1) == 0x33
        assert bytes(guest.memory.read(guest.store, 0, 36 * WASM_PAGE_BYTES)).count(0x33) == 36 * WASM_PAGE_BYTES
        assert pool.table.record(guest.slot.index).state is SlotState.USED
        guest.close()
        pool.region.prove_clean(0)
        assert pool.table.counts() == ONE_FREE


@in_region
def test_a_fork_gets_no_memory_cannot_grow_one_and_gives_no_slot_back(kind: str) -> None:
    with open_pool(kind, slots=2) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        guest = pool.start(module)
        spare = pool.allocator.allocate(1)

        def instantiate() -> bool:
            try:
                with pool.allocator.initialize(spare):
                    wasmtime.Instance(pool.store(), module, [])
            except PermissionError:
                return True
            return False

        def grow() -> bool:
            return bool(guest.call("grow", 1) == -1)

        def deallocate() -> bool:
            try:
                pool.allocator.deallocate(spare)
            except PermissionError:
                return True
            return False

        assert [in_a_fork(action) for action in (instantiate, grow, deallocate)] == [0, 0, 0]
        assert pool.table.counts().used == 2
        assert guest.call("grow", 1) == 1
        guest.close()
        assert pool.allocator.deallocate(spare)


@in_region
def test_a_fork_in_the_middle_of_an_instantiation_gets_no_memory_and_the_parent_its_own(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        slot, store = pool.allocator.allocate(1), pool.store()

        def instantiate() -> bool:
            try:
                wasmtime.Instance(pool.store(), module, [])
            except wasmtime.WasmtimeError as error:
                return "outside of an instantiation in a slot" in str(error)
            return False

        with pool.allocator.initialize(slot):
            assert in_a_fork(instantiate) == 0
            guest = Guest(pool, slot, store, wasmtime.Instance(store, module, []))
        assert pool.in_region.live_memories(slot) == 1
        assert guest.call("dirty", WASM_PAGE_BYTES) == 0
        guest.close()
        assert pool.table.counts() == ONE_FREE


@all_kinds
def test_a_store_may_be_closed_by_another_thread_than_the_one_that_made_it(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled(GUEST.format(limits=2))
        for _ in range(3):
            guest = pool.start(module)
            guest.call("fill", 0, 1, 2 * WASM_PAGE_BYTES)
            thread = threading.Thread(target=guest.close)
            thread.start()
            thread.join()
            assert pool.table.counts() == ONE_FREE
            if kind in IN_REGION:
                pool.region.prove_clean(0)


@in_region
def test_of_two_pools_in_one_process_neither_takes_the_others_slot(kind: str) -> None:
    with open_pool(kind) as one, open_pool(kind) as other:
        slot = other.allocator.allocate(1)
        module = one.compiled(GUEST.format(limits=1))
        with (
            other.allocator.initialize(slot),
            pytest.raises(wasmtime.WasmtimeError, match="outside of an instantiation in a slot"),
        ):
            wasmtime.Instance(one.store(), module, [])
        assert other.in_region.live_memories(slot) == 0
        assert other.allocator.deallocate(slot)


STARTS = """(module (import "host" "call" (func $call)) (memory (export "memory") 1) (memory 1)
 (data (i32.const 0) "SECRET")
 (start $start) (func $start (i32.store (i32.const 100) (i32.const -1)) (call $call)))"""


class HostError(Exception):
    """What a host function raises."""


@all_kinds
def test_an_exception_of_the_host_while_an_instance_starts_comes_out_and_takes_the_slot_along(kind: str) -> None:
    def call() -> None:
        raise HostError

    with open_pool(kind, slots=1, memories=2) as pool:
        module = pool.compiled(STARTS)
        for _ in range(3):
            slot = pool.allocator.allocate(1)
            store = pool.store()
            function = wasmtime.Func(store, wasmtime.FuncType([], []), call)
            with pytest.raises(HostError), pool.allocator.initialize(slot):
                wasmtime.Instance(store, module, [function])
            store.close()
            assert pool.allocator.deallocate(slot)
            assert pool.table.counts() == ONE_FREE
            if kind in IN_REGION:
                pool.region.prove_clean(0)
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))  # the thread's last placement has ended
        assert guest.call("dirty", WASM_PAGE_BYTES) == 0
        guest.close()


@in_region
def test_when_a_second_memory_is_refused_the_first_ends_at_once_and_is_wiped(kind: str) -> None:
    with open_pool(kind, slots=1, memories=3) as pool:
        module = pool.compiled('(module (memory 1) (memory 5) (memory 1) (data (i32.const 0) "SECRET"))')
        slot = pool.allocator.allocate(1)
        store = pool.store()
        for attempt in range(1, 4):
            with (
                pool.allocator.initialize(slot),
                pytest.raises(wasmtime.WasmtimeError, match="memory 1 needs 327680 bytes, a slot holds 262144"),
            ):
                wasmtime.Instance(store, module, [])
            assert pool.in_region.live_memories(slot) == 0
            assert (pool.in_region.stats().memories, pool.in_region.stats().refused) == (attempt, attempt)
            pool.region.prove_clean(0)
        store.close()
        assert pool.allocator.deallocate(slot)
        assert pool.table.counts() == ONE_FREE


@pytest.mark.hugepages
@pytest.mark.usefixtures("borrowed")
@pytest.mark.parametrize("kind", ["compact", "guarded"])
def test_part_of_a_huge_page_is_cleared_although_the_kernels_own_way_clears_nothing(kind: str) -> None:
    with open_pool(kind, slots=1, memory_pages=32, page_bytes=HUGE_PAGE_BYTES) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits=1)))
        guest.call("fill", 0, 0x44, WASM_PAGE_BYTES)
        content = pool.region.native.read(0, HUGE_PAGE_BYTES)
        at = content.find(0x44)
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.c_void_p(pool.region.native.address + at // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES)
        assert libc.madvise(address, ctypes.c_size_t(WASM_PAGE_BYTES), mmap.MADV_DONTNEED) == 0  # success, it says
        assert pool.region.native.read(0, HUGE_PAGE_BYTES) == content
        guest.close()
        pool.region.prove_clean(0)
