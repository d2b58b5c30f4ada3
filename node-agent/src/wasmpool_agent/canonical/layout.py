"""Where the parts of a value are: in memory, and among the values of a core function. Pure."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.canonical.values import Unsupported
from wasmpool_api.wasm.plans import NONE, FunctionType, Type

I32: Final = "I"
I64: Final = "Q"
F32: Final = "f"
F64: Final = "d"
"""Core value types as `struct` spells them; integers are unsigned on this side."""

NUMBERS: Final = {
    "bool": "B",
    "u8": "B",
    "s8": "b",
    "u16": "H",
    "s16": "h",
    "u32": "I",
    "s32": "i",
    "u64": "Q",
    "s64": "q",
    "f32": "f",
    "f64": "d",
    "char": "I",
}
"""How `struct` spells each in memory."""
WIDTHS: Final = {"B": 1, "b": 1, "H": 2, "h": 2, "I": 4, "i": 4, "Q": 8, "q": 8, "f": 4, "d": 8}
MAX_FLAT_PARAMS: Final = 16
MAX_FLAT_RESULTS: Final = 1
_CASES: Final = frozenset({"variant", "option", "result", "enum"})
_FLAT: Final = {"Q": I64, "q": I64, "f": F32, "d": F64}


def aligned(offset: int, alignment: int) -> int:
    """The next multiple of `alignment`, a power of two."""
    return (offset + alignment - 1) & -alignment


@dataclass(frozen=True, slots=True)
class Cases:
    """A type that has one of several contents. `items`: a type or NONE for each; `offset`: of the content."""

    items: tuple[int, ...]
    discriminant: str
    offset: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A core function. `params_in_memory`, `result_in_memory`: passed by one pointer."""

    params: str
    results: str
    params_in_memory: bool
    result_in_memory: bool


class Layouts:
    """Of all types of one plan."""

    def __init__(self, types: tuple[Type, ...]) -> None:
        self.types = types
        self._sizes: dict[int, tuple[int, int]] = {}
        self._flat: dict[int, str] = {}

    def size(self, number: int) -> tuple[int, int]:
        """Bytes, alignment."""
        found = self._sizes.get(number)
        if found is None:
            found = self._sizes[number] = self._size(self.types[number])
        return found

    def flat(self, number: int) -> str:
        """The core values that one is passed as."""
        found = self._flat.get(number)
        if found is None:
            found = self._flat[number] = self._flattened(self.types[number])
        return found

    def offsets(self, items: tuple[int, ...]) -> tuple[int, ...]:
        """Of the fields of a record."""
        at = 0
        found: list[int] = []
        for item in items:
            size, alignment = self.size(item)
            at = aligned(at, alignment)
            found.append(at)
            at += size
        return tuple(found)

    def record_size(self, items: tuple[int, ...]) -> tuple[int, int]:
        """Bytes, alignment of a record of such fields."""
        alignment = max((self.size(item)[1] for item in items), default=1)
        end = self.offsets(items)[-1] + self.size(items[-1])[0] if items else 0
        return aligned(end, alignment), alignment

    def cases(self, type_: Type) -> Cases:
        """Of a variant, option, result or enum."""
        items = case_items(type_)
        discriminant = "B" if len(items) <= 2**8 else "H" if len(items) <= 2**16 else "I"
        width = WIDTHS[discriminant]
        alignment = max((self.size(item)[1] for item in items if item != NONE), default=1)
        return Cases(items, discriminant, aligned(width, alignment), max(alignment, width))

    def signature(self, kind: FunctionType, *, lowered: bool) -> Signature:
        """Of the core function that stands for such a function."""
        params = "".join(self.flat(param) for param in kind.params)
        results = "" if kind.result == NONE else self.flat(kind.result)
        params_in_memory, result_in_memory = len(params) > MAX_FLAT_PARAMS, len(results) > MAX_FLAT_RESULTS
        if params_in_memory:
            params = I32
        if result_in_memory:
            params, results = (params + I32, "") if lowered else (params, I32)
        return Signature(params, results, params_in_memory, result_in_memory)

    def points(self, number: int) -> bool:
        """Whether values of it hold strings or lists, which take memory of their own."""
        type_ = self.types[number]
        if type_.kind in {"own", "borrow"}:
            return False
        return type_.kind in {"string", "list"} or any(self.points(item) for item in type_.items if item != NONE)

    def holds(self, number: int, kinds: Set[str]) -> bool:
        """Whether there is such a type somewhere in it."""
        type_ = self.types[number]
        if type_.kind in kinds:
            return True
        if type_.kind in {"own", "borrow"}:
            return False
        return any(self.holds(item, kinds) for item in type_.items if item != NONE)

    def _size(self, type_: Type) -> tuple[int, int]:
        kind = type_.kind
        if kind in NUMBERS:
            width = WIDTHS[NUMBERS[kind]]
            return width, width
        if kind in {"string", "list"}:
            return 8, 4
        if kind in {"own", "borrow"}:
            return 4, 4
        if kind == "flags":
            width = flags_width(type_)
            return width, width
        if kind in {"record", "tuple"}:
            return self.record_size(type_.items)
        if kind in _CASES:
            cases = self.cases(type_)
            content = max((self.size(item)[0] for item in cases.items if item != NONE), default=0)
            return aligned(cases.offset + content, cases.alignment), cases.alignment
        raise Unsupported(f"values of type {kind}")

    def _flattened(self, type_: Type) -> str:
        kind = type_.kind
        if kind in NUMBERS:
            return _FLAT.get(NUMBERS[kind], I32)
        if kind in {"string", "list"}:
            return I32 + I32
        if kind in {"own", "borrow", "flags"}:
            return I32
        if kind in {"record", "tuple"}:
            return "".join(self.flat(item) for item in type_.items)
        if kind in _CASES:
            joined: list[str] = []
            for item in case_items(type_):
                for place, value in enumerate(self.flat(item) if item != NONE else ""):
                    if place == len(joined):
                        joined.append(value)
                    else:
                        joined[place] = _join(joined[place], value)
            return I32 + "".join(joined)
        raise Unsupported(f"values of type {kind}")


def case_items(type_: Type) -> tuple[int, ...]:
    """What each case holds, a type or NONE, in the order of their numbers."""
    match type_.kind:
        case "option":
            return (NONE, type_.items[0])
        case "enum":
            return (NONE,) * len(type_.labels)
        case _:
            return type_.items


def flags_width(type_: Type) -> int:
    """Bytes that up to 32 flags take."""
    count = len(type_.labels)
    return 1 if count <= 8 else 2 if count <= 16 else 4


def _join(one: str, other: str) -> str:
    if one == other:
        return one
    return I32 if {one, other} == {I32, F32} else I64
