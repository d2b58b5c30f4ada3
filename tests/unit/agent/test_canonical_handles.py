"""Handles: whom a resource belongs to, who has borrowed it, and when its end comes, for the host's and the guest's own.

Covers each rule that a guest can break: numbers that are no handle, of another resource, given twice, given while lent,
lent and not returned, too many; and that what a guest leaves behind is closed, once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.agent.canonical_harness import World, call, ticking, to_its_end
from wasmpool_agent.canonical import GuestResource
from wasmpool_agent.canonical.handles import MAX_HANDLES
from wasmpool_agent.wasmtime_async import GuestTrap


class Thing:
    """A resource of the host's."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


THINGS = """(component
  (import "test:a/things@0.2.0" (instance $old
    (export "thing" (type $t (sub resource)))
    (export "make" (func (param "n" u32) (result (own $t))))
    (export "number" (func (param "self" (borrow $t)) (result u32)))
    (export "both" (func (param "x" (borrow $t)) (param "y" (own $t))))
    (export "swapped" (func (param "y" (own $t)) (param "x" (borrow $t))))
    (export "all" (func (param "x" (list (borrow $t))) (result u32)))
    (export "eat" (func (param "x" (own $t))))))
  (import "test:a/things@0.2.9" (instance $new
    (export "thing" (type $t (sub resource)))
    (export "number" (func (param "self" (borrow $t)) (result u32)))))
  (alias export $old "thing" (type $thing))
  (alias export $new "thing" (type $newer))
  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (core func $make (canon lower (func $old "make")))
  (core func $number (canon lower (func $old "number")))
  (core func $both (canon lower (func $old "both")))
  (core func $swapped (canon lower (func $old "swapped")))
  (core func $all (canon lower (func $old "all") (memory $memory)))
  (core func $eat (canon lower (func $old "eat")))
  (core func $newer (canon lower (func $new "number")))
  (core func $drop (canon resource.drop $thing))
  (core module $m
    (import "" "memory" (memory 1))
    (import "" "make" (func $make (param i32) (result i32)))
    (import "" "number" (func $number (param i32) (result i32)))
    (import "" "both" (func $both (param i32 i32)))
    (import "" "swapped" (func $swapped (param i32 i32)))
    (import "" "all" (func $all (param i32 i32) (result i32)))
    (import "" "eat" (func $eat (param i32)))
    (import "" "newer" (func $newer (param i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "make") (param i32) (result i32) (call $make (local.get 0)))
    (func (export "number") (param i32) (result i32) (call $number (local.get 0)))
    (func (export "twice") (param i32) (call $both (local.get 0) (local.get 0)))
    (func (export "swapped") (param i32) (call $swapped (local.get 0) (local.get 0)))
    (func (export "both") (param i32 i32) (call $both (local.get 0) (local.get 1)))
    (func (export "all") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1))
      (i32.store (i32.const 24) (local.get 0))
      (call $all (i32.const 16) (i32.const 3)))
    (func (export "eat") (param i32) (call $eat (local.get 0)))
    (func (export "newer") (param i32) (result i32) (call $newer (local.get 0)))
    (func (export "drop") (param i32) (call $drop (local.get 0)))
    (func (export "hoard") (loop (drop (call $make (i32.const 0))) (br 0)))
    (func (export "use") (param i32) (result i32) (local i32)
      (local.set 1 (call $number (local.get 0))) (call $drop (local.get 0)) (local.get 1))
    (func (export "id") (param i32) (result i32) (local.get 0))
    (func (export "keep") (param i32) (result i32) (call $number (local.get 0)))
    (func (export "give") (param i32) (call $eat (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance
    (export "memory" (memory $memory))
    (export "make" (func $make)) (export "number" (func $number)) (export "both" (func $both))
    (export "swapped" (func $swapped)) (export "all" (func $all)) (export "eat" (func $eat))
    (export "newer" (func $newer)) (export "drop" (func $drop))))))
  (func (export "make") (param "n" u32) (result u32) (canon lift (core func $i "make")))
  (func (export "number") (param "h" u32) (result u32) (canon lift (core func $i "number")))
  (func (export "twice") (param "h" u32) (canon lift (core func $i "twice")))
  (func (export "swapped") (param "h" u32) (canon lift (core func $i "swapped")))
  (func (export "both") (param "h" u32) (param "g" u32) (canon lift (core func $i "both")))
  (func (export "all") (param "h" u32) (param "g" u32) (result u32) (canon lift (core func $i "all")))
  (func (export "eat") (param "h" u32) (canon lift (core func $i "eat")))
  (func (export "newer") (param "h" u32) (result u32) (canon lift (core func $i "newer")))
  (func (export "drop") (param "h" u32) (canon lift (core func $i "drop")))
  (func (export "hoard") (canon lift (core func $i "hoard")))
  (func (export "given") (param "x" (own $thing)) (result u32) (canon lift (core func $i "use")))
  (func (export "lent") (param "x" (borrow $thing)) (result u32) (canon lift (core func $i "use")))
  (func (export "kept") (param "x" (borrow $thing)) (result u32) (canon lift (core func $i "keep")))
  (func (export "given-away") (param "x" (borrow $thing)) (canon lift (core func $i "give")))
  (func (export "back") (param "h" u32) (result (own $thing)) (canon lift (core func $i "id"))))"""


