"""Makes core modules at random that are valid, end, and use memories, tables, globals and growth; and calls to make.

Text, from a seed: the same seed always gives the same program. No floats, whose NaNs may differ between machines.
A program's loops and calls burn `fuel`, which each call from outside fills up; without it they end at once. Most
accesses are inside, many of them just so: a program that traps early says little.
"""

import random
from dataclasses import dataclass
from typing import Final

from tests.fuzz.program_code import DEPTH, FUEL, INTERESTING, ROOM, Code

CALLS: Final = (3, 9)
FUNCTIONS: Final = (2, 6)
MEMORIES_MAX: Final = 2
_PAGES: Final = (0, 1, 1, 1, 2, 3, 5, 16, 17, 31, 32, 33, 40, 63, 64, 65)


@dataclass(frozen=True)
class Program:
    """`text`: a module without imports. `calls`: names of exported functions, each with two i32."""

    text: str
    calls: tuple[tuple[str, int, int], ...]
    memories: int


def program(seed: int, *, memory_pages: int) -> Program:
    """`memory_pages`: no memory starts with more, so that every pool of that size admits it."""
    return _Maker(random.Random(seed), memory_pages).program()  # noqa: S311 -- repeatable, no secret


class _Maker:
    """Of one program."""

    def __init__(self, chance: random.Random, memory_pages: int) -> None:
        self.chance = chance
        self.memory_pages = memory_pages
        self.memories = chance.randint(1, MEMORIES_MAX)
        self.functions = chance.randint(*FUNCTIONS)
        self.passive = chance.randint(0, 2)
        self.elements = chance.choice((0, 1, 5, 5, 10))
        self.code = Code(chance, memories=self.memories, functions=self.functions, passive=self.passive)

    def program(self) -> Program:
        chance = self.chance
        fields = [self._memory(index) for index in range(self.memories)]
        fields.append(f'(table $t (export "table") {self.elements} {chance.choice(("", "20"))} funcref)')
        fields += [
            f'(global $g{index} (export "global{index}") (mut {kind}) ({kind}.const {chance.choice(INTERESTING)}))'
            for index, kind in enumerate(self.code.global_types())
        ]
        fields.append(f"(global $fuel (mut i32) (i32.const {FUEL})) (type $f (func (param i32 i32) (result i32)))")
        fields.append('(func (export "refuel") (param i32 i32) (result i32)')
        fields.append(f"  (global.set $fuel (i32.const {FUEL})) (i32.const 0))")
        fields += [self._inside(index) for index in range(self.memories)]
        fields.append("(func $element (param i32) (result i32) (if (result i32) (table.size $t)")
        fields.append("  (then (i32.rem_u (local.get 0) (table.size $t))) (else (i32.const 0))))")
        fields += [self._function(index) for index in range(self.functions)]
        fields.append(f"(elem declare func {' '.join(f'$f{index}' for index in range(self.functions))})")
        fields += self._segments()
        if chance.random() < 0.3:
            fields.append("(func $start (drop (call $f0 (i32.const 1) (i32.const 2)))) (start $start)")
        return Program(f"(module\n{chr(10).join(fields)})", self._calls(), self.memories)

    def _calls(self) -> tuple[tuple[str, int, int], ...]:
        chance = self.chance
        return tuple(
            (f"f{chance.randrange(self.functions)}", chance.choice(INTERESTING), chance.randint(-(2**31), 2**31 - 1))
            for _ in range(chance.randint(*CALLS))
        )

    def _memory(self, index: int) -> str:
        first = min(self.chance.choice(_PAGES), self.memory_pages)
        most = self.chance.choice(("", first, first + 1, first + 40, 65536))
        return f'(memory $m{index} (export "memory{index}") {first} {most})'

    @staticmethod
    def _inside(index: int) -> str:
        """A function from any number to an address with room behind it, if the memory has a byte."""
        size = f"(i32.shl (memory.size $m{index}) (i32.const 16))"
        return (
            f"(func $inside{index} (param i32) (result i32) (if (result i32) (memory.size $m{index})\n"
            f"  (then (i32.rem_u (local.get 0) (i32.sub {size} (i32.const {ROOM})))) (else (i32.const 0))))"
        )

    def _segments(self) -> list[str]:
        chance, fields = self.chance, list[str]()
        for _ in range(chance.choice((0, 0, 1, 2, 4))):
            # Not all of them fit: then the instantiation traps, after the ones before it have been written.
            address = chance.choice(
                (65530, 65536, 131071) if chance.random() < 0.03 else (0, 8, 100, 1000, 4095, 65500)
            )
            fields.append(f'(data (memory {chance.randrange(self.memories)}) (i32.const {address}) "{self._bytes()}")')
        fields += [f'(data $p{index} "{self._bytes()}")' for index in range(self.passive)]
        fields += [f"(elem $e{index} func {self._names()})" for index in range(self.passive)]
        covered = self.elements if chance.random() < 0.97 else self.elements + 1
        if chance.random() < 0.9:
            fields.append(f"(elem (table $t) (i32.const 0) func {self._names(covered)})")
        return fields

    def _bytes(self) -> str:
        return "".join(f"\\{byte:02x}" for byte in self.chance.randbytes(self.chance.choice((0, 1, 8, 30))))

    def _names(self, count: int | None = None) -> str:
        count = self.chance.randint(0, 4) if count is None else count
        return " ".join(f"$f{self.chance.randrange(self.functions)}" for _ in range(count))

    def _function(self, index: int) -> str:
        self.code.loops = 0
        body = [self.code.statement(DEPTH) for _ in range(self.chance.randint(2, 7))]
        return (
            f'(func $f{index} (export "f{index}") (type $f) (local i32 i32 i64 i64) {self.code.burn()}\n  '
            + "\n  ".join(body)
            + f"\n  {self.code.value('i32', DEPTH)})"
        )
