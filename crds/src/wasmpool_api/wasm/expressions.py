"""Constant expressions: passed over, one instruction after the other, up to their end."""

from typing import Final

from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.types import heap_type

_END: Final = 0x0B
_ARITHMETIC: Final = frozenset({0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E})
"""add, sub and mul of i32 and i64: extended constant expressions."""
_GC_WITHOUT_OPERANDS: Final = frozenset({0x1A, 0x1B, 0x1C})
_GC_WITH_TYPE: Final = frozenset({0x00, 0x01, 0x06, 0x07})


def constant_expression(reader: Reader, features: set[Feature]) -> None:
    """Passes one; raises ModuleInvalid for what no constant expression may hold."""
    while True:
        at = reader.position
        opcode = reader.byte("a constant expression")
        if opcode == _END:
            return
        if opcode == 0x41:
            reader.s32("a constant")
        elif opcode == 0x42:
            reader.s64("a constant")
        elif opcode == 0x43:
            reader.skip(4, "a constant")
        elif opcode == 0x44:
            reader.skip(8, "a constant")
        elif opcode == 0x23:
            reader.u32("a global's index")
        elif opcode == 0xD2:
            reader.u32("a function's index")
        elif opcode == 0xD0:
            heap_type(reader, features)
        elif opcode == 0xFD:
            _vector(reader, at, features)
        elif opcode == 0xFB:
            _gc(reader, at, features)
        elif opcode not in _ARITHMETIC:
            raise ModuleInvalid(at, f"instruction 0x{opcode:02x} is not allowed in a constant expression")


def _vector(reader: Reader, at: int, features: set[Feature]) -> None:
    if reader.u32("an instruction") != 0x0C:
        raise ModuleInvalid(at, "of the vector instructions only v128.const is allowed in a constant expression")
    features.add(Feature.SIMD)
    reader.skip(16, "a constant")


def _gc(reader: Reader, at: int, features: set[Feature]) -> None:
    opcode = reader.u32("an instruction")
    features.add(Feature.GC)
    if opcode in _GC_WITH_TYPE:
        reader.u32("a type's index")
    elif opcode == 0x08:
        reader.u32("a type's index")
        reader.u32("an array's length")
    elif opcode not in _GC_WITHOUT_OPERANDS:
        raise ModuleInvalid(at, f"instruction 0xfb 0x{opcode:02x} is not allowed in a constant expression")
