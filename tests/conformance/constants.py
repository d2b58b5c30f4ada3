"""Constants of test scripts as bits: what a call is given, and what its results are compared with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal

from tests.conformance.s_expressions import Form

Nan = Literal["canonical", "arithmetic"]
_HEXADECIMAL: Final = re.compile(r"0x(?P<whole>[0-9a-f]*)\.?(?P<part>[0-9a-f]*)(?:p(?P<exponent>[-+]?\d+))?\Z")
_FORMATS: Final = {32: (24, -126), 64: (53, -1022)}
"""Bits of precision, and the least exponent of a normal number."""
_LANES: Final = {
    "i8x16": (8, 16),
    "i16x8": (16, 8),
    "i32x4": (32, 4),
    "i64x2": (64, 2),
    "f32x4": (32, 4),
    "f64x2": (64, 2),
}
REFERENCES: Final = frozenset({"funcref", "externref", "anyref", "exnref"})


@dataclass(frozen=True, slots=True)
class Value:
    """`type`: i32, i64, f32, f64, v128 or a kind of reference; `bits` of a reference: 0 for null, else 1."""

    type: str
    bits: int


@dataclass(frozen=True, slots=True)
class Expected:
    """One of several values, of which each is lanes from the lowest, of `width` bits: a number, or a kind of NaN."""

    type: str
    width: int
    choices: tuple[tuple[int | Nan, ...], ...]

    def matches(self, value: Value) -> bool:
        """True if the value is one of them."""
        if value.type != self.type:
            return False
        mask = (1 << self.width) - 1
        return any(
            all(_lane_matches(lane, value.bits >> (i * self.width) & mask, self.width) for i, lane in enumerate(lanes))
            for lanes in self.choices
        )


def _lane_matches(lane: int | Nan, bits: int, width: int) -> bool:
    if isinstance(lane, int):
        return lane == bits
    precision = _FORMATS[width][0]
    quiet = (1 << (width - precision + 1)) - 1 << (precision - 2)  # the exponent's bits and the first of the payload
    unsigned = bits & ~(1 << (width - 1))
    return unsigned == quiet if lane == "canonical" else unsigned & quiet == quiet


@lru_cache(maxsize=65536)
def integer(text: str, width: int) -> int:
    """Two's complement. Raises ValueError."""
    value = int(text.replace("_", ""), 0 if "x" in text else 10)
    if not -(1 << (width - 1)) <= value < 1 << width:
        raise ValueError(f"{text} does not fit {width} bits")
    return value & ((1 << width) - 1)


def _magnitude(text: str) -> Fraction:
    if (match := _HEXADECIMAL.match(text)) is not None:
        whole = int(match["whole"] + match["part"] or "0", 16)
        return whole * Fraction(2) ** (int(match["exponent"] or 0) - 4 * len(match["part"]))
    return Fraction(text)


@lru_cache(maxsize=65536)
def floating(text: str, width: int) -> int | Nan:
    """The nearest number's bits, ties to even; a NaN of any payload, or a kind of NaN. Raises ValueError."""
    precision, least = _FORMATS[width]
    text = text.replace("_", "").lower()
    sign = int(text.startswith("-")) << (width - 1)
    text = text.lstrip("+-")
    infinity = (1 << (width - precision)) - 1 << (precision - 1)
    match text:
        case "inf":
            return sign | infinity
        case "nan":
            return sign | infinity | 1 << (precision - 2)
        case "nan:canonical":
            return "canonical"
        case "nan:arithmetic":
            return "arithmetic"
        case _ if text.startswith("nan:"):
            return sign | infinity | int(text.removeprefix("nan:"), 16)
        case _:
            pass
    value = _magnitude(text)
    if value == 0:
        return sign
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent = max(exponent - (value < Fraction(2) ** exponent), least)
    digits = round(value / Fraction(2) ** (exponent - precision + 1))
    # A carry out of the digits moves into the exponent by itself; numbers below the least exponent have none.
    return sign | (((exponent - least) << (precision - 1)) + digits)


def _lane(text: str, shape: str, width: int) -> int | Nan:
    return floating(text, width) if shape.startswith("f") else integer(text, width)


def _words(form: Form) -> list[str]:
    return [item for item in form.items if isinstance(item, str)]


def value(form: Form) -> Value:
    """Of `(i32.const 1)` and the like. Raises ValueError for what is no constant, such as `(ref.extern 1)`."""
    lanes = expected(form)
    (numbers,) = lanes.choices
    bits = 0
    for i, lane in enumerate(numbers):
        if not isinstance(lane, int):
            raise ValueError(f"{lane} is no value to give")  # noqa: TRY004 -- the type is right
        bits |= lane << (i * lanes.width)
    return Value(lanes.type, bits)


def expected(form: Form) -> Expected:
    """Of what an assertion expects. Raises ValueError for what scripts say of references to objects."""
    words = _words(form)
    match words:
        case ["i32.const" | "i64.const" as head, text]:
            width = int(head[1:3])
            return Expected(head[:3], width, ((integer(text, width),),))
        case ["f32.const" | "f64.const" as head, text]:
            width = int(head[1:3])
            return Expected(head[:3], width, ((floating(text, width),),))
        case ["v128.const", shape, *texts] if shape in _LANES and len(texts) == _LANES[shape][1]:
            width = _LANES[shape][0]
            return Expected("v128", width, (tuple(_lane(text, shape, width) for text in texts),))
        case ["ref.null", "func" | "nofunc"] | ["ref.null"]:
            return Expected("funcref", 1, ((0,),))
        case ["ref.func"]:
            return Expected("funcref", 1, ((1,),))
        case ["either"]:
            return _either([expected(item) for item in form.items if isinstance(item, Form)])
        case _:
            raise ValueError(f"constants of {words[:2]} are not known")


def _either(choices: Sequence[Expected]) -> Expected:
    first = choices[0]
    if any((choice.type, choice.width) != (first.type, first.width) for choice in choices):
        raise ValueError("the choices are of different types")
    return Expected(first.type, first.width, tuple(lanes for choice in choices for lanes in choice.choices))
