"""What a pool sets aside beside memories: tables, and the stacks of guests that are suspended.

Covers: element segments; tables that are null again for the next tenant, also where the last one grew; growth to the
limit and then -1; tables of no elements; as many tables and suspended guests as there are slots, in each round anew.
"""

from collections.abc import Callable

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, Guest, Pool, open_pool
from wasmpool_agent.allocators import NoFreeSlotError, Slot
from wasmpool_agent.wasmtime_async import Call, HostFunctions
from wasmpool_api.limits import ModuleLimits

ELEMENTS = ModuleLimits().table_elements
"""What the pools of these tests allow; on-demand and slots of the region leave that to the store's limits."""

TABLE = """(module (table (export "table") {limits} funcref)
 (func (export "grow") (param i32) (result i32) (table.grow (ref.null func) (local.get 0)))
 (func (export "size") (result i32) (table.size 0))
 (func (export "set") (param i32) (table.set (local.get 0) (ref.func $seven)))
 (func (export "is_null") (param i32) (result i32) (ref.is_null (table.get (local.get 0))))
 (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
 (func $seven (result i32) (i32.const 7)) (func $eight (result i32) (i32.const 8))
 (elem declare func $seven $eight) {elements})"""

all_kinds = pytest.mark.parametrize("kind", ALL_KINDS)


def start(pool: Pool, module: wasmtime.Module) -> Guest:
    """With the limits that the worker sets for tables."""
    slot = pool.allocator.allocate(1)
    store = pool.store()
    store.set_limits(table_elements=ELEMENTS)
    with pool.allocator.initialize(slot):
        instance = wasmtime.Instance(store, module, [])
    return Guest(pool, slot, store, instance)


@all_kinds
def test_elements_land_where_their_segments_say_and_the_others_are_null(kind: str) -> None:
    elements = "(elem (i32.const 1) $seven $eight) (elem (i32.const 9) $eight) (elem (i32.const 2) $seven)"
    with open_pool(kind) as pool:
        guest = start(pool, pool.compiled(TABLE.format(limits=10, elements=elements)))
        assert [guest.call("call", index) for index in (1, 2, 9)] == [7, 7, 8]
        for index in (0, 3, 8):
            assert guest.call("is_null", index) == 1
            with pytest.raises(wasmtime.Trap, match="uninitialized element"):
                guest.call("call", index)
        with pytest.raises(wasmtime.Trap, match="undefined element"):
            guest.call("call", 10)
        guest.close()


@all_kinds
@pytest.mark.parametrize("first", [0, 1, 10])
def test_the_next_tenant_of_a_table_finds_nulls_and_no_more_elements_than_its_own(kind: str, first: int) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled(TABLE.format(limits=first, elements=""))
        for _ in range(5):
            guest = start(pool, module)
            assert guest.call("size") == first
            with pytest.raises(wasmtime.Trap, match="undefined element: out of bounds table access"):
                guest.call("call", first)
            assert guest.call("grow", 100) == first
            assert [guest.call("is_null", index) for index in range(first + 100)] == [1] * (first + 100)
            for index in range(first + 100):
                guest.call("set", index)
            assert guest.call("call", first + 99) == 7
            guest.close()


@all_kinds
def test_a_table_grows_to_the_limit_and_not_by_one_element_more(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        guest = start(pool, pool.compiled(TABLE.format(limits="4 100000", elements="")))
        assert guest.call("grow", ELEMENTS - 5) == 4
        assert [guest.call("grow", step) for step in (2, 1, 1, 0, 2**31)] == [-1, ELEMENTS - 1, -1, ELEMENTS, -1]
        guest.call("set", ELEMENTS - 1)
        assert guest.call("call", ELEMENTS - 1) == 7
        guest.close()
        with pytest.raises(wasmtime.WasmtimeError, match=f"{ELEMENTS + 1}.* exceeds"):
            start(pool, pool.compiled(TABLE.format(limits=ELEMENTS + 1, elements="")))


@all_kinds
def test_a_table_of_no_elements_and_a_memory_of_no_pages_need_nothing(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled('(module (table (export "table") 0 funcref) (memory (export "memory") 0))')
        for _ in range(3):
            guest = start(pool, module)
            assert guest.memory.data_len(guest.store) == 0
            guest.close()


@all_kinds
def test_there_are_as_many_tables_as_slots_and_all_come_back(kind: str) -> None:
    with open_pool(kind, slots=4) as pool:
        module = pool.compiled(TABLE.format(limits=10, elements="(elem (i32.const 0) $eight)"))
        for _ in range(3):
            guests = [start(pool, module) for _ in range(4)]
            assert [guest.call("call", 0) for guest in guests] == [8] * 4
            with pytest.raises(NoFreeSlotError):
                start(pool, module)
            for guest in guests:
                guest.close()


WAITING = """(module (import "host" "wait" (func $wait (result i32))) (memory (export "memory") 1)
 (func (export "run") (i32.store (i32.const 0) (call $wait))))"""


class Never:
    """A wait that only ends with its guest."""

    def ready(self) -> bool:
        return False

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        del wake
        return lambda: None


class Suspended:
    """A guest that waits in a host call, on a stack of its own."""

    def __init__(self, pool: Pool, functions: HostFunctions[object], module: wasmtime.InstancePre) -> None:
        self.pool = pool
        self.slot: Slot = pool.allocator.allocate(1)
        self.store = pool.store()
        self.made: Call[object] = functions.instantiate(module, self.store, self)
        with pool.allocator.initialize(self.slot):
            assert self.made.poll()
        call = functions.call(self.store, self.made, "run", self)
        assert call is not None
        self.call = call
        assert not self.call.poll()

    def end(self) -> None:
        self.call.close()
        self.made.close()
        self.store.close()
        assert self.pool.allocator.deallocate(self.slot)


@all_kinds
def test_every_slot_can_hold_a_suspended_guest_whose_stack_comes_back_when_it_is_dropped(kind: str) -> None:
    with open_pool(kind, slots=6) as pool:
        functions: HostFunctions[object] = HostFunctions(pool.engine)
        functions.define_waiting("host", "wait", "", lambda _caller, _arguments: Never())
        module = functions.linker.instantiate_pre(pool.compiled(WAITING))
        for _ in range(4):
            guests = [Suspended(pool, functions, module) for _ in range(6)]
            with pytest.raises(NoFreeSlotError):
                Suspended(pool, functions, module)
            for guest in guests[3:] + guests[:3]:
                assert not guest.call.poll()
                guest.end()
            assert pool.table.counts().free == 6
