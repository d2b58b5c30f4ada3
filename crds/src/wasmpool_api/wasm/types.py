"""Value types and the type section: what is counted, and which proposals show in it.

Codes are read as in the specification's binary format, version 3, with stack switching.
"""

from typing import Final

from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.reader import ModuleInvalid, Reader

# Limits that the engines agree on, from the specification's JavaScript interface.
MAX_TYPES: Final = 1_000_000
MAX_PARAMETERS: Final = 1000
MAX_STRUCT_FIELDS: Final = 10_000
MAX_SUPERTYPES: Final = 1

_NUMBERS: Final = frozenset({0x7F, 0x7E, 0x7D, 0x7C})
_V128: Final = 0x7B
_ABSTRACT: Final[dict[int, Feature | None]] = {
    0x70: None,  # func
    0x73: Feature.GC,  # nofunc
    0x6F: Feature.EXTERN_REF,
    0x72: Feature.GC,  # noextern
    0x6E: Feature.GC,  # any
    0x6D: Feature.GC,  # eq
    0x6C: Feature.GC,  # i31
    0x6B: Feature.GC,  # struct
    0x6A: Feature.GC,  # array
    0x71: Feature.GC,  # none
    0x69: Feature.EXCEPTIONS,  # exn
    0x74: Feature.EXCEPTIONS,  # noexn
    0x68: Feature.STACK_SWITCHING,  # cont
    0x75: Feature.STACK_SWITCHING,  # nocont
}
_REF: Final = 0x64
_REF_NULL: Final = 0x63
_SHARED: Final = 0x65

_REC: Final = 0x4E
_SUB: Final = 0x50
_SUB_FINAL: Final = 0x4F
_FUNC: Final = 0x60
_STRUCT: Final = 0x5F
_ARRAY: Final = 0x5E
_CONT: Final = 0x5D


def heap_type(reader: Reader, features: set[Feature]) -> None:
    """One heap type: an abstract one in a byte, or the index of a defined type."""
    at = reader.position
    code = reader.peek()
    if code == _SHARED:
        features.add(Feature.SHARED_EVERYTHING)
        reader.byte("a heap type")
        code = reader.peek()
    if code in _ABSTRACT:
        reader.byte("a heap type")
        feature = _ABSTRACT[code]
        if feature is not None:
            features.add(feature)
        return
    if reader.s33("a heap type") < 0:
        raise ModuleInvalid(at, f"0x{code:02x} is not a heap type")


def value_type(reader: Reader, features: set[Feature]) -> None:
    """One value type."""
    at = reader.position
    code = reader.byte("a value type")
    if code in _NUMBERS:
        return
    if code == _V128:
        features.add(Feature.SIMD)
    elif code in {_REF, _REF_NULL}:
        features.add(Feature.FUNCTION_REFERENCES)
        heap_type(reader, features)
    elif code in _ABSTRACT or code == _SHARED:
        reader.position = at
        heap_type(reader, features)
    else:
        raise ModuleInvalid(at, f"0x{code:02x} is not a value type")


def reference_type(reader: Reader, features: set[Feature]) -> None:
    """One reference type: what a table holds."""
    at = reader.position
    code = reader.peek()
    if code in _NUMBERS or code == _V128:
        raise ModuleInvalid(at, f"0x{code:02x} is not a reference type")
    value_type(reader, features)


def type_section(reader: Reader, features: set[Feature]) -> int:
    """How many types there are; each member of a recursion group is one."""
    groups = reader.count("types", MAX_TYPES)
    types = 0
    for _ in range(groups):
        types += recursion_group(reader, features, MAX_TYPES - types)
    return types


def recursion_group(reader: Reader, features: set[Feature], room: int = MAX_TYPES) -> int:
    """One type, or several that refer to each other, of which there may be `room`; returns how many."""
    if reader.peek() == _REC:
        at = reader.position
        reader.byte("a recursion group")
        features.add(Feature.GC)
        members = reader.count("types of a recursion group", MAX_TYPES)
        if members > room:
            raise ModuleInvalid(at, f"{MAX_TYPES - room + members} types: at most {MAX_TYPES} are allowed")
    else:
        members = 1
    for _ in range(members):
        _sub_type(reader, features)
    return members


def _sub_type(reader: Reader, features: set[Feature]) -> None:
    if reader.peek() in {_SUB, _SUB_FINAL}:
        reader.byte("a subtype")
        features.add(Feature.GC)
        for _ in range(reader.count("supertypes", MAX_SUPERTYPES)):
            reader.u32("a supertype")
    at = reader.position
    form = reader.byte("a type")
    if form == _SHARED:
        features.add(Feature.SHARED_EVERYTHING)
        at = reader.position
        form = reader.byte("a type")
    if form == _FUNC:
        for what in ("parameters", "results"):
            for _ in range(reader.count(what, MAX_PARAMETERS)):
                value_type(reader, features)
    elif form == _STRUCT:
        features.add(Feature.GC)
        for _ in range(reader.count("fields", MAX_STRUCT_FIELDS, 2)):
            _field_type(reader, features)
    elif form == _ARRAY:
        features.add(Feature.GC)
        _field_type(reader, features)
    elif form == _CONT:
        features.add(Feature.STACK_SWITCHING)
        heap_type(reader, features)
    else:
        raise ModuleInvalid(at, f"0x{form:02x} is not a form of type")


def _field_type(reader: Reader, features: set[Feature]) -> None:
    if reader.peek() in {0x78, 0x77}:  # i8 and i16, packed
        reader.byte("a field's type")
    else:
        value_type(reader, features)
    at = reader.position
    if reader.byte("a field's mutability") > 1:
        raise ModuleInvalid(at, "a field is either 0 (constant) or 1 (mutable)")
