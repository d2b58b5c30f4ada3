"""Components through Wasmtime's component API: every type there and back, handles, waits, traps, guests that are ended.

Covers each kind of type in both directions with the shapes that the other component host has; handles of host resources
(given, lent, dropped, left behind) over several versions of one interface; host functions that return, wait, wait again
and fail, before and after a wait; imports that nobody provides; and that a guest that spins and one that waits for ever
give the thread back and end at once.
"""

import math
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wasmtime

from wasmpool_agent.canonical.values import Some
from wasmpool_agent.component_api import Call, Instance, Program, Unsupported, compile_component
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_agent.wasi.p2.registry import Later
from wasmpool_agent.wasmtime_async import GuestTrap, HostTrap

MOST_SECONDS = 10.0
"""For ever is longer."""

REALLOC = """
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local i32)
      (local.set 4 (i32.and (i32.add (global.get $top) (i32.sub (local.get 2) (i32.const 1)))
                            (i32.sub (i32.const 0) (local.get 2))))
      (global.set $top (i32.add (local.get 4) (local.get 3)))
      (local.get 4))"""


@pytest.fixture(scope="module")
def engine() -> Iterator[wasmtime.Engine]:
    """Its epoch ticks all the time, as a worker's does."""
    engine = wasmtime.Engine(_config(DEFAULT_TUNABLES))
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            engine.increment_epoch()

    ticker = threading.Thread(target=tick)
    ticker.start()
    yield engine
    over.set()
    ticker.join()


class World:
    """An engine, and the instances made in a test."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self.engine = engine
        self.stores: list[tuple[Instance, wasmtime.Store]] = []

    def program(
        self, text: str, functions: Mapping[str, Callable[..., object]], may_wait: Set[str] = frozenset()
    ) -> Program:
        return Program.load(self.engine, compile_component(self.engine, wasmtime.wat2wasm(text)), functions, may_wait)

    def instance(self, program: Program, host: Any = None) -> Instance:
        store = wasmtime.Store(self.engine)
        instance = program.instance(store, host)
        self.stores.append((instance, store))
        to_its_end(instance.instantiate(nullcontext))
        return instance

    def run(self, text: str, functions: Mapping[str, Callable[..., object]], name: str, *arguments: object) -> Any:
        call = self.instance(self.program(text, functions)).call("", name, *arguments)
        to_its_end(call)
        return call.result()


def to_its_end(call: Call, polls: int = 1000) -> None:
    try:
        for _ in range(polls):
            if call.poll():
                return
            if call.waits_for is not None:
                call.waits_for.arm(lambda: None)
        pytest.fail("the guest does not end")
    finally:
        call.close()


@pytest.fixture
def world(engine: wasmtime.Engine) -> Iterator[World]:
    world = World(engine)
    yield world
    for instance, store in world.stores:
        instance.close()
        store.close()


def echo(kind: str, flat: str, named: str = "") -> str:
    """A component that passes what "run" is given to the host's "echo", and returns what that returns."""
    params = flat.split()
    gets = " ".join(f"(local.get {i})" for i in range(len(params)))
    area = "" if len(params) == 1 else "i32"
    body = f"(call 0 {gets})" if not area else f"(call 0 {gets} (i32.const 1024)) (i32.const 1024)"
    result = flat if not area else "i32"
    types = f'(type $t0 {named}) (import "t" (type $t (eq $t0)))' if named else ""
    kind = "$t" if named else kind
    return f"""(component
      {types}
      (import "echo" (func $echo (param "x" {kind}) (result {kind})))
      (core module $libc {REALLOC})
      (core instance $libc (instantiate $libc))
      (alias core export $libc "memory" (core memory $memory))
      (alias core export $libc "realloc" (core func $realloc))
      (core func $lowered (canon lower (func $echo) (memory $memory) (realloc $realloc)))
      (core module $m
        (import "" "echo" (func (param {flat} {area}) {"" if area else f"(result {flat})"}))
        (func (export "run") (param {flat}) (result {result}) {body}))
      (core instance $i (instantiate $m (with "" (instance (export "echo" (func $lowered))))))
      (func $run (param "x" {kind}) (result {kind})
        (canon lift (core func $i "run") (memory $memory) (realloc $realloc)))
      (export "run" (func $run)))"""


