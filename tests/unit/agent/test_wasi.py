"""WASI preview 1: the table of functions, the check of pointers, and that no argument of a guest can do harm.

The functions run here on a piece of memory with a guard on either side; that real programs find their way through them
is for test_worker.
"""

import asyncio
import time
from collections.abc import Iterator
from struct import unpack

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent.wasi_harness import MONOTONIC_NS, NOW_NS, SIZE, Fixture
from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.files import trees
from wasmpool_agent.wasi.linking import unprovided
from wasmpool_agent.wasi.preview1 import FUNCTIONS, WRITE_MAX_LINES
from wasmpool_agent.wasi.signatures import MODULE, SIGNATURES, WITHOUT_RESULT
from wasmpool_agent.wasi.waits import Until
from wasmpool_agent.wasmtime_async import HostTrap


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    made = Fixture()
    yield made
    assert made.guards_are_whole()


def test_every_function_has_the_type_that_wasmtimes_own_has() -> None:
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    store = wasmtime.Store(engine)
    kinds = {"i32": "I", "i64": "Q"}
    for name, params in SIGNATURES.items():
        function = linker.get(store, MODULE, name)
        assert isinstance(function, wasmtime.Func)
        type_ = function.type(store)
        assert "".join(kinds[str(param)] for param in type_.params) == params, name
        assert [str(result) for result in type_.results] == ([] if name in WITHOUT_RESULT else ["i32"]), name
    assert len(SIGNATURES) == 46
    assert set(FUNCTIONS) == set(SIGNATURES)


@pytest.mark.parametrize(
    ("pointer", "length", "inside"),
    [
        (0, SIZE, True),
        (SIZE, 0, True),
        (SIZE - 1, 1, True),
        (SIZE - 1, 2, False),
        (SIZE, 1, False),
        (0, SIZE + 1, False),
        (2**32 - 1, 2**32 - 1, False),
        (2**32 - 1, 1, False),
    ],
)
def test_a_range_is_inside_the_memory_or_it_is_a_fault(
    pointer: int, length: int, inside: bool, fixture: Fixture
) -> None:
    if inside:
        fixture.guest.memory.check(pointer, length)
        return
    with pytest.raises(WasiError) as caught:
        fixture.guest.memory.check(pointer, length)
    assert caught.value.errno is Errno.FAULT


POINTERS = st.one_of(
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.integers(SIZE - 64, SIZE + 64),
    st.integers(0, 64),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]),
)
LONGS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


@given(st.data(), st.binary(max_size=256), st.integers(0, SIZE - 256))
def test_no_arguments_make_a_function_touch_what_is_not_the_guests(data: st.DataObject, noise: bytes, at: int) -> None:
    fixture = Fixture(trees({"/data": {"a/b": b"text", "c": bytes(5000)}}))
    fixture.call("path_open", 3, 0, fixture.put(b"c"), 1, 0, 2**64 - 1 & ~(1 << 6), 0, 0, 0)
    fixture.guest.memory.write(at, noise)
    name = data.draw(st.sampled_from(sorted(SIGNATURES)))
    arguments = [data.draw(POINTERS if kind == "I" else LONGS) for kind in SIGNATURES[name]]
    try:
        outcome = fixture.call(name, *arguments)
    except HostTrap:
        assert name == "proc_exit"
        assert fixture.guest.exit_code == arguments[0]
    else:
        assert isinstance(outcome, Errno | Until)
    assert fixture.guards_are_whole()


def test_arguments_and_environment_lie_one_after_the_other_each_ended_by_a_nul(fixture: Fixture) -> None:
    assert fixture.call("args_sizes_get", 0, 4) is Errno.SUCCESS
    assert unpack("<II", fixture.read(0, 8)) == (2, len("prog") + 1 + 2 + 1)
    assert fixture.call("args_get", 16, 100) is Errno.SUCCESS
    assert unpack("<II", fixture.read(16, 8)) == (100, 105)
    assert fixture.read(100, 8) == "prog\0ü\0".encode()
    assert fixture.call("environ_get", 16, 200) is Errno.SUCCESS
    assert fixture.read(200, 4) == b"A=1\0"
    assert fixture.call("args_get", 16, SIZE - 3) is Errno.FAULT


