"""From Wasmtime's component values to Python's, by functions that are made from a component's own types.

Made from the types, for a component may import any name with any signature: a fixed layout would read what is not
there. Shapes are those of the package's documentation.
"""

import ctypes
from collections.abc import Callable
from ctypes import string_at
from typing import Any, Final

from wasmtime import component as wit

from wasmpool_agent.canonical.values import Some, Unsupported
from wasmpool_agent.component_api import capi
from wasmpool_agent.component_api.capi import ENTRY_BYTES, ENTRY_VALUE, NAME_BYTES, OF, VALUE_BYTES, address_at, u64_at
from wasmpool_agent.component_api.handles import Handles, ResourceTypes

Lift = Callable[[Handles, int], Any]
"""(the instance's handles, the address of a value) -> the value."""

_POINTER: Final = 8
"""Where a vector's address is: behind its size."""
_NUMBERS: Final[dict[type, Any]] = {
    wit.S8: ctypes.c_int8,
    wit.U8: ctypes.c_uint8,
    wit.S16: ctypes.c_int16,
    wit.U16: ctypes.c_uint16,
    wit.S32: ctypes.c_int32,
    wit.U32: ctypes.c_uint32,
    wit.S64: ctypes.c_int64,
    wit.U64: ctypes.c_uint64,
    wit.F32: ctypes.c_float,
    wit.F64: ctypes.c_double,
}


def lift_of(kind: wit.ValType, resources: ResourceTypes) -> Lift:
    """Raises Unsupported."""
    number = _NUMBERS.get(type(kind))
    if number is not None:
        return _number(number.from_address)
    match kind:
        case wit.Bool():
            return lambda _, at: capi.byte_at(at + OF).value != 0
        case wit.Char():
            return lambda _, at: chr(capi.u32_at(at + OF).value)
        case wit.String() | wit.EnumType():
            return lambda _, at: _text(at + OF)
        case wit.ListType() if isinstance(kind.element, wit.U8):
            return _bytes
        case wit.ListType():
            return _list(lift_of(kind.element, resources))
        case wit.TupleType():
            return _tuple([lift_of(element, resources) for element in kind.elements])
        case wit.RecordType():
            return _record([(name, lift_of(field, resources)) for name, field in kind.fields])
        case wit.VariantType():
            return _variant({name: _lift_if(case, resources) for name, case in kind.cases})
        case wit.OptionType():
            return _option(lift_of(kind.payload, resources), nested=isinstance(kind.payload, wit.OptionType))
        case wit.ResultType():
            return _result(_lift_if(kind.ok, resources), _lift_if(kind.err, resources))
        case wit.FlagsType():
            return _flags
        case wit.OwnType() | wit.BorrowType():
            if resources.number(kind.ty) is None:
                raise Unsupported("a resource of the component's own crosses the host")
            if isinstance(kind, wit.OwnType):
                return lambda handles, at: handles.take(address_at(at + OF).value or 0)
            return lambda handles, at: handles.look(address_at(at + OF).value or 0)
        case _:
            raise Unsupported(f"a value of type {type(kind).__name__} can't cross the host")


def _lift_if(kind: wit.ValType | None, resources: ResourceTypes) -> Lift | None:
    return None if kind is None else lift_of(kind, resources)


def _text(at: int) -> str:
    size = u64_at(at).value
    return string_at(address_at(at + _POINTER).value or 0, size).decode() if size else ""


def _number(read: Any) -> Lift:
    return lambda _, at: read(at + OF).value


def _bytes(_handles: Handles, at: int) -> bytes:
    # Each byte is a whole value here: a slice with a stride takes them without a loop.
    size = u64_at(at + OF).value
    return string_at(address_at(at + OF + _POINTER).value or 0, size * VALUE_BYTES)[OF::VALUE_BYTES] if size else b""


def _list(element: Lift) -> Lift:
    def lift(handles: Handles, at: int) -> list[object]:
        first = address_at(at + OF + _POINTER).value or 0
        return [element(handles, first + i * VALUE_BYTES) for i in range(u64_at(at + OF).value)]

    return lift


def _tuple(elements: list[Lift]) -> Lift:
    placed = [(element, i * VALUE_BYTES) for i, element in enumerate(elements)]

    def lift(handles: Handles, at: int) -> tuple[object, ...]:
        first = address_at(at + OF + _POINTER).value or 0
        return tuple([element(handles, first + offset) for element, offset in placed])

    return lift


def _record(fields: list[tuple[str, Lift]]) -> Lift:
    placed = [(name, field, i * ENTRY_BYTES + ENTRY_VALUE) for i, (name, field) in enumerate(fields)]

    def lift(handles: Handles, at: int) -> dict[str, object]:
        first = address_at(at + OF + _POINTER).value or 0
        return {name: field(handles, first + offset) for name, field, offset in placed}

    return lift


def _variant(cases: dict[str, Lift | None]) -> Lift:
    def lift(handles: Handles, at: int) -> tuple[str, object]:
        name = _text(at + OF)
        case = cases[name]
        return name, None if case is None else case(handles, address_at(at + OF + NAME_BYTES).value or 0)

    return lift


def _option(payload: Lift, *, nested: bool) -> Lift:
    def lift(handles: Handles, at: int) -> object:
        held = address_at(at + OF).value
        if not held:
            return None
        value = payload(handles, held)
        return Some(value) if nested else value

    return lift


def _result(ok: Lift | None, err: Lift | None) -> Lift:
    def lift(handles: Handles, at: int) -> tuple[bool, object]:
        good = capi.byte_at(at + OF).value != 0
        payload = ok if good else err
        return good, None if payload is None else payload(handles, address_at(at + OF + _POINTER).value or 0)

    return lift


def _flags(_handles: Handles, at: int) -> frozenset[str]:
    first = address_at(at + OF + _POINTER).value or 0
    return frozenset(_text(first + i * NAME_BYTES) for i in range(u64_at(at + OF).value))
