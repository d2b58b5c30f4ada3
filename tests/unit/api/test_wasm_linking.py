"""Linking of components: what a plan says, and that no bytes make it say anything else than a plan or a reason.

The components are made at random (see tests/fuzz), or cut and changed at random from one with types, resources, aliases
and components within.
"""

import random

import msgspec
import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.component_generator import Generator
from wasmpool_api.wasm.linking import link
from wasmpool_api.wasm.linking_types import NotLinkable
from wasmpool_api.wasm.plans import NONE, Item, Lower, Plan, ResourceCall
from wasmpool_api.wasm.reader import ModuleInvalid

SAMPLE = bytes(
    wasmtime.wat2wasm("""(component
  (import "test:a/things@0.2.1" (instance $things
    (export "thing" (type $t (sub resource)))
    (type $pair' (record (field "name" string) (field "of" (option (own $t)))))
    (export "pair" (type $pair (eq $pair')))
    (export "take" (func (param "x" (list $pair)) (param "y" (borrow $t)) (result (result $pair (error string)))))))
  (alias export $things "thing" (type $thing))
  (alias export $things "take" (func $take))
  (core module $libc (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $taken (canon lower (func $take) (memory $memory) (realloc $realloc) string-encoding=utf16))
  (core func $drop (canon resource.drop $thing))
  (core module $main
    (import "env" "take" (func (param i32 i32 i32 i32))) (import "env" "drop" (func (param i32)))
    (import "libc" "memory" (memory 1))
    (func (export "run") (result i32) i32.const 0) (func (export "after") (param i32)))
  (core instance $env (export "take" (func $taken)) (export "drop" (func $drop)))
  (core instance $main (instantiate $main (with "env" (instance $env)) (with "libc" (instance $libc))))
  (func $run (result string)
    (canon lift (core func $main "run") (memory $memory) (post-return (core func $main "after"))))
  (component $shell (import "f" (func $f (result string))) (export "run" (func $f)))
  (instance $shell (instantiate $shell (with "f" (func $run))))
  (export "test:a/run@1.0.0" (instance $shell))
  (export "bare" (func $run)))""")
)


def test_a_plan_has_what_a_component_boils_down_to() -> None:
    plan = link(SAMPLE)
    assert [(instance.module, instance.imports) for instance in plan.instances] == [
        (0, ()),
        (1, (Item(NONE, host=0), Item(NONE, host=1), Item(0, "memory"))),
    ]
    assert plan.exports == {"test:a/run@1.0.0": {"run": 0}, "": {"bare": 0}}
    assert [resource.name for resource in plan.resources] == ["thing"]
    take, drop = plan.hosts
    assert isinstance(take, Lower)
    assert (take.interface, take.name, take.options.encoding) == ("test:a/things@0.2.1", "take", "utf16")
    assert (take.options.memory, take.options.realloc) == (Item(0, "memory"), Item(0, "realloc"))
    assert drop == ResourceCall("drop", 0, 0)
    assert (plan.lifts[0].function, plan.lifts[0].options.post_return) == (Item(1, "run"), Item(1, "after"))
    pair = plan.types[plan.types[take.type.params[0]].items[0]]
    assert (pair.kind, pair.labels) == ("record", ("name", "of"))
    assert [plan.types[item].kind for item in pair.items] == ["string", "option"]


def test_a_plan_can_be_written_down_and_read_again() -> None:
    plan = link(SAMPLE)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def assert_is_a_plan_or_a_reason(data: bytes) -> None:
    """The invariants of Plan hold, or there is a reason why there is none."""
    try:
        plan = link(data)
    except (ModuleInvalid, NotLinkable):
        return
    for number, type_ in enumerate(plan.types):
        if type_.kind not in {"own", "borrow"}:
            assert all(NONE <= item < number for item in type_.items)
    for instance in plan.instances:
        assert 0 <= instance.module < len(plan.modules)
        for item in instance.imports:
            assert NONE <= item.instance < len(plan.instances)
            assert item.instance != NONE or 0 <= item.host < len(plan.hosts)
    for functions in plan.exports.values():
        assert all(0 <= number < len(plan.lifts) for number in functions.values())


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(8, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_a_component_that_was_changed_anywhere_is_a_plan_or_a_reason(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(SAMPLE)
    for at, byte in changes:
        data[at] = byte
    assert_is_a_plan_or_a_reason(bytes(data[: len(data) - cut] if cut > 30 else data))


@pytest.mark.parametrize("seed", range(60))
def test_random_components_are_a_plan_or_a_reason(seed: int) -> None:
    text = Generator(random.Random(seed)).component()  # noqa: S311 - reproducible, not secret
    assert_is_a_plan_or_a_reason(bytes(wasmtime.wat2wasm(text)))


def doubled(count: int, kind: str) -> bytes:
    """A type of a type of a type, each twice in the next."""
    lines = ["(type $t0 u8)"] + [f"(type $t{n} ({kind} $t{n - 1} $t{n - 1}))" for n in range(1, count)]
    return bytes(wasmtime.wat2wasm(f"(component {' '.join(lines)})"))


def test_types_that_double_are_refused_before_they_are_too_large() -> None:
    assert len(link(doubled(12, "tuple")).types) == 12
    with pytest.raises(NotLinkable, match="parts"):
        link(doubled(16, "tuple"))


def test_instances_that_double_are_refused_before_they_take_for_ever() -> None:
    lines = ['(type $t0 (instance (export "r" (type (sub resource)))))']
    for n in range(1, 26):
        inner = (
            f'(alias outer 1 $t{n - 1} (type $i)) (export "a" (instance (type $i))) (export "b" (instance (type $i)))'
        )
        lines.append(f"(type $t{n} (instance {inner}))")
    data = bytes(wasmtime.wat2wasm(f'(component {" ".join(lines)} (import "x" (instance (type $t25))))'))
    with pytest.raises(NotLinkable, match="steps"):
        link(data)
