"""Types and values of them at random, as the Component Model has them."""

import math
import struct
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.unit.agent.canonical_harness import Text
from wasmpool_agent.canonical import Some
from wasmpool_api.wasm.plans import NONE

INTEGERS = {f"{sign}{bits}": (sign, bits) for sign in "us" for bits in (8, 16, 32, 64)}
PRIMITIVES = ("bool", *INTEGERS, "f32", "f64", "char", "string")
CHARACTERS = st.characters(exclude_categories=["Cs"])


@dataclass(frozen=True)
class Shape:
    """A type. `items`: its parts; None for a case without content."""

    kind: str
    labels: tuple[str, ...] = ()
    items: "tuple[Shape | None, ...]" = ()

    def write(self, text: Text) -> int:
        """Its number there."""
        items = tuple(NONE if item is None else item.write(text) for item in self.items)
        return text.add(self.kind, self.labels, items)


def _labels(count: int) -> tuple[str, ...]:
    return tuple(f"a{n}" for n in range(count))


def _compound(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    several = st.lists(inner, min_size=1, max_size=5)
    maybe = st.one_of(st.none(), inner)
    return st.one_of(
        several.map(lambda items: Shape("record", _labels(len(items)), tuple(items))),
        several.map(lambda items: Shape("tuple", (), tuple(items))),
        st.lists(maybe, min_size=1, max_size=5).map(lambda items: Shape("variant", _labels(len(items)), tuple(items))),
        inner.map(lambda item: Shape("list", (), (item,))),
        inner.map(lambda item: Shape("option", (), (item,))),
        st.tuples(maybe, maybe).map(lambda items: Shape("result", (), items)),
    )


def shapes() -> st.SearchStrategy[Shape]:
    """Types, some of them deep; large enough for parameters in memory."""
    leaves = st.one_of(
        st.sampled_from(PRIMITIVES).map(Shape),
        st.integers(1, 32).map(lambda count: Shape("flags", _labels(count))),
        st.one_of(st.integers(1, 5), st.sampled_from([255, 256, 257])).map(lambda n: Shape("enum", _labels(n))),
        st.just(Shape("list", (), (Shape("u8"),))),
    )
    return st.recursive(leaves, _compound, max_leaves=12)


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of the type, as they are lifted."""
    if shape.kind in INTEGERS:
        sign, bits = INTEGERS[shape.kind]
        least = -(2 ** (bits - 1)) if sign == "s" else 0
        return st.integers(least, least + 2**bits - 1)
    match shape.kind:
        case "bool":
            return st.booleans()
        case "f32":
            return st.floats(width=32)
        case "f64":
            return st.floats()
        case "char":
            return CHARACTERS
        case "string":
            return st.text(CHARACTERS, max_size=20)
        case "list":
            return st.binary(max_size=20) if shape.items[0] == Shape("u8") else st.lists(_of(shape, 0), max_size=4)
        case "tuple":
            return st.tuples(*(_of(shape, n) for n in range(len(shape.items))))
        case "record":
            return st.fixed_dictionaries({label: _of(shape, n) for n, label in enumerate(shape.labels)})
        case "flags":
            return st.frozensets(st.sampled_from(shape.labels))
        case "enum":
            return st.sampled_from(shape.labels)
        case "option":
            nested = shape.items[0] is not None and shape.items[0].kind == "option"
            inner = _of(shape, 0)
            return st.one_of(st.none(), inner.map(Some) if nested else inner)
        case "result":
            return st.one_of(_of(shape, 0).map(lambda it: (True, it)), _of(shape, 1).map(lambda it: (False, it)))
        case _:
            cases = [_of(shape, n).map(lambda it, label=label: (label, it)) for n, label in enumerate(shape.labels)]
            return st.one_of(cases)


def _of(shape: Shape, number: int) -> st.SearchStrategy[Any]:
    item = shape.items[number]
    return st.none() if item is None else values(item)


def same(one: Any, other: Any) -> bool:
    """Equal, of equal types; any NaN is one, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, Some):
        return same(one.value, other.value)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
