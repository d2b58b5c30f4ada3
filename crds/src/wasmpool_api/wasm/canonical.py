"""Canonical definitions of a component, bridges between its functions and its core modules': what features they use."""

from typing import Final

from wasmpool_api.wasm.component_types import result_type
from wasmpool_api.wasm.features import Feature
from wasmpool_api.wasm.reader import ModuleInvalid, Reader
from wasmpool_api.wasm.types import value_type

_MAX_OPTIONS: Final = 10
_LIFT: Final = 0
_LOWER: Final = 1

# What follows the code: a letter for each operand.
#   i  an index    o  options    r  a result type    v  a core value type    b  0 or 1
_RESOURCES: Final = {0x02: "i", 0x03: "i", 0x04: "i"}
_ASYNC: Final = {
    0x05: "",  # task.cancel
    0x06: "b",  # subtask.cancel
    0x09: "ro",  # task.return
    0x0A: "vi",  # context.get
    0x0B: "vi",  # context.set
    0x0C: "b",  # thread.yield
    0x0D: "",  # subtask.drop
    0x0E: "i",  # stream.new, .read, .write, .cancel-read, .cancel-write, .drop-readable, .drop-writable
    0x0F: "io",
    0x10: "io",
    0x11: "ib",
    0x12: "ib",
    0x13: "i",
    0x14: "i",
    0x15: "i",  # future, the same
    0x16: "io",
    0x17: "io",
    0x18: "ib",
    0x19: "ib",
    0x1A: "i",
    0x1B: "i",
    0x1F: "",  # waitable-set.new, .wait, .poll, .drop, waitable.join
    0x20: "bi",
    0x21: "bi",
    0x22: "",
    0x23: "",
    0x24: "",  # backpressure.inc, .dec
    0x25: "",
    0x2E: "i",  # stream.forward, future.forward
    0x2F: "i",
}
_ERROR_CONTEXTS: Final = {0x1C: "o", 0x1D: "o", 0x1E: ""}
_THREADS: Final = {
    0x26: "",  # thread.index
    0x27: "ii",  # thread.new-indirect
    0x28: "",  # thread.resume-later
    0x29: "b",  # thread.suspend, and with what then
    0x2A: "b",
    0x2B: "b",
    0x2C: "b",
    0x2D: "b",
    0x40: "i",  # thread.spawn-ref, .spawn-indirect, .available-parallelism
    0x41: "ii",
    0x42: "",
}
_BUILTINS: Final[dict[int, tuple[str, Feature | None]]] = {
    **{code: (operands, None) for code, operands in _RESOURCES.items()},
    **{code: (operands, Feature.COMPONENT_ASYNC) for code, operands in _ASYNC.items()},
    **{code: (operands, Feature.COMPONENT_ERROR_CONTEXT) for code, operands in _ERROR_CONTEXTS.items()},
    **{code: (operands, Feature.COMPONENT_THREADS) for code, operands in _THREADS.items()},
}
_OPTIONS: Final[dict[int, tuple[bool, Feature | None]]] = {
    0x00: (False, None),  # the encodings of strings
    0x01: (False, None),
    0x02: (False, None),
    0x03: (True, None),  # memory
    0x04: (True, None),  # realloc
    0x05: (True, None),  # post-return
    0x06: (False, Feature.COMPONENT_ASYNC),
    0x07: (True, Feature.COMPONENT_ASYNC),  # callback
    0x08: (True, Feature.COMPONENT_GC),  # a core type
    0x09: (False, Feature.COMPONENT_GC),
}
"""Whether an index follows."""


def canonical_definition(reader: Reader, features: set[Feature]) -> None:
    """One definition."""
    at = reader.position
    code = reader.byte("a canonical definition")
    if code in {_LIFT, _LOWER}:
        if reader.byte("a canonical definition") != 0:
            raise ModuleInvalid(at, f"0x{code:02x} of a canonical definition must stand before 0x00")
        reader.u32("a function's index")
        _options(reader, features)
        if code == _LIFT:
            reader.u32("a function's type")
        return
    if code not in _BUILTINS:
        raise ModuleInvalid(at, f"0x{code:02x} is not a canonical definition")
    operands, feature = _BUILTINS[code]
    if feature is not None:
        features.add(feature)
    for operand in operands:
        _operand(reader, features, operand)


def _operand(reader: Reader, features: set[Feature], operand: str) -> None:
    at = reader.position
    match operand:
        case "i":
            reader.u32("an index")
        case "o":
            _options(reader, features)
        case "r":
            result_type(reader, features)
        case "v":
            value_type(reader, features)
        case _:
            given = reader.byte("a canonical definition")
            if given > 1:
                raise ModuleInvalid(at, f"0x{given:02x} of a canonical definition: 0 or 1 is allowed")


def _options(reader: Reader, features: set[Feature]) -> None:
    for _ in range(reader.count("canonical options", _MAX_OPTIONS)):
        at = reader.position
        code = reader.byte("a canonical option")
        if code not in _OPTIONS:
            raise ModuleInvalid(at, f"0x{code:02x} is not a canonical option")
        has_index, feature = _OPTIONS[code]
        if has_index:
            reader.u32("a canonical option's index")
        if feature is not None:
            features.add(feature)