class Things:
    """The host's side, and one instance."""

    def __init__(self) -> None:
        self.made: list[Thing] = []
        self.seen: list[Any] = []
        self.functions: dict[str, Callable[..., object]] = {
            "test:a/things#make": lambda _, number: self._make(number),
            "test:a/things#number": lambda _, thing: thing.name,
            "test:a/things#both": lambda _, one, other: self.seen.append((one, other)),
            "test:a/things#swapped": lambda _, one, other: self.seen.append((one, other)),
            "test:a/things#all": lambda _, things: sum(thing.name for thing in things),
            "test:a/things#eat": lambda _, thing: self.seen.append(thing),
        }

    def _make(self, number: int) -> Thing:
        self.made.append(Thing(number))
        return self.made[-1]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def guest(world: World, things: Things) -> Iterator[Callable[..., Any]]:
    """Calls an export of one instance."""
    with world.instance(world.program(THINGS, things.functions)) as instance:
        yield lambda name, *arguments: call(instance, name, *arguments)


def test_handles_are_small_numbers_used_again_and_never_zero(guest: Callable[..., Any], things: Things) -> None:
    assert [guest("make", n) for n in (7, 8, 9)] == [1, 2, 3]
    guest("drop", 2)
    assert [thing.closed for thing in things.made] == [0, 1, 0]
    assert guest("make", 10) == 2
    assert [guest("number", h) for h in (1, 2, 3)] == [7, 10, 9]
    assert guest("all", 1, 3) == 7 + 9 + 7


def test_what_is_given_away_is_the_hosts_and_is_not_closed(guest: Callable[..., Any], things: Things) -> None:
    guest("both", guest("make", 1), guest("make", 2))
    guest("eat", 1)
    assert things.seen == [(things.made[0], things.made[1]), things.made[0]]
    assert guest("back", guest("make", 3)) is things.made[2]
    assert [thing.closed for thing in things.made] == [0, 0, 0]


WRONG = [
    ("zero", [], "number", (0,), "unknown handle index 0"),
    ("one that never was", [1], "number", (2,), "unknown handle index 2"),
    ("the largest number", [1], "number", (2**32 - 1,), "unknown handle index 4294967295"),
    ("one that was dropped", [1], "drop-and-use", (1,), "unknown handle index 1"),
    ("one that was given away", [1], "eat-and-use", (1,), "unknown handle index 1"),
    ("of another version's resource", [1], "newer", (1,), "is a thing, used as a thing"),
    ("given while it is lent", [1], "twice", (1,), "is borrowed by a call"),
    ("lent after it was given", [1], "swapped", (1,), "unknown handle index 1"),
]


@pytest.mark.parametrize(
    ("make", "name", "arguments", "message"), [it[1:] for it in WRONG], ids=[it[0] for it in WRONG]
)
def test_a_handle_that_is_wrong_ends_the_guest(
    guest: Callable[..., Any], things: Things, make: list[int], name: str, arguments: tuple[int, ...], message: str
) -> None:
    for number in make:
        guest("make", number)
    first, _, then = name.partition("-and-")
    if then:
        guest(first, *arguments)
        first = "number"
    with pytest.raises(GuestTrap, match=message):
        guest(first, *arguments)
    with pytest.raises(RuntimeError, match="has ended"):
        guest("make", 1)


