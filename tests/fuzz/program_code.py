"""What stands inside of the functions that program_generator makes: statements and expressions, as text."""

import random
from collections.abc import Sequence
from typing import Final, Literal

Type = Literal["i32", "i64"]

FUEL: Final = 400
GLOBALS: Final = 4
DEPTH: Final = 4
INTERESTING: Final = (0, 1, -1, 2, 7, 255, 256, 4095, 4096, 65535, 65536, 65537, 2**21 - 1, 2**21, 2**31 - 1, -(2**31))
_NEAR: Final = (1, 3, 8, 16, 100)
_FAR: Final = (4096, 65535, 65536, 2**21 - 4, 2**21, 2**25, 2**31, 2**32 - 1)
ROOM: Final = 400
"""Bytes that an access may take behind an address that is meant to be inside: its width, a near offset, a length."""
_STRAY: Final = 0.01
"""How many accesses may well be outside."""
_STEPS: Final = (0, 1, 1, 1, 2, 3, 15, 16, 31, 32, 33, 64, 70, 1000, 65535, 65536, -1)
_LOADS: Final[dict[Type, tuple[str, ...]]] = {
    "i32": ("i32.load", "i32.load8_u", "i32.load8_s", "i32.load16_u", "i32.load16_s"),
    "i64": ("i64.load", "i64.load8_u", "i64.load16_s", "i64.load32_u", "i64.load32_s"),
}
_STORES: Final[dict[Type, tuple[str, ...]]] = {
    "i32": ("i32.store", "i32.store8", "i32.store16"),
    "i64": ("i64.store", "i64.store8", "i64.store16", "i64.store32"),
}
_BINARY: Final = ("add", "sub", "mul", "and", "or", "xor", "shl", "shr_u", "shr_s", "rotl", "rotr")
_TRAPPING: Final = ("div_u", "div_s", "rem_u", "rem_s")
_COMPARISONS: Final = ("eq", "ne", "lt_s", "lt_u", "gt_s", "ge_u", "le_s")


