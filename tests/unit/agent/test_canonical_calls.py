"""Guests that are called through the host of the canonical ABI: how they wait, spin, fail, start and end.

Covers realloc, post-return and start functions as guest code that can be suspended; what they must not do; host
functions that wait; modules and wiring as wit-component makes them; memory in slots; and what is refused, with words.
"""

import gc
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import wasmtime

from tests.allocation import open_pool
from tests.unit.agent.canonical_harness import REALLOC, Text, World, call, ticking, to_its_end
from wasmpool_agent.canonical import Program, Unsupported, compile_component
from wasmpool_agent.wasmtime_async import GuestTrap, HostTrap, Later


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Its epoch goes on all the time, as a worker's does."""
    world = World()
    with ticking(world.engine):
        yield world


class Gate:
    """A wait that the test ends."""

    def __init__(self) -> None:
        self.open = False

    def ready(self) -> bool:
        return self.open

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


def strings() -> str:
    """A component whose "run" passes a string on to "types#echo" and back."""
    text = Text()
    return text.echo(text.add("string"))


def poll_until_it_waits(call: Any, wait: object) -> None:
    for _ in range(100):
        assert not call.poll()
        if call.waits_for is not None:
            break
    assert call.waits_for is wait


def test_a_guest_waits_and_waits_again_while_others_run(world: World) -> None:
    first, second = Gate(), Gate()
    program = world.program(
        strings(), {"types#echo": lambda _, text: Later(first, lambda: Later(second, lambda: text * 2))}, {"types#echo"}
    )
    with world.instance(program) as instance, world.instance(program) as other:
        one, two = instance.call("", "run", "a"), other.call("", "run", "b")
        poll_until_it_waits(one, first)
        poll_until_it_waits(two, first)
        assert not one.poll()
        assert one.waits_for is first  # polled too early: nothing has happened
        first.open = True
        poll_until_it_waits(one, second)
        second.open = True
        to_its_end(one)
        to_its_end(two)
        assert (one.result(), two.result(), one.waits_for) == ("aa", "bb", None)
        first.open = second.open = False
        poll_until_it_waits(again := instance.call("", "run", "c"), first)
        again.close()


def test_a_function_that_may_wait_and_does_not(world: World) -> None:
    functions = {"types#echo": lambda _, text: text + "!"}
    with world.instance(world.program(strings(), functions, {"types#echo"})) as instance:
        assert [call(instance, "run", text) for text in ("", "a")] == ["!", "a!"]


@pytest.mark.parametrize("flat", ["u8", "s16", "u64", "f32", "f64", "bool"])
def test_a_flat_result_may_be_waited_for(world: World, flat: str) -> None:
    gate = Gate()
    text = Text()
    given = True if flat == "bool" else -5 if flat == "s16" else 200
    program = world.program(
        text.echo(text.add(flat)), {"types#echo": lambda _, value: Later(gate, lambda: value)}, {"types#echo"}
    )
    with world.instance(program) as instance:
        waiting = instance.call("", "run", given)
        poll_until_it_waits(waiting, gate)
        gate.open = True
        to_its_end(waiting)
        assert waiting.result() == given


@pytest.mark.parametrize(("raised", "message"), [
    (HostTrap("enough"), "types#echo: enough"),
    (ValueError("oh"), "types#echo failed in the host: ValueError('oh')"),
    (KeyboardInterrupt(), "types#echo failed in the host: KeyboardInterrupt()"),
])  # fmt: skip
def test_what_a_host_function_raises_ends_the_guest(world: World, raised: BaseException, message: str) -> None:
    def echo(_host: object, _text: str) -> str:
        raise raised

    with world.instance(world.program(strings(), {"types#echo": echo})) as instance:
        with pytest.raises(GuestTrap) as caught:
            call(instance, "run", "x")
        assert caught.value.message == message
        assert re.search("canonical ABI!.*\n.*m!", caught.value.backtrace)
        with pytest.raises(RuntimeError, match="has ended"):
            instance.call("", "run", "x")


def test_what_fails_after_a_wait_ends_the_guest(world: World) -> None:
    def then() -> str:
        raise HostTrap("too late")

    gate = Gate()
    program = world.program(strings(), {"types#echo": lambda *_: Later(gate, then)}, {"types#echo"})
    with world.instance(program) as instance:
        waiting = instance.call("", "run", "x")
        poll_until_it_waits(waiting, gate)
        gate.open = True
        with pytest.raises(GuestTrap, match="too late"):
            to_its_end(waiting)


