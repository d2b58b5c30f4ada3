"""wit-component's shims, recognised: core modules that only call on, and those that tell them where to.

A lowered import needs the memory of the core module that imports it, which is not there before that module is. So
wit-component gives it a shim, which calls through a table; and when the memory is there, a second module (the fixup)
fills the table. Here host functions find the memory when they are called, so what imports from the shim can be given
what the fixup would put there, and neither has to be instantiated.

Recognised is exactly what does this and nothing else, section for section; anything else stays what it is.
"""

from dataclasses import dataclass
from typing import Final

from wasmpool_agent.wasm_encoding import signed, string, unsigned, vector
from wasmpool_api.wasm.module import ExternKind, Sections
from wasmpool_api.wasm.plans import Item, Plan
from wasmpool_api.wasm.preamble import PREAMBLE_BYTES
from wasmpool_api.wasm.reader import ModuleInvalid, Reader

_KINDS: Final = {0x7F: "I", 0x7E: "Q", 0x7D: "f", 0x7C: "d"}
_TABLE_NAME: Final = "$imports"


@dataclass(frozen=True, slots=True)
class Signature:
    """Core values that a function takes and gives."""

    params: str
    results: str


@dataclass(frozen=True, slots=True)
class Shimmed:
    """`replaced`: exports of shims, and what they lead to. `types`: of those exports. `unused`: core instances."""

    replaced: dict[Item, Item]
    types: dict[Item, Signature]
    unused: frozenset[int]


def find_shims(component: bytes, plan: Plan, sections: list[Sections]) -> Shimmed:
    """Pure. Nothing is found in a component that was made otherwise."""
    replaced: dict[Item, Item] = {}
    types: dict[Item, Signature] = {}
    unused: set[int] = set()
    for number, instance in enumerate(plan.instances):
        shim = _filled(component, plan, sections, number)
        if shim is None:
            continue
        signatures = _shim(_bytes(component, plan, plan.instances[shim].module))
        targets = instance.imports[:-1]
        if signatures is None or len(signatures) != len(targets):
            continue
        table = Item(shim, _TABLE_NAME)
        if any(table in other.imports for place, other in enumerate(plan.instances) if place != number):
            continue
        for place, (signature, target) in enumerate(zip(signatures, targets, strict=True)):
            item = Item(shim, str(place))
            replaced[item], types[item] = target, signature
        unused |= {number, shim}
    return Shimmed(replaced, types, frozenset(unused))


def _bytes(component: bytes, plan: Plan, module: int) -> bytes:
    offset, size = plan.modules[module]
    return component[offset : offset + size]


def _filled(component: bytes, plan: Plan, sections: list[Sections], number: int) -> int | None:
    """Which instance's table that one fills, if it is a fixup."""
    instance = plan.instances[number]
    imports = sections[instance.module].imports
    if not imports or imports[-1].name != _TABLE_NAME or imports[-1].kind is not ExternKind.TABLE:
        return None
    if any(each.kind is not ExternKind.FUNCTION for each in imports[:-1]):
        return None
    count = len(imports) - 1
    found = _sections(_bytes(component, plan, instance.module))
    elements = b"\x01\x00\x41\x00\x0b" + vector([unsigned(index) for index in range(count)])
    if set(found) != {1, 2, 9} or found[9] != elements:
        return None
    target = instance.imports[-1]
    return target.instance if target.name == _TABLE_NAME else None


def _shim(module: bytes) -> list[Signature] | None:
    """The types of the functions of a shim, if it is one."""
    try:
        found = _sections(module)
        if set(found) != {1, 3, 4, 7, 10}:
            return None
        kinds = _types(Reader(found[1]))
        reader = Reader(found[3])
        functions = [reader.u32("a function's type") for _ in range(reader.u32("functions"))]
        if any(kind >= len(kinds) for kind in functions):
            return None
    except (ModuleInvalid, KeyError):
        return None
    count = len(functions)
    exports = [string(str(index)) + b"\x00" + unsigned(index) for index in range(count)]
    exports.append(string(_TABLE_NAME) + b"\x01\x00")
    bodies = [_body(index, kind, len(kinds[kind].params)) for index, kind in enumerate(functions)]
    table = b"\x01\x70\x01" + unsigned(count) + unsigned(count)
    same = found[4] == table and found[7] == vector(exports) and found[10] == vector(bodies)
    return [kinds[kind] for kind in functions] if same else None


def _types(reader: Reader) -> list[Signature]:
    found: list[Signature] = []
    for _ in range(reader.u32("types")):
        if reader.byte("a type") != 0x60:
            raise ModuleInvalid(reader.position, "another type than a function's")
        params, results = (
            "".join(_KINDS[reader.byte("a value type")] for _ in range(reader.u32("values"))) for _ in range(2)
        )
        found.append(Signature(params, results))
    return found


def _body(index: int, kind: int, params: int) -> bytes:
    """Calls on with its own parameters, through the table."""
    get = b"".join(b"\x20" + unsigned(param) for param in range(params))
    code = b"\x00" + get + b"\x41" + signed(index) + b"\x11" + unsigned(kind) + b"\x00\x0b"
    return unsigned(len(code)) + code


def _sections(module: bytes) -> dict[int, bytes]:
    reader = Reader(module, PREAMBLE_BYTES)
    found: dict[int, bytes] = {}
    while reader.remaining:
        number = reader.byte("a section")
        body = reader.section("a section")
        if number:
            found[number] = module[body.position : body.end]
    return found