class Code:
    """Of one program. A function takes two i32 (locals 0 and 1), has locals 2 to 5, and returns an i32."""

    def __init__(self, chance: random.Random, *, memories: int, functions: int, passive: int) -> None:
        self.chance = chance
        self.memories = memories
        self.functions = functions
        self.passive = passive
        self.loops = 0

    @staticmethod
    def global_types() -> Sequence[Type]:
        return ("i32", "i64") * (GLOBALS // 2)

    @staticmethod
    def burn() -> str:
        return (
            "(if (i32.le_s (global.get $fuel) (i32.const 0)) (then (return (i32.const 77)))) "
            "(global.set $fuel (i32.sub (global.get $fuel) (i32.const 1)))"
        )

    # What follows makes text for one place: `depth` says how much may still be nested in it.

    def _any_memory(self) -> str:
        return f"$m{self.chance.randrange(self.memories)}"

    def _address(self, memory: str, depth: int) -> str:
        """Inside, with room behind it, and often near the end; seldom anything."""
        kind = self.chance.random()
        if kind < _STRAY:
            return self.chance.choice((self.value("i32", depth - 1), self._from_end(memory, (-65536, -1, 0, 1, 3, 7))))
        if kind < 0.3:
            return self._from_end(memory, (ROOM, ROOM, ROOM + 1, 4095, 4096, 65536))
        return f"(call $inside{memory[2:]} {self.value('i32', depth - 1)})"

    def _from_end(self, memory: str, distances: Sequence[int]) -> str:
        size = f"(i32.shl (memory.size {memory}) (i32.const 16))"
        return f"(i32.sub {size} (i32.const {self.chance.choice(distances)}))"

    def _access(self, memory: str, depth: int) -> str:
        """Of at most 16 bytes: memory, offset and address."""
        kind = self.chance.random()
        if kind < 0.2:  # the last bytes, exactly
            return f"{memory} {self._from_end(memory, (16, 16, 17, 32))}"
        if kind < 0.4:
            return f"{memory} offset={self.chance.choice(_NEAR)} {self._address(memory, depth)}"
        if kind < 0.4 + _STRAY:
            return f"{memory} offset={self.chance.choice(_FAR)} {self._address(memory, depth)}"
        return f"{memory} {self._address(memory, depth)}"

    def _length(self, depth: int) -> str:
        if self.chance.random() < _STRAY:
            return f"(i32.and {self.value('i32', depth - 1)} (i32.const 131071))"
        return f"(i32.and {self.value('i32', depth - 1)} (i32.const {self.chance.choice((0, 1, 15, 255))}))"

    def _element(self, depth: int) -> str:
        index = self.value("i32", depth - 1)
        return f"(i32.and {index} (i32.const 15))" if self.chance.random() < _STRAY else f"(call $element {index})"

    def _few(self) -> str:
        return f"(i32.const {self.chance.choice((0, 0, 1, 1, 2, 5))})"

    def _reference(self) -> str:
        if self.chance.random() < 0.3:
            return "(ref.null func)"
        return f"(ref.func $f{self.chance.randrange(self.functions)})"

    def _call(self, depth: int) -> str:
        arguments = f"{self.value('i32', depth - 1)} {self.value('i32', depth - 1)}"
        if self.chance.random() < 0.3:
            return f"(call_indirect $t (type $f) {arguments} {self._element(depth)})"
        return f"(call $f{self.chance.randrange(self.functions)} {arguments})"

    def _constant(self, kind: Type) -> str:
        number = self.chance.choice(INTERESTING) if self.chance.random() < 0.7 else self.chance.randint(-(2**31), 2**31)
        return f"({kind}.const {number if kind == 'i64' else number % 2**32})"

    def _leaf(self, kind: Type) -> str:
        local = self.chance.choice((0, 1, 2, 3) if kind == "i32" else (4, 5))
        variable = self.chance.randrange(0 if kind == "i32" else 1, GLOBALS, 2)
        return self.chance.choice((f"(local.get {local})", f"(global.get $g{variable})", self._constant(kind)))

    def value(self, kind: Type, depth: int) -> str:
        """An expression of that type."""
        if depth <= 0:
            return self._leaf(kind)
        chance, memory = self.chance, self._any_memory()
        choice = chance.random()
        if choice < 0.25:
            return self._leaf(kind)
        if choice < 0.5:
            return f"({chance.choice(_LOADS[kind])} {self._access(memory, depth)})"
        if choice < 0.65:
            operation = chance.choice(_BINARY)
            return f"({kind}.{operation} {self.value(kind, depth - 1)} {self.value(kind, depth - 1)})"
        if choice < 0.68:
            divisor = f"({kind}.or {self.value(kind, depth - 1)} ({kind}.const {int(chance.random() > _STRAY)}))"
            return f"({kind}.{chance.choice(_TRAPPING)} {self.value(kind, depth - 1)} {divisor})"
        if choice < 0.74:
            branches = f"(then {self.value(kind, depth - 1)}) (else {self.value(kind, depth - 1)})"
            return f"(if (result {kind}) {self.value('i32', depth - 1)} {branches})"
        return self._i32(depth, memory) if kind == "i32" else self._i64(depth, memory)

    def _i32(self, depth: int, memory: str) -> str:
        match self.chance.randrange(10):
            case 0 | 1:
                return f"(memory.size {memory})"
            case 2 | 3:
                return f"(memory.grow {memory} (i32.const {self.chance.choice(_STEPS)}))"
            case 4:
                return self.chance.choice(("(table.size $t)", f"(ref.is_null (table.get $t {self._element(depth)}))"))
            case 5:
                return f"(table.grow $t {self._reference()} (i32.const {self.chance.choice((0, 1, 3, 20, -1))}))"
            case 6:
                return f"(i32.wrap_i64 {self.value('i64', depth - 1)})"
            case 7:
                compared: Type = self.chance.choice(("i32", "i64"))
                operands = f"{self.value(compared, depth - 1)} {self.value(compared, depth - 1)}"
                return f"({compared}.{self.chance.choice(_COMPARISONS)} {operands})"
            case 8:
                vector = f"(v128.load {self._access(memory, depth)})"
                return f"(i32x4.extract_lane {self.chance.randrange(4)} {vector})"
            case _:
                return self._call(depth)

    def _i64(self, depth: int, memory: str) -> str:
        match self.chance.randrange(3):
            case 0:
                return f"(i64.extend_i32_u {self.value('i32', depth - 1)})"
            case 1:
                return f"(i64.extend_i32_s {self.value('i32', depth - 1)})"
            case _:
                vector = f"(v128.load64_splat {self._access(memory, depth)})"
                return f"(i64x2.extract_lane 1 {vector})"

    def statement(self, depth: int) -> str:
        chance, memory = self.chance, self._any_memory()
        choice = chance.random()
        if choice < 0.35:
            kind: Type = chance.choice(("i32", "i64"))
            return f"({chance.choice(_STORES[kind])} {self._access(memory, depth)} {self.value(kind, depth - 1)})"
        if choice < 0.45:
            kind = chance.choice(("i32", "i64"))
            local = chance.choice((2, 3) if kind == "i32" else (4, 5))
            return f"(local.set {local} {self.value(kind, depth - 1)})"
        if choice < 0.52:
            index = chance.randrange(GLOBALS)
            return f"(global.set $g{index} {self.value(self.global_types()[index], depth - 1)})"
        if choice < 0.57:
            return f"(drop (memory.grow {memory} (i32.const {chance.choice(_STEPS)})))"
        if choice < 0.75:
            return self._bulk(depth, memory)
        if choice < 0.83 and depth > 1 and self.loops < 2:
            return self._loop(depth)
        if choice < 0.9 and depth > 1:
            body = f"(then {self.statement(depth - 1)}) (else {self.statement(depth - 1)})"
            return f"(if {self.value('i32', depth - 1)} {body})"
        return f"(drop {self._call(depth)})"

    def _loop(self, depth: int) -> str:
        """Runs until fuel, or a value, ends it."""
        self.loops += 1
        body = " ".join(self.statement(depth - 1) for _ in range(self.chance.randint(1, 3)))
        again = f"(br_if 0 (i32.and {self.value('i32', depth - 1)} (i32.const {self.chance.choice((1, 3, 255))})))"
        return f"(loop {self.burn()} {body} {again})"

    def _bulk(self, depth: int, memory: str) -> str:
        """What works on ranges of memories and tables."""
        to, length = self._address(memory, depth), self._length(depth)
        segment = self.chance.randrange(self.passive) if self.passive else None
        match self.chance.randrange(11 if segment is not None else 7):
            case 0 | 1:
                return f"(memory.fill {memory} {to} {self.value('i32', depth - 1)} {length})"
            case 2 | 3:
                source = self._any_memory()
                return f"(memory.copy {memory} {source} {to} {self._address(source, depth)} {length})"
            case 4:  # nearly everything, from the first byte to the last
                size = self._from_end(memory, (0, 0, 1, 4096))
                return f"(memory.fill {memory} (i32.const 0) {self.value('i32', depth - 1)} {size})"
            case 5:
                return f"(table.set $t {self._element(depth)} {self._reference()})"
            case 6:
                return f"(table.fill $t (i32.const 0) {self._reference()} {self._element(depth)})"
            case 7 | 8:
                return f"(memory.init {memory} $p{segment} {to} (i32.const 0) {self._few()})"
            case 9:
                return f"(table.init $t $e{segment} {self._element(depth)} (i32.const 0) {self._few()})"
            case _:
                return self.chance.choice((f"(data.drop $p{segment})", f"(elem.drop $e{segment})"))