def test_writing_takes_all_buffers_up_to_a_limit_and_says_how_much(fixture: Fixture) -> None:
    memory = fixture.guest.memory
    memory.write(1000, b"hello world")
    for index, (pointer, length) in enumerate(((1000, 5), (0, 0), (1005, 6))):
        memory.write_u32(8 * index, pointer)
        memory.write_u32(8 * index + 4, length)
    assert fixture.call("fd_write", 1, 0, 3, 500) is Errno.SUCCESS
    assert fixture.stdout.data == b"hello world"
    assert unpack("<I", memory.read(500, 4)) == (11,)
    assert fixture.call("fd_write", 2, 0, 1, 500) is Errno.SUCCESS
    assert fixture.stderr.data == b"hello"
    memory.write_u32(4, SIZE)
    assert fixture.call("fd_write", 1, 0, 1, 500) is Errno.FAULT
    assert fixture.call("fd_write", 0, 0, 1, 500) is Errno.NOT_CAPABLE
    assert fixture.call("fd_write", 3, 0, 1, 500) is Errno.BAD_DESCRIPTOR
    assert fixture.call("fd_write", 1, 0, 2000, 500) is Errno.INVALID


def test_of_many_lines_one_write_takes_a_few_and_says_how_much(fixture: Fixture) -> None:
    memory = fixture.guest.memory
    memory.write(1000, b"\n" * 10000)
    memory.write_u32(0, 1000)
    memory.write_u32(4, 10000)
    assert fixture.call("fd_write", 1, 0, 1, 500) is Errno.SUCCESS
    assert fixture.stdout.data == b"\n" * WRITE_MAX_LINES
    assert unpack("<I", memory.read(500, 4)) == (WRITE_MAX_LINES,)


def test_descriptors_can_be_closed_and_renumbered(fixture: Fixture) -> None:
    assert fixture.call("fd_renumber", 2, 1) is Errno.SUCCESS
    fixture.guest.memory.write(100, b"x")
    fixture.guest.memory.write_u32(0, 100)
    fixture.guest.memory.write_u32(4, 1)
    assert fixture.call("fd_write", 1, 0, 1, 500) is Errno.SUCCESS
    assert (fixture.stdout.data, fixture.stderr.data) == (b"", b"x")
    assert fixture.call("fd_close", 1) is Errno.SUCCESS
    assert fixture.call("fd_close", 1) is Errno.BAD_DESCRIPTOR
    assert fixture.call("fd_renumber", 0, 9) is Errno.BAD_DESCRIPTOR


def test_rights_that_were_given_up_are_gone(fixture: Fixture) -> None:
    assert fixture.call("fd_fdstat_set_rights", 1, 0, 0) is Errno.SUCCESS
    assert fixture.call("fd_write", 1, 0, 0, 500) is Errno.NOT_CAPABLE
    assert fixture.call("fd_fdstat_set_rights", 1, 1 << 6, 0) is Errno.NOT_CAPABLE


@pytest.mark.parametrize(
    ("clock", "expected"), [(0, NOW_NS), (1, MONOTONIC_NS), (2, 42), (3, 42), (4, None), (2**32 - 1, None)]
)
def test_clocks_tell_their_time(clock: int, expected: int | None, fixture: Fixture) -> None:
    errno = fixture.call("clock_time_get", clock, 0, 8)
    assert errno is (Errno.INVALID if expected is None else Errno.SUCCESS)
    if expected is not None:
        assert unpack("<Q", fixture.read(8, 8)) == (expected,)


def subscribe(
    fixture: Fixture, index: int, userdata: int, tag: int, subject: int, timeout: int = 0, flags: int = 0
) -> None:
    base = 1000 + 48 * index
    fixture.guest.memory.write(base, bytes(48))
    fixture.guest.memory.write_u64(base, userdata)
    fixture.guest.memory.write(base + 8, bytes((tag,)))
    fixture.guest.memory.write_u32(base + 16, subject)
    fixture.guest.memory.write_u64(base + 24, timeout)
    fixture.guest.memory.write(base + 40, bytes((flags, 0)))


def events(fixture: Fixture) -> list[tuple[int, int, int]]:
    (count,) = unpack("<I", fixture.read(500, 4))
    return [unpack("<QHB", fixture.read(4000 + 32 * index, 11)) for index in range(count)]


def test_poll_waits_for_the_first_of_its_clocks(fixture: Fixture) -> None:
    subscribe(fixture, 0, 77, 0, 1, 2_000_000_000)
    subscribe(fixture, 1, 78, 0, 0, NOW_NS + 1_000_000_000, flags=1)
    assert fixture.call("poll_oneoff", 1000, 4000, 2, 500) == Until(6.0)
    assert events(fixture) == [(78, 0, 0)]


