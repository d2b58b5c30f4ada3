"""How memories of a pool behave: what Wasmtime's own pooling allocator is tested for, asked of every allocator.

Covers: data segments that overlap, span pages, come and go with the module, and outlive it; what another tenant left
behind a smaller memory's end; memories of no pages; memories that are imported; instantiations that fail after the data
landed, or because of one store's own limits; bases that do not move; counts that are exact; every
slot of a pool again and again, in whatever order.

What tests/unit/agent/test_allocators.py holds already is not repeated: exhaustion, zeros after reuse, refusals by name.
"""

import gc
import random

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, GUEST, IN_REGION, Guest, Pool, open_pool
from tests.conformance.host_access import base_of
from tests.conformance.paging import Paging
from wasmpool_agent.slots import SlotCounts
from wasmpool_api.instance_pool import AllocationStrategy
from wasmpool_api.limits import WASM_PAGE_BYTES

POOLED = (*IN_REGION, "base-pages")

all_kinds = pytest.mark.parametrize("kind", ALL_KINDS)
pooled = pytest.mark.parametrize("kind", POOLED)
in_region = pytest.mark.parametrize("kind", IN_REGION)


def content(guest: Guest, start: int, end: int) -> bytes:
    return bytes(guest.memory.read(guest.store, start, end))


def with_data(limits: str, *segments: tuple[int, str]) -> str:
    """The usual guest with active data segments, each at its address."""
    data = "".join(f'(data (i32.const {address}) "{text}")' for address, text in segments)
    return GUEST.replace("(func", f"{data} (func", 1).format(limits=limits)


@all_kinds
def test_of_segments_that_overlap_the_later_one_counts_and_they_may_span_pages(kind: str, paging: Paging) -> None:
    segments = ((0, "first"), (3, "SECOND"), (65534, "span"), (131071, "!"), (100, ""), (0, "F"))
    with open_pool(kind, **paging) as pool:
        guest = pool.start(pool.compiled(with_data("2", *segments)))
        assert content(guest, 0, 10) == b"FirSECOND\0"
        assert content(guest, 65533, 65539) == b"\0span\0"
        assert content(guest, 131070, 131072) == b"\0!"
        assert content(guest, 10, 65534) == bytes(65524)
        guest.close()


