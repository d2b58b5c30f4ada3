"""From the host to the guest: Python's values into memory, or into the values of a core function.

Strings and lists need memory that only guest code can give. So lowering notes what it wants (`Context.wanted`), and
goes on with each piece when the guest has been asked for it, outside of any host function.

A value that does not fit its type raises ValueError, TypeError, KeyError or struct.error: the host is wrong, not the
guest.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, cast

from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.layout import I32, NUMBERS, WIDTHS, Cases, Layouts, flags_width
from wasmpool_agent.canonical.lifting import CASTS, canonical_float
from wasmpool_agent.canonical.strings import encode
from wasmpool_agent.canonical.values import GuestResource, Some
from wasmpool_api.wasm.plans import NONE, Resource, Type

Storer = Callable[[Context, int, Any], None]
"""(context, address, value): the address has been checked, as a Loader's has."""
Lowerer = Callable[[Context, Any], None]
"""(context, value): the core values are appended to `Context.flat`."""
MAX_LIST_BYTES: Final = 2**32 - 1
_WORD: Final = Struct("<I").pack_into
_PAIR: Final = Struct("<II").pack_into
_FLAGS: Final = {1: "B", 2: "H", 4: "I"}


def place(context: Context, pointer: int) -> None:
    """The guest has given what was wanted. HostTrap where that is not memory of its own."""
    at, alignment, size, fill, value = context.wanted.pop()
    memory = context.memory
    memory.refresh()
    memory.check(pointer, size, alignment)
    if at < 0:
        context.flat[~at] = pointer
    else:
        _WORD(memory.view, at, pointer)
    before = len(context.wanted)
    fill(context, pointer, value)
    turn(context, before)


def turn(context: Context, before: int) -> None:
    """What was wanted first comes first: the last ones, from `before` on, are turned around."""
    if len(context.wanted) - before > 1:
        context.wanted[before:] = context.wanted[before:][::-1]


def _fill_bytes(context: Context, pointer: int, value: Any) -> None:
    if len(value):
        context.memory.view[pointer : pointer + len(value)] = value