VALUES = {
    "bool": ("bool", "i32", "", [True, False]),
    "s8": ("s8", "i32", "", [-128, -1, 127]),
    "u8": ("u8", "i32", "", [0, 255]),
    "s16": ("s16", "i32", "", [-(2**15), 2**15 - 1]),
    "u16": ("u16", "i32", "", [0, 2**16 - 1]),
    "s32": ("s32", "i32", "", [-(2**31), 2**31 - 1]),
    "u32": ("u32", "i32", "", [0, 2**32 - 1]),
    "s64": ("s64", "i64", "", [-(2**63), 2**63 - 1]),
    "u64": ("u64", "i64", "", [0, 2**64 - 1]),
    "f32": ("f32", "f32", "", [0.5, -math.inf, struct.unpack("<f", struct.pack("<f", 3.14))[0]]),
    "f64": ("f64", "f64", "", [math.pi, math.inf]),
    "char": ("char", "i32", "", ["a", "\0", "\U0001f980"]),
    "string": ("string", "i32 i32", "", ["", "hello", "sn\u00f6 \U0001f980\0x"]),
    "bytes": ("(list u8)", "i32 i32", "", [b"", b"\0\xff", bytes(range(256)) * 40]),
    "list": ("(list u16)", "i32 i32", "", [[], [1, 2, 65535]]),
    "list of pairs": ("(list (tuple string (list u8)))", "i32 i32", "", [[("host", b"a"), ("x", b"")]]),
    "list of lists": ("(list (list string))", "i32 i32", "", [[[], ["a", ""], ["b"]]]),
    "tuple": ("(tuple u64 string)", "i64 i32 i32", "", [(7, "seven")]),
    "option": ("(option string)", "i32 i32 i32", "", [None, "", "some"]),
    "option of option": ("(option (option u8))", "i32 i32 i32", "", [None, Some(None), Some(5)]),
    "result": ("(result u32 (error string))", "i32 i32 i32", "", [(True, 4), (False, "no")]),
    "result of nothing": ("(result)", "i32", "", [(True, None), (False, None)]),
    "result with ok": ("(result (list u8))", "i32 i32 i32", "", [(True, b"x"), (False, None)]),
    "option of a result": ("(option (result (error u8)))", "i32 i32 i32", "", [None, (True, None), (False, 9)]),
    "record": ("", "i64 i32", '(record (field "seconds" u64) (field "nanoseconds" u32))', [
        {"seconds": 3, "nanoseconds": 999_999_999}
    ]),
    "variant": ("", "i32 i32 i32", '(variant (case "get") (case "other" string))', [("get", None), ("other", "PURGE")]),
    "enum": ("", "i32", '(enum "red" "dark-green")', ["red", "dark-green"]),
    "flags": ("", "i32", '(flags "read" "write" "sync")', [frozenset(), frozenset({"read", "sync"})]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_and_goes_unchanged(world: World, name: str) -> None:
    kind, flat, named, values = VALUES[name]
    seen: list[object] = []

    def host_echo(_host: object, value: object) -> object:
        seen.append(value)
        return value

    instance = world.instance(world.program(echo(kind, flat, named), {"echo": host_echo}))
    for value in values:
        call = instance.call("", "run", value)
        to_its_end(call)
        assert call.result() == value
        assert type(call.result()) is type(value)
    assert seen == values


def test_bytes_of_every_kind_are_taken(world: World) -> None:
    text = echo("(list u8)", "i32 i32")
    for given in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        assert world.run(text, {"echo": lambda _, value, it=given: it}, "run", given) == b"abc"


@pytest.mark.parametrize(("kind", "flat", "wrong"), [
    ("u8", "i32", 256), ("s8", "i32", -129), ("string", "i32 i32", "\ud800"), ("char", "i32", "ab"),
    ("char", "i32", "\ud800"), ("(tuple u64 string)", "i64 i32 i32", (1,)), ("(list u8)", "i32 i32", "text"),
    ("u64", "i64", None),
])  # fmt: skip
def test_what_a_host_function_returns_wrongly_ends_the_guest_with_its_name(
    world: World, kind: str, flat: str, wrong: object
) -> None:
    right = {"i32": 65, "i64": 1}.get(flat, (1, "a") if "tuple" in kind else "" if kind == "string" else b"")
    argument = "a" if kind == "char" else right
    with pytest.raises(GuestTrap, match="echo failed in the host: "):
        world.run(echo(kind, flat), {"echo": lambda _, value: wrong}, "run", argument)
    instance = world.instance(world.program(echo(kind, flat), {"echo": lambda _, value: value}))
    with pytest.raises((ValueError, TypeError)):
        instance.call("", "run", wrong)


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


THINGS = """(component
  (import "test:a/things@0.2.0" (instance $old
    (export "thing" (type $t (sub resource)))
    (export "make" (func (param "n" u32) (result (own $t))))
    (export "[method]thing.number" (func (param "self" (borrow $t)) (result u32)))
    (export "both" (func (param "x" (borrow $t)) (param "y" (borrow $t)) (result u32)))))
  (import "test:a/things@0.2.9" (instance $new
    (export "thing" (type $t (sub resource)))
    (export "alias" (type $u (eq $t)))
    (export "eat" (func (param "x" (own $u))))))
  (alias export $old "thing" (type $thing))
  (alias export $new "alias" (type $newer))
  (core func $make (canon lower (func $old "make")))
  (core func $number (canon lower (func $old "[method]thing.number")))
  (core func $both (canon lower (func $old "both")))
  (core func $drop (canon resource.drop $thing))
  (core func $eat (canon lower (func $new "eat")))
  (core module $m
    (import "" "make" (func $make (param i32) (result i32)))
    (import "" "number" (func $number (param i32) (result i32)))
    (import "" "both" (func $both (param i32 i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (import "" "eat" (func $eat (param i32)))
    (func (export "use") (result i32) (local i32 i32)
      (local.set 0 (call $make (i32.const 1)))
      (local.set 1 (call $make (i32.const 2)))
      (drop (call $number (local.get 0)))
      (call $drop (local.get 0))
      (call $both (local.get 1) (local.get 1)))
    (func (export "given") (param i32) (result i32) (local i32)
      (local.set 1 (call $number (local.get 0)))
      (call $drop (local.get 0))
      (local.get 1))
    (func (export "pass") (param i32) (call $eat (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance
    (export "make" (func $make)) (export "number" (func $number)) (export "both" (func $both))
    (export "drop" (func $drop)) (export "eat" (func $eat))))))
  (func (export "use") (result u32) (canon lift (core func $i "use")))
  (func (export "given") (param "x" (own $thing)) (result u32) (canon lift (core func $i "given")))
  (func (export "lent") (param "x" (borrow $thing)) (result u32) (canon lift (core func $i "given")))
  (func (export "pass") (param "x" (own $newer)) (canon lift (core func $i "pass"))))"""


def test_handles_are_given_lent_dropped_and_left_behind(world: World) -> None:
    made: list[Thing] = []
    eaten: list[object] = []

    def make(_: object, number: int) -> Thing:
        made.append(Thing(str(number)))
        return made[-1]

    def both(_: object, one: Thing, other: Thing) -> int:
        assert one is other
        return int(one.name) * 10

    functions = {
        "test:a/things#make": make,
        "test:a/things#[method]thing.number": lambda _, thing: int(thing.name),
        "test:a/things#both": both,
        "test:a/things#eat": lambda _, thing: eaten.append(thing),
    }
    program = world.program(THINGS, functions)
    assert program.missing == ()
    instance = world.instance(program)
    call = instance.call("", "use")
    to_its_end(call)
    assert call.result() == 20
    assert [it.closed for it in made] == [1, 0]
    mine = Thing("7")
    for name in ("given", "lent"):
        call = instance.call("", name, mine)
        to_its_end(call)
        assert call.result() == 7
    newer = Thing("8")
    to_its_end(instance.call("", "pass", newer))
    assert eaten == [newer]
    assert newer.closed == 0  # it is the host's again
    instance.close()
    assert [it.closed for it in made] == [1, 1]
    assert len(instance.handles) == 0


class Gate:
    """A wait that the test ends."""

    def __init__(self) -> None:
        self.open = False
        self.armed = 0

    def ready(self) -> bool:
        return self.open

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.armed += 1
        return lambda: None


def test_a_guest_waits_goes_on_and_waits_again(world: World) -> None:
    first, second = Gate(), Gate()
    text = echo("string", "i32 i32")
    program = world.program(
        text, {"echo": lambda _, value: Later(first, lambda: Later(second, lambda: value + "!"))}, {"echo"}
    )
    instance, other = world.instance(program), world.instance(program)
    call, quick = instance.call("", "run", "one"), other.call("", "run", "two")
    assert not call.poll()
    assert call.waits_for is first
    assert not quick.poll()  # another guest runs meanwhile
    first.open = True
    assert not call.poll()
    assert call.waits_for is second
    second.open = True
    assert call.poll()
    assert quick.poll()
    assert (call.result(), quick.result(), call.waits_for) == ("one!", "two!", None)


@pytest.mark.parametrize("late", [False, True])
def test_what_a_host_function_raises_ends_the_guest(world: World, *, late: bool) -> None:
    gate = Gate()
    gate.open = True

    def fail(error: Exception) -> object:
        def raise_it() -> object:
            raise error

        return Later(gate, raise_it) if late else raise_it()

    for error, message in ((HostTrap("enough"), "enough"), (KeyError("k"), "echo failed in the host: KeyError('k')")):
        program = world.program(
            echo("u32", "i32"), {"echo": lambda _, value, it=error: fail(it)}, {"echo"} if late else set()
        )
        with pytest.raises(GuestTrap) as trap:
            to_its_end(world.instance(program).call("", "run", 1))
        assert trap.value.message == message


def test_a_function_that_may_not_wait_is_not_waited_for(world: World) -> None:
    with pytest.raises(GuestTrap, match="echo is not among the functions that may wait"):
        world.run(echo("u32", "i32"), {"echo": lambda _, value: Later(Gate(), lambda: value)}, "run", 1)


def test_an_import_that_nobody_provides_traps_when_it_is_called(world: World) -> None:
    program = world.program(echo("u32", "i32"), {})
    assert program.missing == ("echo",)
    assert program.exports == {"": frozenset({"run"})}
    with pytest.raises(GuestTrap, match="echo is not provided here"):
        to_its_end(world.instance(program).call("", "run", 1))
    with pytest.raises(Unsupported, match="no function #walk"):
        world.instance(program).call("", "walk")


SPIN = """(component
  (core module $m (func (export "spin") (loop (br 0))) (func (export "trap") unreachable))
  (core instance $i (instantiate $m))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "trap") (canon lift (core func $i "trap"))))"""


def test_a_guest_that_spins_gives_the_thread_back_at_a_tick_and_ends_at_once(world: World) -> None:
    call = world.instance(world.program(SPIN, {})).call("", "spin")
    for _ in range(3):
        assert not call.poll()
        assert call.waits_for is None
    began = time.monotonic()
    call.close()
    assert time.monotonic() - began < MOST_SECONDS


def test_a_guest_that_waits_for_ever_ends_at_once(world: World) -> None:
    program = world.program(echo("u32", "i32"), {"echo": lambda _, value: Later(Gate(), lambda: value)}, {"echo"})
    call = world.instance(program).call("", "run", 1)
    assert not call.poll()
    began = time.monotonic()
    call.close()
    call.close()
    assert time.monotonic() - began < MOST_SECONDS


def test_a_trap_tells_its_cause_and_where_it_was(world: World) -> None:
    with pytest.raises(GuestTrap) as trap:
        to_its_end(world.instance(world.program(SPIN, {})).call("", "trap"))
    assert "unreachable" in trap.value.message
    assert "m!<wasm function 1>" in trap.value.backtrace


MEMORIES = """(component
  (core module $m (memory (export "m") 1) (func $start) (start $start))
  (core instance (instantiate $m))
  (core instance (instantiate $m))
  (core module $spin (func $start (loop (br 0))) (start $start))
  (core instance (instantiate $spin)))"""


def test_the_placement_is_around_every_poll_of_an_instantiation(world: World) -> None:
    inside: list[bool] = []

    @contextmanager
    def placement() -> Iterator[None]:
        inside.append(True)
        yield

    store = wasmtime.Store(world.engine)
    instance = world.program(MEMORIES, {}).instance(store, SimpleNamespace())
    call = instance.instantiate(placement)
    for polls in (1, 2, 3):
        assert not call.poll()
        assert len(inside) == polls
    assert call.waits_for is None
    call.close()
    store.close()


BIG = """(component
  (import "sink" (func $sink (param "x" (list u8))))
  (core module $libc (memory (export "memory") 200))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (core func $lowered (canon lower (func $sink) (memory $memory)))
  (core module $m
    (import "" "sink" (func (param i32 i32)))
    (func (export "run") (param i32) (call 0 (i32.const 0) (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance (export "sink" (func $lowered))))))
  (func (export "run") (param "n" u32) (canon lift (core func $i "run"))))"""


def test_a_guest_can_not_make_the_host_hold_many_times_what_it_has_itself(world: World) -> None:
    sizes: list[int] = []
    program = world.program(BIG, {"sink": lambda _, data: sizes.append(len(data))})
    to_its_end(world.instance(program).call("", "run", 1024 * 1024))
    with pytest.raises(GuestTrap, match="too much data is being copied between the host and the guest"):
        to_its_end(world.instance(program).call("", "run", 8 * 1024 * 1024))
    assert sizes == [1024 * 1024]


@pytest.mark.parametrize("kind", ["(stream u8)", "(future u8)", "error-context", "(list u8 4)", "(map string u8)"])
def test_types_that_would_abort_the_process_are_refused_before_anything_runs(world: World, kind: str) -> None:
    with pytest.raises((wasmtime.WasmtimeError, Unsupported)):
        world.program(f'(component (import "f" (func (param "x" {kind}))))', {"f": lambda *_: None})


def test_an_import_that_is_no_function_is_refused(world: World) -> None:
    with pytest.raises(Unsupported, match="import code: a ModuleType can't be provided"):
        world.program('(component (import "code" (core module)))', {})


def test_no_memory_is_lost_over_many_calls(world: World) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    texts = [echo(*VALUES[name][:3]) for name in ("list of pairs", "variant", "record", "flags", "option of option")]
    values = [VALUES[name][3][-1] for name in ("list of pairs", "variant", "record", "flags", "option of option")]
    instances = [world.instance(world.program(text, {"echo": lambda _, value: value})) for text in texts]
    instances.append(world.instance(world.program(LENDS, {"test:a/b#use": lambda _, thing: thing.name})))

    def round_() -> None:
        for instance, value in zip(instances, [*values, Thing("1")], strict=True):
            call = instance.call("", "run", value)
            to_its_end(call)

    for _ in range(300):
        round_()
    before = resident()
    for _ in range(1500):
        round_()
    assert resident() - before < 2 * 1024 * 1024


LENDS = """(component
  (import "test:a/b" (instance $b
    (export "thing" (type $t (sub resource)))
    (export "use" (func (param "x" (borrow $t))))))
  (alias export $b "thing" (type $thing))
  (core func $use (canon lower (func $b "use")))
  (core func $drop (canon resource.drop $thing))
  (core module $m
    (import "" "use" (func $use (param i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "run") (param i32) (call $use (local.get 0)) (call $drop (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance (export "use" (func $use)) (export "drop" (func $drop))))))
  (func (export "run") (param "x" (own $thing)) (canon lift (core func $i "run"))))"""


def test_code_of_another_engine_is_refused() -> None:
    other = wasmtime.Config()
    other.consume_fuel = True
    code = compile_component(wasmtime.Engine(other), wasmtime.wat2wasm("(component)"))
    with pytest.raises(wasmtime.WasmtimeError):
        Program.load(wasmtime.Engine(_config(DEFAULT_TUNABLES)), code, {}, frozenset())