@all_kinds
def test_a_slot_serves_modules_with_and_without_data_in_turn_and_each_sees_its_own(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        modules = {
            text: pool.compiled(with_data("1 4", *((address, text) for address in addresses)))
            for text, addresses in (("image", (0, 4096)), ("", ()), ("another", (8, 65000)))
        }
        for text in ("image", "", "image", "another", "", "another", "image", "image"):
            guest = pool.start(modules[text])
            expected = bytearray(4 * WASM_PAGE_BYTES)
            for address in {"image": (0, 4096), "another": (8, 65000), "": ()}[text]:
                expected[address : address + len(text)] = text.encode()
            assert guest.call("grow", 3) == 1
            assert content(guest, 0, len(expected)) == expected, text
            guest.call("fill", 0, 0xEE, 4 * WASM_PAGE_BYTES)  # the image is a copy: writing works, and stays here
            guest.close()


@all_kinds
def test_passive_data_outlives_the_module_that_brought_it(kind: str) -> None:
    passive = '(module (memory (export "memory") 1) (data $d "kept") (func (export "init") (memory.init $d {})))'
    with open_pool(kind) as pool:
        module = pool.compiled(passive.format("(i32.const 7) (i32.const 0) (i32.const 4)"))
        guest = pool.start(module)
        module.close()
        del module
        gc.collect()
        other = pool.start(pool.compiled(with_data("1", (0, "another module in its place"))))
        guest.call("init")
        assert content(guest, 6, 12) == b"\0kept\0"
        guest.close()
        other.close()


@all_kinds
def test_behind_the_end_of_a_smaller_memory_the_last_tenants_larger_one_is_out_of_reach(
    kind: str, paging: Paging
) -> None:
    # Addresses and offsets that are constants: a compiler may check them differently from those it doesn't know.
    constant = "".join(
        f'(func (export "{page}") (result i32) (i32.load8_u offset={page * WASM_PAGE_BYTES} (i32.const 0)))'
        for page in range(20)
    )
    reading = GUEST.replace("(func", f"{constant} (func", 1)
    with open_pool(kind, slots=1, memory_pages=20, **paging) as pool:
        large = pool.start(pool.compiled(GUEST.format(limits="1 20")))
        assert large.call("grow", 19) == 1
        large.call("fill", 0, 0x5E, 20 * WASM_PAGE_BYTES)
        large.close()
        small = pool.start(pool.compiled(reading.format(limits="5 20")))
        for grown in (5, 7, 20):
            assert small.call("grow", grown - small.call("size")) >= 0
            for page in range(20):
                if page < grown:
                    assert small.call(str(page)) == 0
                else:
                    with pytest.raises(wasmtime.Trap, match="out of bounds memory access"):
                        small.call(str(page))
        small.close()


@all_kinds
@pytest.mark.parametrize("limits", ["0", "0 0", "0 3"])
def test_of_a_memory_without_pages_no_address_and_no_offset_can_be_used(kind: str, limits: str) -> None:
    offsets = [0, *(2**power for power in range(32)), 2**32 - 1]
    functions = "".join(
        f'(func (export "load{offset}") (param i32) (result i32) (i32.load8_u offset={offset} (local.get 0)))'
        f'(func (export "store{offset}") (param i32) (i32.store8 offset={offset} (local.get 0) (i32.const 1)))'
        for offset in offsets
    )
    with open_pool(kind, slots=1, memory_pages=3) as pool:
        victim = pool.start(pool.compiled(GUEST.format(limits=3)))
        victim.call("fill", 0, 0x11, 3 * WASM_PAGE_BYTES)
        victim.close()
        guest = pool.start(pool.compiled(f'(module (memory (export "memory") {limits}) {functions})'))
        for offset in offsets:
            for address in offsets:
                for access in ("load", "store"):
                    with pytest.raises(wasmtime.Trap, match="out of bounds memory access"):
                        guest.call(f"{access}{offset}", address)
        guest.close()


@all_kinds
def test_an_imported_memory_and_an_own_one_are_kept_apart(kind: str) -> None:
    sharing = """(module (import "m" "memory" (memory 1)) (memory $own (export "own") 1)
      (data (memory $own) (i32.const 2) "own")
      (func (export "set") (i32.store8 0 (i32.const 0) (i32.const 1)) (i32.store8 $own (i32.const 0) (i32.const 2)))
      (func (export "get") (result i32) (i32.add (i32.load8_u 0 (i32.const 0)) (i32.load8_u $own (i32.const 0)))))"""
    with open_pool(kind) as pool:
        owner = pool.start(pool.compiled(with_data("1", (2, "imported"))))
        slot = pool.allocator.allocate(1)
        with pool.allocator.initialize(slot):
            user = wasmtime.Instance(owner.store, pool.compiled(sharing), [owner.memory]).exports(owner.store)
        own, set_, get = user["own"], user["set"], user["get"]
        assert isinstance(own, wasmtime.Memory)
        assert isinstance(set_, wasmtime.Func)
        assert isinstance(get, wasmtime.Func)
        set_(owner.store)
        assert get(owner.store) == 3
        assert content(owner, 0, 10) == b"\1\0imported"
        assert bytes(own.read(owner.store, 0, 6)) == b"\2\0own\0"
        if kind in IN_REGION:
            assert [pool.in_region.live_memories(taken) for taken in (owner.slot, slot)] == [1, 1]
        owner.close()
        assert pool.allocator.deallocate(slot)


@all_kinds
def test_an_instantiation_that_fails_after_its_data_landed_leaves_none_of_it(kind: str) -> None:
    failing = (
        '(module (memory 2) (data (i32.const 0) "SECRET") (table 1 funcref) (elem (i32.const 1) $f) (func $f))',
        '(module (memory 2) (data (i32.const 0) "SECRET") (func $f unreachable) (start $f))',
        '(module (memory 2) (data (i32.const 0) "SECRET") (data (i32.const 131070) "beyond"))',
        '(module (memory 2) (global (mut funcref) (ref.func $f)) (data (i32.const 131072) "x") (func $f))',
    )
    with open_pool(kind, slots=1) as pool:
        for wat in failing:
            for _ in range(3):
                with pytest.raises(wasmtime.Trap):
                    pool.start(pool.compiled(wat))
                guest = pool.start(pool.compiled(GUEST.format(limits=2)))
                assert guest.call("dirty", 2 * WASM_PAGE_BYTES) == 0
                guest.close()
        assert pool.table.counts() == SlotCounts(free=1, used=0, wiping=0, quarantined=0)


@all_kinds
def test_a_stores_own_lower_limit_holds_for_its_guest_alone(kind: str) -> None:
    with open_pool(kind, slots=1) as pool:
        module = pool.compiled(GUEST.format(limits="1 4"))
        for pages, tables, refused in ((0, 1, True), (1, 1, False), (3, 1, False), (4, 0, False)):
            slot = pool.allocator.allocate(1)
            store = pool.store()
            store.set_limits(memory_size=pages * WASM_PAGE_BYTES, tables=tables)
            with pool.allocator.initialize(slot):
                if refused:
                    with pytest.raises(wasmtime.WasmtimeError, match="exceeds memory limits"):
                        wasmtime.Instance(store, module, [])
                    store.close()
                    assert pool.allocator.deallocate(slot)
                    continue
                guest = Guest(pool, slot, store, wasmtime.Instance(store, module, []))
            for grown in range(1, pages):
                assert guest.call("grow", 1) == grown
            if pages < 4:
                assert guest.call("grow", 1) == -1
            assert guest.call("size") == pages
            guest.close()
        guest = pool.start(module)
        assert guest.call("grow", 3) == 1
        guest.close()


@pooled
def test_growth_moves_neither_a_memory_nor_a_byte_in_it(kind: str, paging: Paging) -> None:
    with open_pool(kind, memory_pages=70, **paging) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits="1 70")))
        base, expected = base_of(guest), bytearray(WASM_PAGE_BYTES)
        for number, step in enumerate((1, 29, 2, 1, 31, 5), 1):
            guest.memory.write(guest.store, bytes([number]) * WASM_PAGE_BYTES, len(expected) - WASM_PAGE_BYTES)
            expected[-WASM_PAGE_BYTES:] = bytes([number]) * WASM_PAGE_BYTES
            assert guest.call("grow", step) >= 0
            expected += bytes(step * WASM_PAGE_BYTES)
            assert base_of(guest) == base
            assert content(guest, 0, len(expected)) == expected
        guest.close()