class Lowering:
    """Makes the closures for the types of one plan."""

    def __init__(self, layouts: Layouts, resources: tuple[Resource, ...]) -> None:
        self._layouts = layouts
        self._types = layouts.types
        self._resources = resources
        self._storers: dict[int, Storer] = {}

    def storer(self, number: int) -> Storer:
        """For a value in memory."""
        found = self._storers.get(number)
        if found is None:
            found = self._storers[number] = self._storer(self._types[number])
        return found

    def record_storer(self, items: tuple[int, ...]) -> Storer:
        """For parameters in memory, given as a sequence."""
        parts = [
            (n, at, self.storer(item))
            for n, (at, item) in enumerate(zip(self._layouts.offsets(items), items, strict=True))
        ]
        count = len(parts)

        def store(context: Context, address: int, value: Any) -> None:
            if len(value) != count:
                raise ValueError(f"{len(value)} values, {count} are needed")
            for n, at, inner in parts:
                inner(context, address + at, value[n])

        return store

    def _storer(self, type_: Type) -> Storer:
        kind = type_.kind
        if kind in NUMBERS:
            convert = _number(kind)
            pack = Struct("<" + NUMBERS[kind]).pack_into
            return lambda context, address, value: pack(context.memory.view, address, convert(value))
        match kind:
            case "string" | "list":
                want = self._pointed(type_)

                def store_pair(context: Context, address: int, value: Any) -> None:
                    _PAIR(context.memory.view, address, 0, want(context, address, value))

                return store_pair
            case "own" | "borrow":
                add = self._handle(type_)
                return lambda context, address, value: _WORD(context.memory.view, address, add(context, value))
            case "flags":
                pack = Struct("<" + _FLAGS[flags_width(type_)]).pack_into
                join = _flags(type_)
                return lambda context, address, value: pack(context.memory.view, address, join(value))
            case "record":
                return self._fields_storer(type_)
            case "tuple":
                return self.record_storer(type_.items)
            case _:
                return self._case_storer(type_, self._layouts.cases(type_))

    def _fields_storer(self, type_: Type) -> Storer:
        offsets = self._layouts.offsets(type_.items)
        parts = [
            (label, at, self.storer(item)) for label, at, item in zip(type_.labels, offsets, type_.items, strict=True)
        ]

        def store(context: Context, address: int, value: Any) -> None:
            for label, at, inner in parts:
                inner(context, address + at, value[label])

        return store

    def _case_storer(self, type_: Type, cases: Cases) -> Storer:
        pack = Struct("<" + cases.discriminant).pack_into
        split = _splitter(type_, self._types)
        storers = [None if item == NONE else self.storer(item) for item in cases.items]
        content_at = cases.offset

        def store(context: Context, address: int, value: Any) -> None:
            case, content = split(value)
            pack(context.memory.view, address, case)
            inner = storers[case]
            if inner is not None:
                inner(context, address + content_at, content)

        return store

    def _pointed(self, type_: Type) -> Callable[[Context, int, Any], int]:
        """(context, place, value) -> the length: notes that memory is wanted."""
        if type_.kind == "string":

            def want_string(context: Context, at: int, value: Any) -> int:
                data, alignment, units = encode(value, context.encoding)
                context.wanted.append((at, alignment, len(data), _fill_bytes, data))
                return units

            return want_string
        item = type_.items[0]
        if self._types[item].kind == "u8":

            def want_bytes(context: Context, at: int, value: Any) -> int:
                if not isinstance(value, bytes):
                    value = bytes(memoryview(value))
                context.wanted.append((at, 1, len(value), _fill_bytes, value))
                return len(value)

            return want_bytes
        return self._listed(item)

    def _listed(self, item: int) -> Callable[[Context, int, Any], int]:
        size, alignment = self._layouts.size(item)
        store = self.storer(item)

        def fill(context: Context, pointer: int, value: Any) -> None:
            for each in value:
                store(context, pointer, each)
                pointer += size

        def want(context: Context, at: int, value: Any) -> int:
            length = len(value)
            if length * size > MAX_LIST_BYTES:
                raise ValueError(f"a list of {length * size} bytes: at most {MAX_LIST_BYTES} are allowed")
            context.wanted.append((at, alignment, length * size, fill, value))
            return length

        return want

    def lowerer(self, number: int) -> Lowerer:
        """For a value that is passed as core values."""
        type_ = self._types[number]
        kind = type_.kind
        if kind in NUMBERS:
            convert = _number(kind)
            mask = (1 << (64 if kind.endswith("64") else 32)) - 1
            if kind in {"f32", "f64"}:
                return lambda context, value: context.flat.append(convert(value))
            return lambda context, value: context.flat.append(_checked(kind, convert(value)) & mask)
        match kind:
            case "string" | "list":
                want = self._pointed(type_)

                def lower_pair(context: Context, value: Any) -> None:
                    flat = context.flat
                    flat.append(0)
                    flat.append(want(context, ~(len(flat) - 1), value))

                return lower_pair
            case "own" | "borrow":
                add = self._handle(type_)
                return lambda context, value: context.flat.append(add(context, value))
            case "flags":
                join = _flags(type_)
                return lambda context, value: context.flat.append(join(value))
            case "record":
                fields = [(label, self.lowerer(item)) for label, item in zip(type_.labels, type_.items, strict=True)]

                def lower_fields(context: Context, value: Any) -> None:
                    for label, lower in fields:
                        lower(context, value[label])

                return lower_fields
            case "tuple":
                return self.tuple_lowerer(type_.items)
            case _:
                return self._case_lowerer(number, self._layouts.cases(type_))

    def single(self, number: int) -> Callable[[Context, Any], Any]:
        """(context, value) -> the one core value that it is passed as."""
        type_ = self._types[number]
        if type_.kind in {"own", "borrow"}:
            return self._handle(type_)
        if type_.kind in {"f32", "f64"}:
            return lambda _, value: canonical_float(value)
        if type_.kind == "bool":
            return lambda _, value: 1 if value else 0
        if type_.kind[1:] in {"8", "16", "32", "64"}:
            return _integer(type_.kind)
        lower = self.lowerer(number)

        def first(context: Context, value: Any) -> Any:
            context.flat.clear()
            lower(context, value)
            return context.flat[0]

        return first

    def tuple_lowerer(self, items: tuple[int, ...]) -> Lowerer:
        """For several, given as a sequence."""
        lowerers = [self.lowerer(item) for item in items]

        def lower_all(context: Context, value: Any) -> None:
            for lower, each in zip(lowerers, value, strict=True):
                lower(context, each)

        return lower_all

    def _case_lowerer(self, number: int, cases: Cases) -> Lowerer:
        joined = self._layouts.flat(number)[1:]
        split = _splitter(self._types[number], self._types)
        zeros = [0 if value in {I32, "Q"} else 0.0 for value in joined]
        lowerers: list[tuple[Lowerer | None, list[tuple[int, Callable[[Any], Any]]]]] = []
        for item in cases.items:
            flat = "" if item == NONE else self._layouts.flat(item)
            # NB: flat values of a case may be fewer than those of all cases.
            casts = [(n, CASTS[a, b]) for n, (a, b) in enumerate(zip(flat, joined, strict=False)) if a != b]
            lowerers.append((None if item == NONE else self.lowerer(item), casts))

        def lower(context: Context, value: Any) -> None:
            case, content = split(value)
            inner, casts = lowerers[case]
            flat = context.flat
            flat.append(case)
            begin = len(flat)
            if inner is not None:
                inner(context, content)
                # NB: a pointer that is not known yet is put there uncast: from i32 to i64 nothing changes.
                for n, cast in casts:
                    flat[begin + n] = cast(flat[begin + n])
            flat.extend(zeros[len(flat) - begin :])

        return lower

    def _handle(self, type_: Type) -> Callable[[Context, Any], int]:
        number = type_.items[0]
        own = type_.kind == "own"
        component = self._resources[number].component

        def add(context: Context, value: Any) -> int:
            return context.handles.add(number, value, owned=own)

        if component == NONE:
            return add

        def add_local(context: Context, value: Any) -> int:
            if not isinstance(value, GuestResource) or value.type != number:
                raise TypeError(f"{value!r} is no {self._resources[number].name} of this instance")
            # What is borrowed by the component that defines it comes as what that knows it by.
            if not own and context.component == component:
                return value.rep
            return add(context, value.rep)

        return add_local


