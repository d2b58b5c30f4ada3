"""What a guest may say wrongly, at each place where the host believes it: pointers, lengths, characters, cases.

The export of a component says it: it returns core values of our choice, and memory of our choice lies behind them. So
every check is met from the guest's side alone. The random ones are compared with Wasmtime's component API: both take a
memory for the same value, or both refuse it.
"""

import functools
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.agent.canonical_harness import CORE_TYPES, RESULT_AT, Text, World, call, to_its_end
from tests.unit.agent.canonical_values import Shape, same, shapes
from wasmpool_agent import component_api
from wasmpool_agent.canonical import Some
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.memory import MAX_LIFTED_BYTES
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_api.wasm.plans import FunctionType

MEMORY = 65536
STRING = Shape("string")
OPTIONS = Shape("option", (), (Shape("option", (), (Shape("u8"),)),))


def list_of(kind: str) -> Shape:
    return Shape("list", (), (Shape(kind),))


@functools.cache
def world() -> World:
    """One for all examples: an engine is slow to make."""
    return World()


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    world.cache_clear()


def says(shape: Shape, core: int | float, memory: bytes = b"", encoding: str = "utf8", pages: int = 1) -> str:
    """A component whose export returns this core value, with these bytes at RESULT_AT."""
    text = Text()
    number = shape.write(text)
    signature = Layouts(tuple(text.types)).signature(FunctionType((), number), lowered=False)
    kind = CORE_TYPES[signature.results]
    said = (
        f"f{kind[1:]}.reinterpret_i{kind[1:]} (i{kind[1:]}.const {core})" if kind[0] == "f" else f"{kind}.const {core}"
    )
    data = "".join(f"\\{byte:02x}" for byte in memory)
    return f"""(component
      (import "types" (instance $types {" ".join(text.lines)}))
      (alias export $types "t{number}" (type $t))
      (core module $m
        (memory (export "memory") {pages})
        (data (i32.const {RESULT_AT}) "{data}")
        (func (export "run") (result {kind}) ({said})))
      (core instance $i (instantiate $m))
      (func $run (result $t)
        (canon lift (core func $i "run") (memory (core memory $i "memory")) string-encoding={encoding}))
      (export "run" (func $run)))"""


def lifted(text: str) -> Any:
    return world().run(text, {}, "run")


def pair(pointer: int, length: int) -> bytes:
    return struct.pack("<II", pointer, length)