@all_kinds
def test_a_host_that_grows_a_memory_is_held_to_the_same_end_as_its_guest(kind: str, paging: Paging) -> None:
    with open_pool(kind, memory_pages=40, **paging) as pool:
        guest = pool.start(pool.compiled(GUEST.format(limits="0 100")))
        if kind == "on-demand":  # only the store's limiter, which is the worker's, stops it
            guest.store.set_limits(memory_size=40 * WASM_PAGE_BYTES)
        for step, before in ((0, 0), (1, 0), (33, 1), (6, 34)):
            assert guest.memory.grow(guest.store, step) == before
        for step in (1, 60, 65536):
            with pytest.raises(wasmtime.WasmtimeError, match="failed to grow memory"):
                guest.memory.grow(guest.store, step)
        assert guest.call("size") == guest.memory.size(guest.store) == 40
        guest.memory.write(guest.store, b"end", 40 * WASM_PAGE_BYTES - 3)
        assert content(guest, 0, 40 * WASM_PAGE_BYTES) == bytes(40 * WASM_PAGE_BYTES - 3) + b"end"
        guest.close()


@in_region
def test_memories_are_counted_one_by_one_and_none_is_made_that_no_module_declares(kind: str) -> None:
    declaring = {
        "(module)": 0,
        '(module (table 10 funcref) (func $f) (elem (i32.const 0) $f) (global funcref (ref.func $f)) (data "x"))': 0,
        "(module (memory 0))": 1,
        "(module (memory 1) (memory 0) (memory 4))": 3,
    }
    with open_pool(kind, slots=4, memories=3) as pool:
        made = 0
        guests: list[Guest] = []
        for wat, memories in declaring.items():
            guest = pool.start(pool.compiled(wat))
            made += memories
            assert pool.in_region.live_memories(guest.slot) == memories
            assert pool.in_region.stats().memories == made
            guests.append(guest)
        for guest in guests:
            guest.store.close()
            assert pool.in_region.live_memories(guest.slot) == 0
            assert pool.allocator.deallocate(guest.slot)
        assert pool.in_region.stats().memories == made


def shuffled_round(pool: Pool, module: wasmtime.Module, order: random.Random) -> set[int]:
    """Fills the pool, sees that each guest has a memory of its own, and empties it in another order."""
    guests = [pool.start(module, workload=number) for number in range(pool.table.slots)]
    for number, guest in enumerate(guests, 1):
        assert guest.call("dirty", WASM_PAGE_BYTES) == 0
        guest.call("fill", 0, number, WASM_PAGE_BYTES)
    for number, guest in enumerate(guests, 1):
        assert content(guest, 0, WASM_PAGE_BYTES) == bytes([number]) * WASM_PAGE_BYTES
    order.shuffle(guests)
    for guest in guests:
        guest.close()
    return {guest.slot.index for guest in guests}


@all_kinds
@pytest.mark.parametrize("strategy", list(AllocationStrategy))
def test_every_slot_can_be_used_again_and_again_in_any_order(kind: str, strategy: AllocationStrategy) -> None:
    order = random.Random(26)  # noqa: S311 -- an order, no secret
    with open_pool(kind, slots=10, memory_pages=1, strategy=strategy) as pool:
        module = pool.compiled(GUEST.format(limits=1))
        for _ in range(3):
            assert shuffled_round(pool, module, order) == set(range(10))
            assert pool.table.counts().free == 10