def test_a_guest_has_only_so_many_handles(world: World, things: Things) -> None:
    with (
        world.instance(world.program(THINGS, things.functions)) as instance,
        pytest.raises(GuestTrap, match=f"more than {MAX_HANDLES} handles"),
    ):
        call(instance, "hoard")
    assert len(things.made) == MAX_HANDLES + 1
    # The one that had no room any more is nobody's.
    assert sum(thing.closed for thing in things.made) == MAX_HANDLES


def test_what_the_host_gives_and_lends(guest: Callable[..., Any]) -> None:
    mine = Thing(7)
    assert guest("given", mine) == 7
    assert mine.closed == 1
    other = Thing(8)
    assert guest("lent", other) == 8
    assert other.closed == 0


@pytest.mark.parametrize(("name", "message"), [
    ("kept", "borrow handles still remain"), ("given-away", "only borrowed"),
])  # fmt: skip
def test_what_is_lent_must_come_back(guest: Callable[..., Any], name: str, message: str) -> None:
    thing = Thing(1)
    with pytest.raises(GuestTrap, match=message):
        guest(name, thing)
    assert thing.closed == 0


def test_what_a_guest_leaves_behind_is_closed_once(world: World, things: Things) -> None:
    with world.instance(world.program(THINGS, things.functions)) as instance:
        for number in (1, 2, 3):
            call(instance, "make", number)
        call(instance, "drop", 2)
        call(instance, "eat", 3)
    assert [thing.closed for thing in things.made] == [1, 1, 0]


OWN = """(component
  (import "log" (func $log (param "x" u32)))
  (core module $dtor
    (import "" "log" (func $log (param i32)))
    (func (export "end") (param i32)
      (if (i32.eq (local.get 0) (i32.const 13)) (then (loop (br 0))))
      (call $log (local.get 0))))
  (core func $log (canon lower (func $log)))
  (core instance $dtor (instantiate $dtor (with "" (instance (export "log" (func $log))))))
  (alias core export $dtor "end" (core func $end))
  (type $mine' (resource (rep i32) (dtor (core func $end))))
  (export $mine "mine" (type $mine'))
  (core func $new (canon resource.new $mine'))
  (core func $rep (canon resource.rep $mine'))
  (core func $drop (canon resource.drop $mine'))
  (core module $m
    (import "" "new" (func $new (param i32) (result i32)))
    (import "" "rep" (func $rep (param i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "make") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "number") (param i32) (result i32) (local.get 0))
    (func (export "take") (param i32) (result i32) (local i32)
      (local.set 1 (call $rep (local.get 0))) (call $drop (local.get 0)) (local.get 1))
    (func (export "drop") (param i32) (call $drop (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance
    (export "new" (func $new)) (export "rep" (func $rep)) (export "drop" (func $drop))))))
  (func (export "make") (param "n" u32) (result (own $mine)) (canon lift (core func $i "make")))
  (func (export "number") (param "x" (borrow $mine)) (result u32) (canon lift (core func $i "number")))
  (func (export "take") (param "x" (own $mine)) (result u32) (canon lift (core func $i "take")))
  (func (export "drop") (param "h" u32) (canon lift (core func $i "drop"))))"""


def test_a_guests_own_resources_are_known_to_the_host_by_what_they_are_to_the_guest(world: World) -> None:
    ended: list[int] = []
    with world.instance(world.program(OWN, {"log": lambda _, number: ended.append(number)})) as instance:
        one, other = call(instance, "make", 5), call(instance, "make", 6)
        assert isinstance(one, GuestResource)
        assert (call(instance, "number", one), call(instance, "number", other)) == (5, 6)
        assert call(instance, "take", one) == 5
        assert ended == [5]
        to_its_end(instance.drop(other))
        assert ended == [5, 6]
        with pytest.raises(TypeError, match="is no resource"):
            call(instance, "number", Thing(1))


def test_a_destructor_is_guest_code_that_can_be_suspended_and_ended(world: World) -> None:
    with world.instance(world.program(OWN, {"log": lambda *_: None})) as instance:
        resource = call(instance, "make", 13)
        spinning = instance.drop(resource)
        with ticking(world.engine):
            assert not spinning.poll()
            assert not spinning.poll()
        assert spinning.waits_for is None
        spinning.close()
        with pytest.raises(RuntimeError, match="has ended"):
            call(instance, "make", 1)