def test_an_import_that_nobody_provides_traps_by_name_when_it_is_called(world: World) -> None:
    program = world.program(strings(), {})
    assert program.missing == ("types#echo",)
    with world.instance(program) as instance, pytest.raises(GuestTrap, match="types#echo is not provided here"):
        call(instance, "run", "x")


def test_one_call_at_a_time(world: World) -> None:
    entered: list[str] = []

    def echo(host: list[Any], text: str) -> str:
        with pytest.raises(RuntimeError, match="can't be entered again"):
            host[0].call("", "run", "again")
        entered.append(text)
        return text

    host: list[Any] = []
    with world.instance(world.program(strings(), {"types#echo": echo}), host) as instance:
        host.append(instance)
        assert call(instance, "run", "x") == "x"
    assert entered == ["x"]


REALLOCS = [
    ("out of bounds", "(i32.const 0xfffffff0)", "out of bounds"),
    ("beyond what it grew to", "(i32.add (i32.mul (memory.size) (i32.const 65536)) (i32.const -2))", "out of bounds"),
    ("a trap", "unreachable", "unreachable"),
    ("a call of the host", "(call $echo (i32.const 0) (i32.const 0) (i32.const 64)) unreachable", "must not call"),
]  # fmt: skip


def with_realloc(body: str) -> str:
    """A component whose realloc has this body. Its "run" gives a string to the host, and gets one."""
    return f"""(component
      (import "echo" (func $echo (param "x" string) (result string)))
      (core module $shim
        (table (export "table") 1 funcref)
        (type $t (func (param i32 i32 i32)))
        (func (export "echo") (param i32 i32 i32)
          (call_indirect (type $t) (local.get 0) (local.get 1) (local.get 2) (i32.const 0))))
      (core instance $shim (instantiate $shim))
      (core module $m
        (import "" "echo" (func $echo (param i32 i32 i32)))
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) {body})
        (func (export "run") (call $echo (i32.const 0) (i32.const 3) (i32.const 16))))
      (core instance $i (instantiate $m (with "" (instance $shim))))
      (alias core export $i "memory" (core memory $memory))
      (alias core export $i "realloc" (core func $realloc))
      (alias core export $shim "table" (core table $table))
      (core func $lowered (canon lower (func $echo) (memory $memory) (realloc $realloc)))
      (core module $fill
        (import "" "table" (table 1 funcref)) (import "" "echo" (func $echo (param i32 i32 i32)))
        (elem (i32.const 0) func $echo))
      (core instance (instantiate $fill (with "" (instance
        (export "table" (table $table)) (export "echo" (func $lowered))))))
      (func (export "run") (canon lift (core func $i "run"))))"""


@pytest.mark.parametrize(("body", "message"), [it[1:] for it in REALLOCS], ids=[it[0] for it in REALLOCS])
def test_a_realloc_that_is_wrong_ends_the_guest(world: World, body: str, message: str) -> None:
    program = world.program(with_realloc(body), {"echo": lambda _, text: "result"})
    with world.instance(program) as instance, pytest.raises(GuestTrap, match=message):
        call(instance, "run")


def test_a_realloc_that_gives_an_odd_address_for_what_is_aligned_ends_the_guest(world: World) -> None:
    text = Text()
    component = text.echo(text.add("list", (), (text.add("u32"),))).replace("(local.get 4))", "(i32.const 4097))")
    with world.instance(world.program(component, {})) as instance, pytest.raises(GuestTrap, match="not aligned"):
        call(instance, "run", [1])


def test_a_realloc_that_spins_is_a_guest_that_spins(world: World) -> None:
    program = world.program(with_realloc("(loop (br 0)) unreachable"), {"echo": lambda _, text: "result"})
    with world.instance(program) as instance:
        spinning = instance.call("", "run")
        for _ in range(3):
            assert not spinning.poll()
            assert spinning.waits_for is None
        spinning.close()
        with pytest.raises(RuntimeError, match="has ended"):
            instance.call("", "run")


POST_RETURN = """(component
  (import "log" (func $log (param "x" u32)))
  (core module $m
    (import "" "log" (func $log (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\\20\\00\\00\\00\\05\\00\\00\\00")
    (data (i32.const 32) "hello")
    (func (export "run") (param i32) (result i32) (i32.store (i32.const 64) (local.get 0)) (i32.const 16))
    (func (export "after") (param i32)
      (i32.store8 (i32.const 32) (i32.const 74))
      (i32.store (i32.const 68) (local.get 0))
      (if (i32.load (i32.const 64)) (then (call $log (i32.const 1)))))
    (func (export "seen") (result i32) (i32.load (i32.const 68))))
  (core func $log (canon lower (func $log)))
  (core instance $i (instantiate $m (with "" (instance (export "log" (func $log))))))
  (alias core export $i "memory" (core memory $memory))
  (func (export "run") (param "calls" bool) (result string)
    (canon lift (core func $i "run") (memory $memory) (post-return (core func $i "after"))))
  (func (export "seen") (result u32) (canon lift (core func $i "seen"))))"""


