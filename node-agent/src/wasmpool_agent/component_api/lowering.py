"""From Python's values to Wasmtime's component values: the other direction of `lifting`.

What is written is Wasmtime's own memory, and owned by the value it is written into. A value of a wrong type or out of
its type's range raises TypeError, ValueError, KeyError or the like: a mistake of the host, which ends the guest's call.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

from wasmtime import component as wit

from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.component_api import capi
from wasmpool_agent.component_api.capi import ENTRY_BYTES, ENTRY_VALUE, NAME_BYTES, OF, VALUE_BYTES, address_at, byte_at
from wasmpool_agent.component_api.handles import Handles, ResourceTypes

Lower = Callable[[Handles, int, Any], None]
"""(the instance's handles, the address of a value, the value): writes it there."""

_INTEGERS: Final[dict[type, tuple[int, Any, int, int]]] = {
    wit.S8: (capi.S8, ctypes.c_int8, -(2**7), 2**7 - 1),
    wit.U8: (capi.U8, ctypes.c_uint8, 0, 2**8 - 1),
    wit.S16: (capi.S16, ctypes.c_int16, -(2**15), 2**15 - 1),
    wit.U16: (capi.U16, ctypes.c_uint16, 0, 2**16 - 1),
    wit.S32: (capi.S32, ctypes.c_int32, -(2**31), 2**31 - 1),
    wit.U32: (capi.U32, ctypes.c_uint32, 0, 2**32 - 1),
    wit.S64: (capi.S64, ctypes.c_int64, -(2**63), 2**63 - 1),
    wit.U64: (capi.U64, ctypes.c_uint64, 0, 2**64 - 1),
}
_FLOATS: Final[dict[type, tuple[int, Any]]] = {
    wit.F32: (capi.F32, ctypes.c_float),
    wit.F64: (capi.F64, ctypes.c_double),
}


def lower_of(kind: wit.ValType, resources: ResourceTypes) -> Lower:
    """Raises Unsupported."""
    if type(kind) in _INTEGERS:
        return _integer(*_INTEGERS[type(kind)])
    if type(kind) in _FLOATS:
        return _float(*_FLOATS[type(kind)])
    match kind:
        case wit.Bool():
            return _bool
        case wit.Char():
            return _char
        case wit.String():
            return _text(capi.STRING)
        case wit.EnumType():
            return _text(capi.ENUM)
        case wit.ListType() if isinstance(kind.element, wit.U8):
            return _bytes
        case wit.ListType():
            return _list(lower_of(kind.element, resources))
        case wit.TupleType():
            return _tuple([lower_of(element, resources) for element in kind.elements])
        case wit.RecordType():
            return _record([(name, lower_of(field, resources)) for name, field in kind.fields])
        case wit.VariantType():
            return _variant({name: _lower_if(case, resources) for name, case in kind.cases})
        case wit.OptionType():
            return _option(lower_of(kind.payload, resources), nested=isinstance(kind.payload, wit.OptionType))
        case wit.ResultType():
            return _result(_lower_if(kind.ok, resources), _lower_if(kind.err, resources))
        case wit.FlagsType():
            return _flags
        case wit.OwnType() | wit.BorrowType():
            number = resources.number(kind.ty)
            if number is None:
                raise Unsupported("a resource of the component's own crosses the host")
            return _handle(number, owned=isinstance(kind, wit.OwnType))
        case _:
            raise Unsupported(f"a value of type {type(kind).__name__} can't cross the host")


def _lower_if(kind: wit.ValType | None, resources: ResourceTypes) -> Lower | None:
    return None if kind is None else lower_of(kind, resources)


def _name(at: int, text: str) -> None:
    raw = text.encode()
    capi.name_new(at, len(raw), raw)


def _boxed(lower: Lower, handles: Handles, value: object) -> int:
    cell = capi.VALUE()
    at = ctypes.addressof(cell)
    lower(handles, at, value)
    made: int = capi.value_new(at)
    return made


def _integer(tag: int, cell: Any, least: int, most: int) -> Lower:
    write = cell.from_address

    def lower(_handles: Handles, at: int, value: int) -> None:
        if not least <= value <= most:
            raise ValueError(f"{value} is not between {least} and {most}")
        byte_at(at).value = tag
        write(at + OF).value = value

    return lower


def _float(tag: int, cell: Any) -> Lower:
    write = cell.from_address

    def lower(_handles: Handles, at: int, value: float) -> None:
        byte_at(at).value = tag
        write(at + OF).value = value

    return lower


def _bool(_handles: Handles, at: int, value: object) -> None:
    byte_at(at).value = capi.BOOL
    byte_at(at + OF).value = bool(value)


def _char(_handles: Handles, at: int, value: str) -> None:
    value.encode()  # NB: a lone surrogate is no char, and Wasmtime does not look
    byte_at(at).value = capi.CHAR
    capi.u32_at(at + OF).value = ord(value)


def _text(tag: int) -> Lower:
    def lower(_handles: Handles, at: int, value: str) -> None:
        _name(at + OF, value)
        byte_at(at).value = tag

    return lower


def _bytes(_handles: Handles, at: int, value: bytes | bytearray | memoryview) -> None:
    size = len(value)
    cells = bytearray(size * VALUE_BYTES)
    cells[0::VALUE_BYTES] = bytes((capi.U8,)) * size
    cells[OF::VALUE_BYTES] = value
    first = ctypes.addressof(ctypes.c_uint8.from_buffer(cells)) if size else None
    capi.list_new(at + OF, size, first)
    byte_at(at).value = capi.LIST


def _list(element: Lower) -> Lower:
    def lower(handles: Handles, at: int, value: Sequence[object]) -> None:
        cells = (capi.VALUE * len(value))()
        first = ctypes.addressof(cells)
        for i, item in enumerate(value):
            element(handles, first + i * VALUE_BYTES, item)
        capi.list_new(at + OF, len(value), first if value else None)
        byte_at(at).value = capi.LIST

    return lower


def _tuple(elements: list[Lower]) -> Lower:
    row = capi.VALUE * len(elements)

    def lower(handles: Handles, at: int, value: Sequence[object]) -> None:
        cells = row()
        first = ctypes.addressof(cells)
        for i, (element, item) in enumerate(zip(elements, value, strict=True)):
            element(handles, first + i * VALUE_BYTES, item)
        capi.tuple_new(at + OF, len(elements), first)
        byte_at(at).value = capi.TUPLE

    return lower


def _record(fields: list[tuple[str, Lower]]) -> Lower:
    row = capi.ENTRY * len(fields)

    def lower(handles: Handles, at: int, value: dict[str, object]) -> None:
        cells = row()
        first = ctypes.addressof(cells)
        for i, (name, field) in enumerate(fields):
            field(handles, first + i * ENTRY_BYTES + ENTRY_VALUE, value[name])
            _name(first + i * ENTRY_BYTES, name)
        capi.record_new(at + OF, len(fields), first)
        byte_at(at).value = capi.RECORD

    return lower


def _variant(cases: dict[str, Lower | None]) -> Lower:
    def lower(handles: Handles, at: int, value: tuple[str, object]) -> None:
        name, payload = value
        case = cases[name]
        address_at(at + OF + NAME_BYTES).value = None if case is None else _boxed(case, handles, payload)
        _name(at + OF, name)
        byte_at(at).value = capi.VARIANT

    return lower


def _option(payload: Lower, *, nested: bool) -> Lower:
    def lower(handles: Handles, at: int, value: Any) -> None:
        held = value.value if nested and value is not None else value
        address_at(at + OF).value = None if value is None else _boxed(payload, handles, held)
        byte_at(at).value = capi.OPTION

    return lower


def _result(ok: Lower | None, err: Lower | None) -> Lower:
    def lower(handles: Handles, at: int, value: tuple[bool, object]) -> None:
        good, payload = value
        case = ok if good else err
        address_at(at + OF + 8).value = None if case is None else _boxed(case, handles, payload)
        byte_at(at + OF).value = bool(good)
        byte_at(at).value = capi.RESULT

    return lower


def _flags(_handles: Handles, at: int, value: frozenset[str]) -> None:
    cells = (ctypes.c_uint8 * (NAME_BYTES * len(value)))()
    first = ctypes.addressof(cells)
    for i, name in enumerate(value):
        _name(first + i * NAME_BYTES, name)
    capi.flags_new(at + OF, len(value), first if value else None)
    byte_at(at).value = capi.FLAGS


def _handle(number: int, *, owned: bool) -> Lower:
    def lower(handles: Handles, at: int, value: object) -> None:
        address_at(at + OF).value = handles.give(value, number, owned=owned)
        byte_at(at).value = capi.RESOURCE

    return lower