def test_poll_answers_at_once_where_something_is_ready(fixture: Fixture) -> None:
    subscribe(fixture, 0, 1, 0, 1, 2_000_000_000)
    subscribe(fixture, 1, 2, 2, 1)
    subscribe(fixture, 2, 3, 1, 0)
    subscribe(fixture, 3, 4, 1, 9)
    subscribe(fixture, 4, 5, 2, 0)
    subscribe(fixture, 5, 6, 0, 1, 0)
    subscribe(fixture, 6, 7, 0, 2, 5)
    assert fixture.call("poll_oneoff", 1000, 4000, 7, 500) is Errno.SUCCESS
    assert events(fixture) == [
        *((2, 0, 2), (3, 0, 1), (4, Errno.BAD_DESCRIPTOR, 1), (5, Errno.NOT_CAPABLE, 2), (7, Errno.NOT_SUPPORTED, 0)),
        (6, 0, 0),
    ]
    assert fixture.call("poll_oneoff", 1000, 4000, 0, 500) is Errno.INVALID
    subscribe(fixture, 0, 1, 9, 0)
    assert fixture.call("poll_oneoff", 1000, 4000, 1, 500) is Errno.INVALID


def test_the_longest_sleep_that_there_is_can_be_armed(fixture: Fixture) -> None:
    subscribe(fixture, 0, 1, 0, 1, 2**64 - 1)
    wait = fixture.call("poll_oneoff", 1000, 4000, 1, 500)
    assert isinstance(wait, Until)

    async def arm() -> None:
        call_off = wait.arm(lambda: None)
        await asyncio.sleep(0.01)
        assert not wait.ready()
        call_off()

    asyncio.run(arm())


def test_the_clock_of_sleeps_is_the_clock_of_the_event_loop() -> None:
    async def difference() -> float:
        return asyncio.get_running_loop().time() - time.monotonic_ns() / 1e9

    assert abs(asyncio.run(difference())) < 1


def test_random_bytes_fill_what_is_asked_for_and_nothing_more(fixture: Fixture) -> None:
    assert fixture.call("random_get", 100, 64) is Errno.SUCCESS
    assert fixture.read(100, 64) != bytes(64)
    assert fixture.read(164, 100) == bytes(100)
    assert fixture.call("random_get", SIZE - 1, 2) is Errno.FAULT


@pytest.mark.parametrize(
    ("name", "arguments", "errno"),
    [
        ("fd_prestat_get", (3, 0), Errno.BAD_DESCRIPTOR),
        ("fd_prestat_dir_name", (3, 0, 0), Errno.BAD_DESCRIPTOR),
        ("path_open", (3, 0, 0, 0, 0, 0, 0, 0, 0), Errno.BAD_DESCRIPTOR),
        ("path_open", (1, 0, 0, 0, 0, 0, 0, 0, 0), Errno.NOT_DIRECTORY),
        ("path_symlink", (0, 1, 1, 0, 1), Errno.NOT_DIRECTORY),
        ("path_symlink", (0, 1, 3, 0, 1), Errno.BAD_DESCRIPTOR),
        ("fd_seek", (1, 0, 0, 0), Errno.ILLEGAL_SEEK),
        ("fd_tell", (4, 0), Errno.BAD_DESCRIPTOR),
        ("fd_pread", (0, 0, 0, 0, 0), Errno.ILLEGAL_SEEK),
        ("sock_recv", (0, 0, 0, 0, 0, 0), Errno.NOT_SOCKET),
        ("sock_accept", (7, 0, 0), Errno.BAD_DESCRIPTOR),
        ("proc_raise", (9,), Errno.NO_SYSTEM_CALL),
        ("sched_yield", (), Errno.SUCCESS),
        ("fd_fdstat_set_rights", (1, 2**40, 0), Errno.NOT_CAPABLE),
        ("fd_fdstat_set_flags", (1, 2), Errno.INVALID),
    ],
)
def test_what_there_is_not_is_refused_with_the_right_number(
    name: str, arguments: tuple[int, ...], errno: Errno, fixture: Fixture
) -> None:
    assert fixture.call(name, *arguments) is errno


def test_imports_that_nobody_provides_are_all_named() -> None:
    assert unprovided([(MODULE, "fd_write", "function")]) == ""
    assert unprovided([(MODULE, "fd_write", "memory")]).startswith(f"module imports {MODULE}.fd_write (memory), which")
    many = unprovided([("env", f"f{number}", "function") for number in range(12)])
    assert many == (
        "module imports "
        + ", ".join(f"env.f{number} (function)" for number in range(10))
        + f" and 2 more, which no host interface provides; there is {MODULE}"
    )