def _number(kind: str) -> Callable[[Any], Any]:
    match kind:
        case "bool":
            return lambda value: 1 if value else 0
        case "char":
            return _char
        case "f32" | "f64":
            return canonical_float
        case _:
            return lambda value: value


def _char(value: str) -> int:
    number = ord(value)
    if 0xD800 <= number < 0xE000:
        raise ValueError(f"{number:#x} is a surrogate, not a char")
    return number


def _checked(kind: str, value: int) -> int:
    code = NUMBERS[kind]
    bits = WIDTHS[code] * 8
    least = -(1 << (bits - 1)) if kind.startswith("s") else 0
    if not least <= value < least + (1 << bits):
        raise ValueError(f"{value} is no {kind}")
    return value


def _integer(kind: str) -> Callable[[Context, Any], int]:
    bits = WIDTHS[NUMBERS[kind]] * 8
    least = -(1 << (bits - 1)) if kind.startswith("s") else 0
    limit, mask = least + (1 << bits), (1 << (64 if bits == 64 else 32)) - 1

    def convert(_: Context, value: Any) -> int:
        if not least <= value < limit:
            raise ValueError(f"{value} is no {kind}")
        core: int = value & mask
        return core

    return convert


def _flags(type_: Type) -> Callable[[Any], int]:
    bits = {label: 1 << n for n, label in enumerate(type_.labels)}
    return lambda value: sum([bits[label] for label in value])


def _splitter(type_: Type, types: tuple[Type, ...]) -> Callable[[Any], tuple[int, Any]]:
    """value -> (case, content)."""
    numbers = {label: n for n, label in enumerate(type_.labels)}
    match type_.kind:
        case "option" if types[type_.items[0]].kind == "option":

            def some(value: Any) -> tuple[int, Any]:
                if value is None:
                    return 0, None
                if not isinstance(value, Some):
                    raise TypeError(f"{value!r}: the outer option of two is given as Some(value)")
                return 1, cast("Any", value).value

            return some
        case "option":
            return lambda value: (0, None) if value is None else (1, value)
        case "result":
            return lambda value: (0 if value[0] else 1, value[1])
        case "enum":
            return lambda value: (numbers[value], None)
        case _:
            return lambda value: (numbers[value[0]], value[1])
