"""Traps are exact: an access traps if, and only if, one of its bytes lies behind the memory's end. Every allocator.

Covers: loads and stores of 1, 2, 4, 8 and 16 bytes, with offsets and addresses around 64 KiB, 2 MiB, the end of the
memory, the end of the slot and what an index reaches; sizes around the same ends; before growth, after it, and where it
is refused; addresses the compiler knows; memory.fill, memory.copy and memory.init; that a store that traps writes
nothing; and every single byte of a memory of one page.
"""

from collections.abc import Iterator
from typing import Final

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, Guest, Pool, open_pool
from tests.conformance.paging import Paging
from wasmpool_api.limits import WASM_PAGE_BYTES

MIB: Final = 1024 * 1024
SLOT_PAGES: Final = 80
"""Two and a half huge pages: a compact slot ends inside of one, a guarded slot's memory begins inside of one."""
WIDTHS: Final = {1: "i32.{}8{}", 2: "i32.{}16{}", 4: "i32.{}", 8: "i64.{}", 16: "v128.{}"}
OFFSETS: Final = (
    0,
    1,
    WASM_PAGE_BYTES - 1,
    WASM_PAGE_BYTES,
    2 * MIB - 1,
    2 * MIB,
    SLOT_PAGES * WASM_PAGE_BYTES,
    32 * MIB - 1,  # the last offset for which Wasmtime relies on a guard of 32 MiB ...
    32 * MIB,
    2**31,
    2**32 - 1,
)
SIZES: Final = ((0, 1), (1, 1), (1, 31), (31, 1), (32, 1), (33, 31), (63, 1), (64, 16), (79, 1), (80, 1))
"""Pages at first, and by how many it grows then; the last one can't."""


def _functions() -> Iterator[str]:
    for width, name in WIDTHS.items():
        constant = {8: "(i64.const -1)", 16: "(v128.const i64x2 -1 -1)"}.get(width, "(i32.const -1)")
        load = name.format("load", "_u") if width < 4 else name.format("load")
        store = name.format("store", "") if width < 4 else name.format("store")
        for offset in OFFSETS:
            access = f"offset={offset} (local.get 0)"
            yield f'(func (export "load{width}+{offset}") (param i32) (drop ({load} {access})))'
            yield f'(func (export "store{width}+{offset}") (param i32) ({store} {access} {constant}))'


GUEST: Final = f"""(module (memory (export "memory") {{limits}}) (data $d "0123456789abcdef")
 (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
 (func (export "read up to") (param i32) (local i32)
  (loop (drop (i32.load8_u (local.get 1))) (br_if 0 (i32.le_u (local.tee 1 (i32.add (local.get 1) (i32.const 1)))
   (local.get 0)))))
 (func (export "fill") (param i32 i32) (memory.fill (local.get 0) (i32.const 255) (local.get 1)))
 (func (export "copy to") (param i32 i32) (memory.copy (local.get 0) (i32.const 0) (local.get 1)))
 (func (export "copy from") (param i32 i32) (memory.copy (i32.const 0) (local.get 0) (local.get 1)))
 (func (export "init") (param i32 i32) (memory.init $d (local.get 0) (i32.const 0) (local.get 1)))
 {{more}} {" ".join(_functions())})"""


def guest_of(pool: Pool, limits: str, more: str = "") -> Guest:
    return pool.start(pool.compiled(GUEST.format(limits=limits, more=more)))


def traps(guest: Guest, name: str, *arguments: int) -> bool:
    """True for exactly the trap that is expected; any other is an error."""
    try:
        guest.call(name, *arguments)
    except wasmtime.Trap as trap:
        if trap.trap_code is not wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS:
            raise
        return True
    return False


def addresses(size: int, width: int, offset: int) -> list[int]:
    """Those whose access ends at, just before or just behind some end; those that lie on an end themselves."""
    ends = {0, WASM_PAGE_BYTES, 2 * MIB, size, size + 4096, SLOT_PAGES * WASM_PAGE_BYTES, 6 * MIB, 2**31, 2**32}
    around = {end + step for end in ends for step in (-offset - width, -offset - width + 1, -offset, -width, -1, 0)}
    return sorted(address for address in around if 0 <= address < 2**32)