def test_post_return_runs_after_the_result_was_lifted_with_what_was_returned(world: World) -> None:
    with world.instance(world.program(POST_RETURN, {"log": lambda *_: None})) as instance:
        assert call(instance, "run", False) == "hello"
        assert call(instance, "seen") == 16
        assert call(instance, "run", False) == "Jello"


def test_post_return_must_not_call_the_host(world: World) -> None:
    with (
        world.instance(world.program(POST_RETURN, {"log": lambda *_: None})) as instance,
        pytest.raises(GuestTrap, match="must not call the host"),
    ):
        call(instance, "run", True)


STARTS = """(component
  (import "log" (func $log (param "x" u32)))
  (core func $log (canon lower (func $log)))
  (core module $one
    (import "" "log" (func $log (param i32)))
    (memory (export "memory") 1)
    (func $start (call $log (i32.const 1)) (i32.store (i32.const 0) (i32.const 41)))
    (start $start))
  (core module $two
    (import "one" "memory" (memory 1))
    (import "" "log" (func $log (param i32)))
    (func $start (call $log (i32.const 2)) (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
    (func (export "run") (result i32) (i32.load (i32.const 0)))
    {data}
    (start $start))
  (core instance $one (instantiate $one (with "" (instance (export "log" (func $log))))))
  (core instance $two (instantiate $two (with "one" (instance $one)) (with "" (instance (export "log" (func $log))))))
  (func (export "run") (result u32) (canon lift (core func $two "run"))))"""


def test_start_functions_run_in_order_and_may_call_the_host(world: World) -> None:
    seen: list[int] = []
    with world.instance(world.program(STARTS.replace("{data}", ""), {"log": lambda _, n: seen.append(n)})) as instance:
        assert call(instance, "run") == 42
    assert seen == [1, 2]


def test_a_start_function_that_waits_is_waited_for(world: World) -> None:
    gate = Gate()
    program = world.program(STARTS.replace("{data}", ""), {"log": lambda *_: Later(gate, lambda: None)}, {"log"})
    store = wasmtime.Store(world.engine)
    instance = program.instance(store, None)
    making = instance.instantiate(nullcontext)
    poll_until_it_waits(making, gate)
    gate.open = True
    to_its_end(making)
    assert call(instance, "run") == 42
    instance.close()
    store.close()


def shimmed(fill: str = "(elem (i32.const 0) func 0 1)") -> str:
    """As wit-component wires a module that imports strings and calls an adapter."""
    return f"""(component
      (import "echo" (func $echo (param "x" string) (result string)))
      (core module $main
        (import "host" "echo" (func $echo (param i32 i32 i32)))
        (import "adapter" "double" (func $double (param i32) (result i32)))
        {REALLOC}
        (func (export "run") (param i32 i32) (result i32)
          (call $echo (local.get 0) (local.get 1) (i32.const 1024)) (i32.const 1024))
        (func (export "twice") (param i32) (result i32) (call $double (local.get 0))))
      (core module $shim
        (type (func (param i32 i32 i32))) (type (func (param i32) (result i32)))
        (func (export "0") (type 0) local.get 0 local.get 1 local.get 2 i32.const 0 call_indirect (type 0))
        (func (export "1") (type 1) local.get 0 i32.const 1 call_indirect (type 1))
        (table (export "$imports") 2 2 funcref))
      (core module $adapter
        (import "env" "memory" (memory 0))
        (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))
      (core module $fixup
        (type (func (param i32 i32 i32))) (type (func (param i32) (result i32)))
        (import "" "0" (func (type 0))) (import "" "1" (func (type 1))) (import "" "$imports" (table 2 2 funcref))
        {fill})
      (core instance $shim (instantiate $shim))
      (alias core export $shim "0" (core func $s0)) (alias core export $shim "1" (core func $s1))
      (core instance $host (export "echo" (func $s0)))
      (core instance $indirect (export "double" (func $s1)))
      (core instance $main (instantiate $main (with "host" (instance $host)) (with "adapter" (instance $indirect))))
      (alias core export $main "memory" (core memory $memory))
      (alias core export $main "realloc" (core func $realloc))
      (core instance $env (export "memory" (memory $memory)))
      (core instance $adapter (instantiate $adapter (with "env" (instance $env))))
      (core func $lowered (canon lower (func $echo) (memory $memory) (realloc $realloc)))
      (alias core export $adapter "double" (core func $double))
      (alias core export $shim "$imports" (core table $table))
      (core instance $args
        (export "0" (func $lowered)) (export "1" (func $double)) (export "$imports" (table $table)))
      (core instance (instantiate $fixup (with "" (instance $args))))
      (func (export "run") (param "x" string) (result string)
        (canon lift (core func $main "run") (memory $memory) (realloc $realloc)))
      (func (export "twice") (param "x" u32) (result u32) (canon lift (core func $main "twice"))))"""


