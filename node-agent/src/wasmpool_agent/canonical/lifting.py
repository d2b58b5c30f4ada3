"""From the guest to the host: values in memory, or among the values of a core function, as Python's.

A type becomes a closure once, not a walk through its parts with every value. Whatever the guest says wrongly ends it.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, cast

from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.layout import F32, F64, I32, I64, NUMBERS, WIDTHS, Cases, Layouts, flags_width
from wasmpool_agent.canonical.memory import LISTED_BYTES
from wasmpool_agent.canonical.values import GuestResource, Some
from wasmpool_agent.wasmtime_async import HostTrap
from wasmpool_api.wasm.plans import NONE, Resource, Type

Loader = Callable[[Context, int], Any]
"""(context, address) -> value. The address has been checked, for all that is there without following a pointer."""
Lifter = Callable[[Context, "tuple[Any, ...]"], Any]
"""(context, core values) -> value. Where among them is known to the closure."""
ListLoader = Callable[[Context, int, int], Any]
"""(context, pointer, length) -> value. Nothing has been checked."""
_NAN: Final = float("nan")
_WORD: Final = Struct("<I").unpack_from
_PAIR: Final = Struct("<II").unpack_from
_FLAGS: Final = {1: "B", 2: "H", 4: "I"}


def canonical_float(value: float) -> float:
    """The one NaN for all of them."""
    return value if value == value else _NAN


def _char(number: int) -> str:
    if number >= 0x110000 or 0xD800 <= number < 0xE000:
        raise HostTrap(f"{number:#x} is not a char")
    return chr(number)


class Lifting:
    """Makes the closures for the types of one plan. `tracks`: whether what is borrowed is noted, see `Context.lent`."""

    def __init__(self, layouts: Layouts, resources: tuple[Resource, ...], *, tracks: bool = True) -> None:
        self._tracks = tracks
        self._layouts = layouts
        self._types = layouts.types
        self._resources = resources
        self._loaders: dict[int, Loader] = {}
        self._list_loaders: dict[int, ListLoader] = {}

    def loader(self, number: int) -> Loader:
        """For a value in memory."""
        found = self._loaders.get(number)
        if found is None:
            found = self._loaders[number] = self._loader(self._types[number])
        return found

    def record_loader(self, items: tuple[int, ...]) -> Loader:
        """For parameters in memory: a tuple."""
        parts = [(at, self.loader(item)) for at, item in zip(self._layouts.offsets(items), items, strict=True)]
        return lambda context, address: tuple([load(context, address + at) for at, load in parts])

    def _loader(self, type_: Type) -> Loader:
        kind = type_.kind
        if kind in NUMBERS:
            return _number_loader(kind)
        match kind:
            case "string":
                return lambda context, address: context.decode(context.memory, *_PAIR(context.memory.view, address))
            case "list":
                load = self.list_loader(type_)
                return lambda context, address: load(context, *_PAIR(context.memory.view, address))
            case "own" | "borrow":
                take = self._handle(type_)
                return lambda context, address: take(context, _WORD(context.memory.view, address)[0])
            case "flags":
                unpack = Struct("<" + _FLAGS[flags_width(type_)]).unpack_from
                split = _flags(type_)
                return lambda context, address: split(unpack(context.memory.view, address)[0])
            case "record":
                parts = self.record_loader(type_.items)
                labels = type_.labels
                return lambda context, address: dict(zip(labels, parts(context, address), strict=True))
            case "tuple":
                return self.record_loader(type_.items)
            case _:
                return self._case_loader(type_, self._layouts.cases(type_))

    def _case_loader(self, type_: Type, cases: Cases) -> Loader:
        unpack = Struct("<" + cases.discriminant).unpack_from
        wrap = _wrapper(type_, self._types)
        loaders = [None if item == NONE else self.loader(item) for item in cases.items]
        count, content = len(loaders), cases.offset

        def load(context: Context, address: int) -> Any:
            case: int = unpack(context.memory.view, address)[0]
            if case >= count:
                raise HostTrap(f"case {case} of {count} that there are")
            inner = loaders[case]
            return wrap(case, None if inner is None else inner(context, address + content))

        return load

    def list_loader(self, type_: Type) -> ListLoader:
        """For a list that a pointer and a length are known of."""
        item = type_.items[0]
        found = self._list_loaders.get(item)
        if found is None:
            found = self._list_loaders[item] = self._list_loader(item)
        return found

    def _list_loader(self, item: int) -> ListLoader:
        kind = self._types[item].kind
        if kind == "u8":
            return lambda context, pointer, length: context.memory.slice_at(pointer, length).tobytes()
        size, alignment = self._layouts.size(item)
        cost = max(size, LISTED_BYTES)
        if kind in NUMBERS and kind not in {"bool", "char", "f32", "f64"}:
            code: Any = NUMBERS[kind]

            def load_numbers(context: Context, pointer: int, length: int) -> list[int]:
                context.memory.check(pointer, length * size, alignment)
                context.memory.take(length * cost)
                content: Any = context.memory.view[pointer : pointer + length * size]
                return cast("list[int]", content.cast(code).tolist())

            return load_numbers
        load = self.loader(item)

        def load_items(context: Context, pointer: int, length: int) -> list[Any]:
            context.memory.check(pointer, length * size, alignment)
            context.memory.take(length * cost)
            return [load(context, address) for address in range(pointer, pointer + length * size, size)]

        return load_items

    def lifter(self, number: int, at: int) -> Lifter:
        """For a value that begins with the core value `at`."""
        type_ = self._types[number]
        kind = type_.kind
        if kind in NUMBERS:
            return _number_lifter(kind, at)
        match kind:
            case "string":
                return lambda context, values: context.decode(context.memory, values[at], values[at + 1])
            case "list":
                load = self.list_loader(type_)
                return lambda context, values: load(context, values[at], values[at + 1])
            case "own" | "borrow":
                take = self._handle(type_)
                return lambda context, values: take(context, values[at])
            case "flags":
                split = _flags(type_)
                return lambda _, values: split(values[at])
            case "record":
                parts = self.tuple_lifter(type_.items, at)
                labels = type_.labels
                return lambda context, values: dict(zip(labels, parts(context, values), strict=True))
            case "tuple":
                return self.tuple_lifter(type_.items, at)
            case _:
                return self._case_lifter(number, self._layouts.cases(type_), at)

    def lifters(self, items: tuple[int, ...]) -> list[Lifter]:
        """For several in a row."""
        found: list[Lifter] = []
        at = 0
        for item in items:
            found.append(self.lifter(item, at))
            at += len(self._layouts.flat(item))
        return found

    def tuple_lifter(self, items: tuple[int, ...], at: int = 0) -> Lifter:
        """For several in a row: a tuple."""
        lifters: list[Lifter] = []
        for item in items:
            lifters.append(self.lifter(item, at))
            at += len(self._layouts.flat(item))
        if len(lifters) == 1:
            (only,) = lifters
            return lambda context, values: (only(context, values),)
        return lambda context, values: tuple([lift(context, values) for lift in lifters])

    def _case_lifter(self, number: int, cases: Cases, at: int) -> Lifter:
        joined = self._layouts.flat(number)[1:]
        wrap = _wrapper(self._types[number], self._types)
        lifters: list[tuple[Lifter | None, list[tuple[int, Callable[[Any], Any]]]]] = []
        for item in cases.items:
            flat = "" if item == NONE else self._layouts.flat(item)
            # NB: flat values of a case may be fewer than those of all cases.
            casts = [(at + 1 + n, CASTS[b, a]) for n, (a, b) in enumerate(zip(flat, joined, strict=False)) if a != b]
            lifters.append((None if item == NONE else self.lifter(item, at + 1), casts))
        count = len(lifters)

        def lift(context: Context, values: tuple[Any, ...]) -> Any:
            case: int = values[at]
            if case >= count:
                raise HostTrap(f"case {case} of {count} that there are")
            inner, casts = lifters[case]
            if inner is None:
                return wrap(case, None)
            if casts:
                changed = list(values)
                for place, cast in casts:
                    changed[place] = cast(changed[place])
                values = tuple(changed)
            return wrap(case, inner(context, values))

        return lift

    def _handle(self, type_: Type) -> Callable[[Context, int], Any]:
        resource = type_.items[0]
        own = type_.kind == "own"
        local = self._resources[resource].component != NONE

        def give(context: Context, number: int) -> Any:
            return context.handles.give(resource, number)

        def look(context: Context, number: int) -> Any:
            return context.handles.get(resource, number).value

        def lend(context: Context, number: int) -> Any:
            handle = context.handles.get(resource, number)
            handle.lends += 1
            context.lent.append(handle)
            return handle.value

        take = give if own else lend if self._tracks else look
        if not local:
            return take
        return lambda context, number: GuestResource(resource, take(context, number))


def _number_loader(kind: str) -> Loader:
    unpack = Struct("<" + NUMBERS[kind]).unpack_from
    match kind:
        case "bool":
            return lambda context, address: unpack(context.memory.view, address)[0] != 0
        case "char":
            return lambda context, address: _char(unpack(context.memory.view, address)[0])
        case "f32" | "f64":
            return lambda context, address: canonical_float(unpack(context.memory.view, address)[0])
        case _:
            return lambda context, address: unpack(context.memory.view, address)[0]


def _number_lifter(kind: str, at: int) -> Lifter:
    code = NUMBERS[kind]
    bits = WIDTHS[code] * 8
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    match kind:
        case "bool":
            return lambda _, values: values[at] != 0
        case "char":
            return lambda _, values: _char(values[at])
        case "f32" | "f64":
            return lambda _, values: canonical_float(values[at])
        case "u32" | "u64":
            return lambda _, values: values[at]
        case _ if kind.startswith("u"):
            return lambda _, values: values[at] & mask
        case _:
            return lambda _, values: ((values[at] & mask) ^ sign) - sign


def _flags(type_: Type) -> Callable[[int], frozenset[str]]:
    bits = [(1 << n, label) for n, label in enumerate(type_.labels)]
    return lambda value: frozenset([label for bit, label in bits if value & bit])


def _wrapper(type_: Type, types: tuple[Type, ...]) -> Callable[[int, Any], Any]:
    """(case, content) -> value."""
    match type_.kind:
        case "option" if types[type_.items[0]].kind == "option":
            return lambda case, content: Some(content) if case else None
        case "option":
            return lambda case, content: content if case else None
        case "result":
            return lambda case, content: (case == 0, content)
        case "enum":
            labels = type_.labels
            return lambda case, _: labels[case]
        case _:
            labels = type_.labels
            return lambda case, content: (labels[case], content)


def _recoded(given: str, wanted: str) -> Callable[[Any], Any]:
    pack, unpack = Struct("<" + given).pack, Struct("<" + wanted).unpack
    return lambda value: unpack(pack(value))[0]


def _narrowed(value: int) -> int:
    return value & 0xFFFFFFFF


CASTS: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    (I32, F32): _recoded(I32, F32),
    (F32, I32): _recoded(F32, I32),
    (I64, F64): _recoded(I64, F64),
    (F64, I64): _recoded(F64, I64),
    (I64, I32): _narrowed,
    (I32, I64): lambda value: value,
    (I64, F32): lambda value: _recoded(I32, F32)(value & 0xFFFFFFFF),
    (F32, I64): _recoded(F32, I32),
}
"""(what is there, what is wanted), where the cases of a variant share core values."""