REFUSED: list[tuple[str, Shape, int, bytes, str, str]] = [
    ("a char that is a surrogate", Shape("char"), 0xD800, b"", "utf8", "is not a char"),
    ("a char beyond the last", Shape("char"), 0x110000, b"", "utf8", "is not a char"),
    ("an enum's case beyond the last", Shape("enum", ("a", "b")), 2, b"", "utf8", "case 2 of 2"),
    ("an option's case in memory", Shape("option", (), (STRING,)), RESULT_AT, b"\x02", "utf8", "case 2 of 2"),
    ("a result's flat case", Shape("result", (), (None, None)), 7, b"", "utf8", "case 7 of 2"),
    ("a case of 257", Shape("enum", tuple(f"e{n}" for n in range(257))), 257, b"", "utf8", "case 257 of 257"),
    ("a string that is no UTF-8", STRING, RESULT_AT, pair(RESULT_AT + 8, 2) + b"\xc3\x28", "utf8", "not UTF-8"),
    ("a surrogate in UTF-8", STRING, RESULT_AT, pair(RESULT_AT + 8, 3) + b"\xed\xa0\x80", "utf8", "not UTF-8"),
    ("half a character", STRING, RESULT_AT, pair(RESULT_AT + 8, 1) + b"\xc3", "utf8", "not UTF-8"),
    ("half a surrogate pair", STRING, RESULT_AT, pair(RESULT_AT + 8, 1) + b"\x00\xd8", "utf16", "not UTF-16"),
    ("UTF-16 at an odd address", STRING, RESULT_AT, pair(RESULT_AT + 9, 1), "utf16", "not aligned"),
    ("Latin-1 at an odd address", STRING, RESULT_AT, pair(RESULT_AT + 9, 1), "latin1+utf16", "not aligned"),
    ("a string beyond the end", STRING, RESULT_AT, pair(MEMORY - 1, 2), "utf8", "out of bounds"),
    ("UTF-16 beyond the end", STRING, RESULT_AT, pair(MEMORY - 2, 2), "utf16", "out of bounds"),
    ("tagged UTF-16 beyond the end", STRING, RESULT_AT, pair(MEMORY - 2, 2**31 | 2), "latin1+utf16", "out of bounds"),
    ("a pointer and a length that overflow", STRING, RESULT_AT, pair(2**32 - 1, 2**31 - 1), "utf8", "out of bounds"),
    ("a string too long for any", STRING, RESULT_AT, pair(0, 2**32 - 1), "utf8", "at most"),
    ("UTF-16 too long for any", STRING, RESULT_AT, pair(0, 2**31), "utf16", "at most"),
    ("bytes beyond the end", list_of("u8"), RESULT_AT, pair(MEMORY, 1), "utf8", "out of bounds"),
    ("nothing, beyond the end", list_of("u8"), RESULT_AT, pair(MEMORY + 1, 0), "utf8", "out of bounds"),
    ("a list at an odd address", list_of("u32"), RESULT_AT, pair(RESULT_AT + 2, 1), "utf8", "not aligned"),
    ("a list of more than there is", list_of("u32"), RESULT_AT, pair(0, MEMORY // 4 + 1), "utf8", "out of bounds"),
    ("a length times a size that overflows", list_of("u64"), RESULT_AT, pair(0, 2**29 + 1), "utf8", "out of bounds"),
    ("a result beyond the end", STRING, MEMORY - 4, b"", "utf8", "out of bounds"),
    ("a result at the end of the addresses", STRING, 2**32 - 4, b"", "utf8", "out of bounds"),
    ("a result at an odd address", STRING, RESULT_AT + 1, b"", "utf8", "not aligned"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "core", "memory", "encoding", "message"), [it[1:] for it in REFUSED], ids=[it[0] for it in REFUSED]
)
def test_what_is_wrong_ends_the_guest(shape: Shape, core: int, memory: bytes, encoding: str, message: str) -> None:
    with pytest.raises(GuestTrap, match=message):
        lifted(says(shape, core, memory, encoding))


TAKEN: list[tuple[str, Shape, int, bytes, str, Any]] = [
    ("any number is true", Shape("bool"), 8, b"", "utf8", True),
    ("of an s8 the low bits count", Shape("s8"), 0x180, b"", "utf8", -128),
    ("of a u16 the low bits count", Shape("u16"), 0x5FFFF, b"", "utf8", 0xFFFF),
    ("flags beyond the last are nothing", Shape("flags", ("a", "b")), 0xFE, b"", "utf8", frozenset({"b"})),
    ("the last byte", list_of("u8"), RESULT_AT, pair(MEMORY - 1, 1), "utf8", b"\0"),
    ("nothing, at the end", list_of("u8"), RESULT_AT, pair(MEMORY, 0), "utf8", b""),
    ("Latin-1", STRING, RESULT_AT, pair(RESULT_AT + 8, 1) + b"\xff", "latin1+utf16", "\xff"),
    ("tagged UTF-16", STRING, RESULT_AT, pair(RESULT_AT + 8, 2**31 | 1) + b"\x03\x26", "latin1+utf16", "\u2603"),
    ("a NaN of any kind", Shape("f32"), 0x7FA00001, b"", "utf8", float("nan")),
    ("a negative NaN", Shape("f64"), -1, b"", "utf8", float("nan")),
    ("some of none", OPTIONS, RESULT_AT, b"\1\0", "utf8", Some(None)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "core", "memory", "encoding", "value"), [it[1:] for it in TAKEN], ids=[it[0] for it in TAKEN]
)
def test_what_looks_wrong_and_is_not(shape: Shape, core: int, memory: bytes, encoding: str, value: Any) -> None:
    found = lifted(says(shape, core, memory, encoding))
    assert same(found, value)
    if isinstance(value, float):
        assert struct.pack("<d", found) == struct.pack("<d", float("nan"))


def test_lists_that_overlap_can_not_make_more_than_so_many_bytes_of_a_memory() -> None:
    """A thousand times the same half megabyte, out of a memory of ten pages."""
    size, count = 512 * 1024, 1000
    text = Text()
    number = Shape("list", (), (list_of("u8"),)).write(text)
    guest = f"""(component
      (import "types" (instance $types {" ".join(text.lines)}))
      (alias export $types "t{number}" (type $t))
      (core module $m
        (memory (export "memory") 10)
        (func (export "run") (param $count i32) (result i32) (local $at i32)
          (i32.store (i32.const 0) (i32.const 16))
          (i32.store (i32.const 4) (local.get $count))
          (local.set $at (i32.const 16))
          (loop
            (i32.store offset=4 (local.get $at) (i32.const {size}))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if 0 (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
          (i32.const 0)))
      (core instance $i (instantiate $m))
      (func $run (param "n" u32) (result $t) (canon lift (core func $i "run") (memory (core memory $i "memory"))))
      (export "run" (func $run)))"""
    assert size * count > MAX_LIFTED_BYTES > size * 100
    program = world().program(guest, {})
    with world().instance(program) as instance:
        assert len(call(instance, "run", 100)) == 100
        with pytest.raises(GuestTrap, match=f"more than {MAX_LIFTED_BYTES} bytes in one call"):
            call(instance, "run", count)


WORDS = st.sampled_from([0, 1, 2, 3, RESULT_AT, RESULT_AT + 1, RESULT_AT + 4, RESULT_AT + 8, MEMORY - 8, MEMORY - 1,
                         MEMORY, 2**31, 2**31 + 2, 2**32 - 1])  # fmt: skip
MEMORIES = st.lists(
    st.one_of(WORDS.map(lambda word: struct.pack("<I", word)), st.binary(min_size=4, max_size=4)), max_size=24
)


@st.composite
def _said(draw: st.DrawFn) -> str:
    shape = draw(shapes())
    core = draw(st.one_of(st.just(RESULT_AT), st.just(RESULT_AT), WORDS))
    encoding = draw(st.sampled_from(["utf8", "utf16", "latin1+utf16"]))
    return says(shape, core, b"".join(draw(MEMORIES)), encoding)


def _by_wasmtime(text: str) -> Any:
    engine = world().engine
    compiled = component_api.compile_component(engine, bytes(wasmtime.wat2wasm(text)))
    program = component_api.Program.load(engine, compiled, {}, frozenset())
    store = wasmtime.Store(engine)
    instance = program.instance(store, None)
    try:
        to_its_end(instance.instantiate(nullcontext))
        made = instance.call("", "run")
        to_its_end(made)
        return made.result()
    finally:
        instance.close()
        store.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(_said())
def test_random_memories_are_taken_for_what_wasmtime_takes_them_or_refused_as_there(text: str) -> None:
    found: list[Any] = []
    for lift in (lifted, _by_wasmtime):
        try:
            found.append((True, lift(text)))
        except (GuestTrap, wasmtime.WasmtimeError) as error:
            found.append((False, "failed in the host" in str(error)))
    assert same(*found)
    assert found[0] != (False, True)
