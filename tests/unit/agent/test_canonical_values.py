"""Every type there and back through the host of the canonical ABI, and through Wasmtime's own for comparison.

A component passes on what it is given: the host lowers an argument, lifts it again as a parameter of the import, lowers
the import's result and lifts the export's. Types and values are random, so deep ones, many flat values, parameters in
memory and shared core values of variants are all among them. What a guest can say wrongly is in test_canonical_limits.
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

from tests.unit.agent.canonical_harness import Text, World, call, to_its_end
from tests.unit.agent.canonical_values import Shape, same, shapes, values
from wasmpool_agent import component_api
from wasmpool_agent.canonical import Some
from wasmpool_agent.wasmtime_async import GuestTrap

ENCODINGS = ("utf8", "utf16", "latin1+utf16")


@functools.cache
def world() -> World:
    """One for all examples: an engine is slow to make."""
    return World()


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    world.cache_clear()


def echoed(text: str, given: list[Any]) -> tuple[list[Any], list[Any]]:
    """What the host function saw, and what came back, for each value."""
    seen: list[Any] = []

    def echo(_host: object, value: Any) -> Any:
        seen.append(value)
        return value

    with world().instance(world().program(text, {"types#echo": echo})) as instance:
        return seen, [call(instance, "run", value) for value in given]


def echoed_by_wasmtime(text: str, given: list[Any]) -> tuple[list[Any], list[Any]]:
    """The same through Wasmtime's component API."""
    seen: list[Any] = []

    def echo(_host: object, value: Any) -> Any:
        seen.append(value)
        return value

    engine = world().engine
    compiled = component_api.compile_component(engine, bytes(wasmtime.wat2wasm(text)))
    program = component_api.Program.load(engine, compiled, {"types#echo": echo}, frozenset())
    store = wasmtime.Store(engine)
    instance = program.instance(store, None)
    results: list[Any] = []
    try:
        to_its_end(instance.instantiate(nullcontext))
        for value in given:
            made = instance.call("", "run", value)
            to_its_end(made)
            results.append(made.result())
    finally:
        instance.close()
        store.close()
    return seen, results


@st.composite
def samples(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """A component, and values for it."""
    shape = draw(shapes())
    text = Text()
    return text.echo(shape.write(text), draw(st.sampled_from(ENCODINGS))), draw(
        st.lists(values(shape), min_size=1, max_size=3)
    )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(samples())
def test_values_of_any_type_come_and_go_unchanged_and_as_wasmtime_passes_them(sample: tuple[str, list[Any]]) -> None:
    text, given = sample
    seen, results = echoed(text, given)
    assert same(seen, given)
    assert same(results, given)
    assert [same(one, other) for one, other in zip(echoed_by_wasmtime(text, given), (seen, results), strict=True)] == [
        True,
        True,
    ]


EXAMPLES: list[tuple[Shape, list[Any]]] = [
    (Shape("bool"), [True, False]),
    (Shape("s8"), [-128, -1, 127]),
    (Shape("u64"), [0, 2**64 - 1]),
    (Shape("s64"), [-(2**63), 2**63 - 1]),
    (Shape("f32"), [0.5, float("inf"), float("nan"), -0.0]),
    (Shape("char"), ["a", "\0", "\ud7ff", "\ue000", "\U0010ffff"]),
    (Shape("string"), ["", "latin \xff", "snow \u2603", "crab \U0001f980" * 1000]),
    (Shape("list", (), (Shape("u8"),)), [b"", bytes(range(256)) * 1000]),
    (Shape("list", (), (Shape("bool"),)), [[], [True, False, True]]),
    (Shape("list", (), (Shape("u32"),)), [[], [0, 2**32 - 1]]),
    (Shape("list", (), (Shape("s16"),)), [[-(2**15), 2**15 - 1]]),
    (Shape("option", (), (Shape("option", (), (Shape("string"),)),)), [None, Some(None), Some("x")]),
    (Shape("result", (), (None, None)), [(True, None), (False, None)]),
    (Shape("flags", tuple(f"f{n}" for n in range(32))), [frozenset(), frozenset({"f0", "f31"})]),
    (Shape("enum", tuple(f"e{n}" for n in range(257))), ["e0", "e255", "e256"]),
    (Shape("tuple", (), (Shape("u8"),) * 17), [tuple(range(17))]),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("shape", "given"), EXAMPLES, ids=lambda it: it.kind if isinstance(it, Shape) else "")
def test_the_edges_of_each_type(shape: Shape, given: list[Any], encoding: str) -> None:
    text = Text()
    seen, results = echoed(text.echo(shape.write(text), encoding), given)
    assert same(seen, given)
    assert same(results, given)


@pytest.mark.parametrize("given", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c-")[::2]])
def test_bytes_of_every_kind_are_taken(given: Any) -> None:
    text = Text()
    _, results = echoed(text.echo(Shape("list", (), (Shape("u8"),)).write(text)), [given])
    assert results == [b"abc"]


WRONG: list[tuple[Shape, Any, Any]] = [
    (Shape("u8"), 1, 256),
    (Shape("s8"), 1, -129),
    (Shape("u64"), 1, -1),
    (Shape("u64"), 1, None),
    (Shape("char"), "a", "ab"),
    (Shape("char"), "a", "\ud800"),
    (Shape("string"), "a", "\ud800"),
    (Shape("string"), "a", b"a"),
    (Shape("list", (), (Shape("u8"),)), b"", "text"),
    (Shape("list", (), (Shape("u32"),)), [1], [2**32]),
    (Shape("tuple", (), (Shape("u8"), Shape("string"))), (1, ""), (1,)),
    (Shape("record", ("a", "b"), (Shape("u8"), Shape("u8"))), {"a": 1, "b": 1}, {"a": 1}),
    (Shape("enum", ("a", "b")), "a", "c"),
    (Shape("flags", ("a", "b")), frozenset(), frozenset({"c"})),
    (Shape("variant", ("a", "b"), (None, Shape("u8"))), ("a", None), ("c", None)),
    (Shape("variant", ("a", "b"), (None, Shape("u8"))), ("a", None), ("b", 256)),
    (Shape("option", (), (Shape("option", (), (Shape("u8"),)),)), None, 5),
]


@pytest.mark.parametrize(
    ("shape", "right", "wrong"), WRONG, ids=[f"{shape.kind}-{wrong!r}" for shape, _, wrong in WRONG]
)
def test_what_the_host_gives_wrongly_is_an_error_with_a_name_and_never_another_value(
    shape: Shape, right: Any, wrong: Any
) -> None:
    text = Text()
    program = world().program(text.echo(shape.write(text)), {"types#echo": lambda _, __: wrong})
    with world().instance(program) as instance, pytest.raises(GuestTrap, match="failed in the host: "):
        call(instance, "run", right)
    with (
        world().instance(program) as instance,
        pytest.raises((GuestTrap, ValueError, TypeError, KeyError, AttributeError, struct.error)),
    ):
        call(instance, "run", wrong)
