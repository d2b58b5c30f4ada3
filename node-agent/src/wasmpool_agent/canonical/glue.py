"""The one core module that stands between a component's core modules and the host: it calls what only guest code may.

A host function can't call the guest: it would hold the thread, and nobody could stop it. So where a lowered function's
result needs memory of the guest, or where the function may wait, the core module gets this instead:

    (func $k (params) (result)
      r = host k (params)                     lifts the parameters and calls the host; what next, see below
      loop
        r = WAIT      call $pause             the guest is suspended as it enters it, until what it waits for is ready
                      r = host next (0)
        r = a size    p = call_indirect realloc (0, 0, alignment, size)
                      r = host next (p)       takes it, writes there
        r = DONE      leave the loop
      host value                              the result, if it is a core value)

Functions that the module reaches through its table are put there as soon as the core instance that exports them has
been made, so the module can be the first that is instantiated, whatever the order of the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wasmpool_agent.wasm_encoding import section, signed, string, unsigned, vector

DONE: Final = -1
WAIT: Final = -2
NEXT, VALUE = "next", "value "
TABLE: Final = "table"
MODULE: Final = "host"
_CODES: Final = {"I": 0x7F, "Q": 0x7E, "f": 0x7D, "d": 0x7C}
_VOID, _END, _LOOP, _IF, _ELSE, _BR, _UNREACHABLE = 0x40, 0x0B, 0x03, 0x04, 0x05, 0x0C, 0x00
_GET, _SET, _CALL, _CALL_INDIRECT = 0x20, 0x21, 0x10, 0x11
_I32, _I64, _I64_EQ, _I64_NE, _I64_GE_S, _WRAP, _SHIFT = 0x41, 0x42, 0x51, 0x52, 0x59, 0xA7, 0x88
_REALLOC: Final = ("IIII", "I")


def request(alignment: int, size: int) -> int:
    """What a host function returns that wants memory: neither DONE nor WAIT."""
    return alignment << 32 | size


@dataclass(slots=True)
class Glue:
    """What the module is made of.

    `plain`: host functions that are passed on as they are, (number, params, results). `waiting`: those that get the
    function above, with the slot of their realloc, or -1 for none. `destructors`: (number, slot): (i32) -> (), where
    the host function says with what number slot is to be called, or DONE. `allocators`: slots of reallocs for lifted
    functions. `forwards`: (label, slot, params, results), functions that only call on.
    """

    plain: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    waiting: list[tuple[int, str, str, int]] = field(default_factory=list[tuple[int, str, str, int]])
    destructors: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    allocators: list[int] = field(default_factory=list[int])
    forwards: list[tuple[str, int, str, str]] = field(default_factory=list[tuple[str, int, str, str]])
    slots: int = 0

    def imports(self) -> list[tuple[str, str, str]]:
        """(name, params, results) of the host functions that it takes, in order."""
        found = [(str(number), params, results) for number, params, results in self.plain]
        found += [(str(number), params, "Q") for number, params, _, _ in self.waiting]
        found += [(str(number), "I", "Q") for number, _ in self.destructors]
        found.append((NEXT, "I", "Q"))
        found += [(VALUE + kind, "", kind) for kind in _CODES]
        return found

    def module(self) -> bytes:
        """Its binary."""
        return _Writer(self).module()


def allocator(slot: int) -> str:
    """The export that gives the host memory by that realloc: (i64, what is wanted first) -> ()."""
    return f"allocate {slot}"


class _Writer:
    def __init__(self, glue: Glue) -> None:
        self._glue = glue
        self._types: dict[tuple[str, str], int] = {}
        self._imports = {name: index for index, (name, _, _) in enumerate(glue.imports())}
        self._functions: list[tuple[int, bytes]] = []
        self._exports: list[bytes] = []

    def module(self) -> bytes:
        glue = self._glue
        imported = glue.imports()
        entries = [
            string(MODULE) + string(name) + b"\0" + unsigned(self._type(params, results))
            for name, params, results in imported
        ]
        pause = self._add("", "", "", [])
        for number, _, _ in glue.plain:
            self._export(str(number), self._imports[str(number)])
        for number, params, results, slot in glue.waiting:
            self._export(
                str(number), self._add(params, results, "Q", self._waiting(number, params, results, slot, pause))
            )
        for number, slot in glue.destructors:
            self._export(str(number), self._add("I", "", "Q", self._destructor(number, slot)))
        for slot in dict.fromkeys(glue.allocators):
            self._export(allocator(slot), self._add("Q", "", "", self._rounds(0, slot, pause)))
        for label, slot, params, results in glue.forwards:
            passed = [part for index in range(len(params)) for part in (bytes((_GET,)), unsigned(index))]
            code = [*passed, *self._indirect(slot, params, results)]
            self._export(label, self._add(params, results, "", code))
        self._exports.append(string(TABLE) + b"\x01\0")
        sections = (
            (1, vector([_function_type(params, results) for params, results in self._types])),
            (2, vector(entries)),
            (3, vector([unsigned(kind) for kind, _ in self._functions])),
            (4, vector([b"\x70\0" + unsigned(glue.slots)])),
            (7, vector(self._exports)),
            (10, vector([unsigned(len(body)) + body for _, body in self._functions])),
        )
        named = section(0, string("name") + section(0, string("canonical ABI")))
        return b"\0asm\x01\0\0\0" + b"".join(section(number, content) for number, content in sections) + named

    def _type(self, params: str, results: str) -> int:
        return self._types.setdefault((params, results), len(self._types))

    def _export(self, name: str, index: int) -> None:
        self._exports.append(string(name) + b"\0" + unsigned(index))

    def _add(self, params: str, results: str, local: str, code: Iterable[bytes]) -> int:
        body = vector([b"\x01" + bytes((_CODES[kind],)) for kind in local]) + b"".join(code) + bytes((_END,))
        self._functions.append((self._type(params, results), body))
        return len(self._imports) + len(self._functions) - 1

    def _host(self, name: str) -> bytes:
        return bytes((_CALL,)) + unsigned(self._imports[name])

    def _indirect(self, slot: int, params: str, results: str) -> list[bytes]:
        if slot < 0:
            return [bytes((_UNREACHABLE,))]
        kind = self._type(params, results)
        return [bytes((_I32,)), signed(slot), bytes((_CALL_INDIRECT,)), unsigned(kind), b"\0"]

    def _waiting(self, number: int, params: str, results: str, slot: int, pause: int) -> list[bytes]:
        answer = len(params)
        code = [bytes((_GET,)) + unsigned(index) for index in range(answer)]
        code += [self._host(str(number)), bytes((_SET,)), unsigned(answer), *self._rounds(answer, slot, pause)]
        if results:
            code.append(self._host(VALUE + results))
        return code

    def _rounds(self, answer: int, slot: int, pause: int) -> list[bytes]:
        """Does what the local `answer` says until it says DONE."""
        get = bytes((_GET,)) + unsigned(answer)
        again = self._host(NEXT) + bytes((_SET,)) + unsigned(answer)
        zero = bytes((_I32, 0))
        return [
            bytes((_LOOP, _VOID)),
            get, bytes((_I64, *signed(DONE), _I64_NE, _IF, _VOID)),
            get, bytes((_I64, *signed(WAIT), _I64_EQ, _IF, _VOID)),
            bytes((_CALL,)), unsigned(pause), zero, again,
            bytes((_ELSE,)),
            zero, zero, get, bytes((_I64, 32, _SHIFT, _WRAP)), get, bytes((_WRAP,)),
            *self._indirect(slot, *_REALLOC), again,
            bytes((_END, _BR, 1, _END, _END)),
        ]  # fmt: skip

    def _destructor(self, number: int, slot: int) -> list[bytes]:
        get = bytes((_GET, 1))
        return [
            bytes((_GET, 0)), self._host(str(number)), bytes((_SET, 1)),
            get, bytes((_I64, 0, _I64_GE_S, _IF, _VOID)), get, bytes((_WRAP,)),
            *self._indirect(slot, "I", ""), bytes((_END,)),
        ]  # fmt: skip


def _function_type(params: str, results: str) -> bytes:
    return b"\x60" + b"".join(vector([bytes((_CODES[kind],)) for kind in kinds]) for kinds in (params, results))