@pytest.mark.parametrize(("text", "instances"), [
    (shimmed(), 3),
    (shimmed("(elem (i32.const 0) func 0) (elem (i32.const 1) func 1)"), 5),
    (shimmed().replace("local.get 0 i32.const 1 call", "local.get 0 drop local.get 0 i32.const 1 call"), 5),
], ids=["as wit-component makes it", "another fixup", "another shim"])  # fmt: skip
def test_shims_are_left_out_if_they_are_exactly_that_and_nobody_can_tell(
    world: World, text: str, instances: int
) -> None:
    program = world.program(text, {"echo": lambda _, value: value[::-1]})
    assert program.core_instances == instances
    with world.instance(program) as instance:
        assert call(instance, "run", "abc") == "cba"
        assert call(instance, "twice", 21) == 42


UNSUPPORTED = [
    ("async function", '(component (type (func async (param "x" u32))))', "async functions"),
    ("stream", '(component (type (stream u8)))', "streams"),
    ("future", '(component (type (future)))', "futures"),
    ("composed", """(component
      (component $inner (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func (export "f") (canon lift (core func $i "f"))))
      (instance $inner (instantiate $inner))
      (alias export $inner "f" (func $f))
      (core func $lowered (canon lower (func $f))))""", "calls between the components"),
    ("core module from the host", '(component (import "m" (core module)))', "core module"),
    ("a start before data", STARTS.replace("{data}", '(data (i32.const 100) "x")'), "a start function before"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [it[1:] for it in UNSUPPORTED], ids=[it[0] for it in UNSUPPORTED])
def test_what_is_not_hosted_is_refused_with_words(world: World, text: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        compile_component(world.engine, bytes(wasmtime.wat2wasm(text)), frozenset())


def test_a_plan_of_another_version_is_refused(world: World) -> None:
    with pytest.raises(Unsupported, match="not made by this version"):
        Program.load(world.engine, b"\x93\x01\x02\x03", [], {})


@pytest.mark.parametrize("kind", ["compact", "guarded"])
def test_the_memory_of_an_instance_is_in_its_slot_and_its_slot_is_free_after_it(kind: str) -> None:
    with open_pool(kind, slots=1, memory_pages=64, page_bytes=2 * 1024**2, ordinary_memory=True) as pool:
        world = World(pool.engine)
        program = world.program(strings(), {"types#echo": lambda _, text: text})
        long = "x" * 2_000_000
        for _ in range(3):
            slot = pool.allocator.allocate(1)
            store = wasmtime.Store(pool.engine)
            instance = program.instance(store, None)
            to_its_end(instance.instantiate(lambda slot=slot: pool.allocator.initialize(slot)))
            assert pool.in_region.live_memories(slot) == 1
            assert call(instance, "run", long) == long  # it grows, and is still found
            instance.close()
            store.close()
            assert pool.allocator.deallocate(slot)
        del program, world, instance, store
        gc.collect()


def test_a_placement_that_refuses_is_an_error_of_the_instantiation(world: World) -> None:
    with open_pool("compact", slots=1, memory_pages=2, page_bytes=2 * 1024**2, ordinary_memory=True) as pool:
        program = World(pool.engine).program(strings(), {})
        slot = pool.allocator.allocate(1)
        store = wasmtime.Store(pool.engine)
        instance = program.instance(store, None)
        with pytest.raises(wasmtime.WasmtimeError):
            to_its_end(instance.instantiate(lambda: pool.allocator.initialize(slot)))
        instance.close()
        store.close()
        assert pool.allocator.deallocate(slot)
        del program, instance, store
        gc.collect()


def test_thousands_of_instances_leave_nothing_behind(world: World) -> None:
    program = world.program(strings(), {"types#echo": lambda _, text: text})

    def rounds(count: int) -> int:
        for _ in range(count):
            with world.instance(program) as instance:
                call(instance, "run", "x" * 1000)
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = rounds(500)
    # In KiB: an object of 100 bytes that stays would be 300 of them.
    assert rounds(3000) - first < 256