def assert_traps_are_exact(guest: Guest, pages: int) -> None:
    size = pages * WASM_PAGE_BYTES
    for width in WIDTHS:
        for offset in OFFSETS:
            for address in addresses(size, width, offset):
                outside = address + offset + width > size
                for access in ("load", "store"):
                    assert traps(guest, f"{access}{width}+{offset}", address) == outside, (
                        f"{access} of {width} bytes at {address:#x} + {offset:#x} in {size:#x} bytes"
                    )


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize(("first", "step"), SIZES)
def test_loads_and_stores_trap_at_the_end_before_and_after_growth(
    kind: str, first: int, step: int, paging: Paging
) -> None:
    with open_pool(kind, slots=2, memory_pages=SLOT_PAGES, **paging) as pool:
        neighbour = guest_of(pool, str(SLOT_PAGES))  # so that what lies behind a slot is somebody's
        guest = guest_of(pool, f"{first} {SLOT_PAGES}")
        assert_traps_are_exact(guest, first)
        grown = guest.call("grow", step)
        assert grown == (first if first + step <= SLOT_PAGES else -1)
        assert_traps_are_exact(guest, first + step if grown >= 0 else first)
        assert not any(neighbour.memory.read(neighbour.store, 0, SLOT_PAGES * WASM_PAGE_BYTES))
        guest.close()
        neighbour.close()


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("pages", [1, 31, 32, 33, 79])
def test_addresses_that_the_compiler_knows_are_checked_as_exactly(kind: str, pages: int, paging: Paging) -> None:
    ends = [pages * WASM_PAGE_BYTES, (pages + 1) * WASM_PAGE_BYTES, 2 * MIB, SLOT_PAGES * WASM_PAGE_BYTES, 2**32]
    known = sorted({end - back for end in ends for back in (0, 1, 3, 4, 5) if end - back < 2**32})
    functions = "".join(
        f'(func (export "at{address}") (drop (i32.load (i32.const {address}))))'
        f'(func (export "over{address}") (drop (i32.load offset={address} (i32.const 0))))'
        for address in known
    )
    with open_pool(kind, memory_pages=SLOT_PAGES, **paging) as pool:
        guest = guest_of(pool, f"{pages} {SLOT_PAGES}", functions)
        for grown in (0, 1):
            assert guest.call("grow", grown) == pages
            size = (pages + grown) * WASM_PAGE_BYTES
            for address in known:
                assert traps(guest, f"at{address}") == (address + 4 > size), hex(address)
                assert traps(guest, f"over{address}") == (address + 4 > size), hex(address)
        guest.close()


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("pages", [1, 32, 33, 80])
def test_bulk_operations_trap_at_the_end_and_then_have_written_nothing(kind: str, pages: int, paging: Paging) -> None:
    size = pages * WASM_PAGE_BYTES
    with open_pool(kind, memory_pages=SLOT_PAGES, **paging) as pool:
        guest = guest_of(pool, f"{pages} {SLOT_PAGES}")
        for name in ("fill", "copy to", "copy from", "init"):
            for length in (0, 1, 16):
                for address in (size - 17, size - 16, size - 15, size - 1, size, size + 1, 2**32 - 1):
                    guest.memory.write(guest.store, b"x" * 16, size - 16)
                    before = bytes(guest.memory.read(guest.store, size - 32, size))
                    outside = address + length > size
                    assert traps(guest, name, address, length) == outside, (name, hex(address), length)
                    if outside:
                        assert guest.memory.read(guest.store, size - 32, size) == before
        guest.close()


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("pages", [1, 32, 80])
def test_a_store_across_the_end_writes_no_byte(kind: str, pages: int, paging: Paging) -> None:
    size = pages * WASM_PAGE_BYTES
    with open_pool(kind, memory_pages=SLOT_PAGES, **paging) as pool:
        guest = guest_of(pool, f"{pages} {SLOT_PAGES}")
        for width in WIDTHS:
            for inside in range(width):
                assert traps(guest, f"store{width}+0", size - inside)
        assert not any(guest.memory.read(guest.store, 0, size))
        guest.close()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_byte_of_one_page_can_be_read_and_the_next_one_not(kind: str, paging: Paging) -> None:
    with open_pool(kind, memory_pages=SLOT_PAGES, **paging) as pool:
        guest = guest_of(pool, "1 1")
        assert not traps(guest, "read up to", WASM_PAGE_BYTES - 1)
        assert traps(guest, "read up to", WASM_PAGE_BYTES)
        guest.close()
