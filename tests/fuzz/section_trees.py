"""Binaries as trees of sections, so that a mutation inside of one leaves the lengths around it right."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from wasmpool_api.wasm.reader import Reader

PREAMBLE_BYTES = 8
CUSTOM, CORE_MODULE, COMPONENT = 0, 1, 4


@dataclass
class Section:
    """`content`: of a leaf; of what holds a module or a component it is `inner`."""

    number: int
    content: bytearray = field(default_factory=bytearray)
    inner: "Tree | None" = None


@dataclass
class Tree:
    """A module or a component."""

    preamble: bytes
    sections: list[Section] = field(default_factory=list[Section])

    @classmethod
    def read(cls, binary: bytes) -> "Tree":
        """Of one whose structure is right. Custom sections are left out: a mutation changes nothing there."""
        tree = cls(binary[:PREAMBLE_BYTES])
        is_component = binary[6] == 1
        at = PREAMBLE_BYTES
        while at < len(binary):
            number = binary[at]
            body = Reader(binary, at + 1).section("a section")
            at = body.end
            content = binary[body.position : body.end]
            if is_component and number in {CORE_MODULE, COMPONENT}:
                tree.sections.append(Section(number, inner=cls.read(content)))
            elif number != CUSTOM:
                tree.sections.append(Section(number, bytearray(content)))
        return tree

    def binary(self) -> bytes:
        """As it stands in a file."""
        out = bytearray(self.preamble)
        for section in self.sections:
            content = section.inner.binary() if section.inner is not None else section.content
            out += bytes([section.number]) + leb(len(content)) + content
        return bytes(out)

    def trees(self) -> Iterator["Tree"]:
        """This one and all that are in it."""
        yield self
        for section in self.sections:
            if section.inner is not None:
                yield from section.inner.trees()


def leb(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def mutate_sections(chance: random.Random, binary: bytes, others: list[Section]) -> bytes:
    """One section is left out, doubled, moved, taken from another binary, or changed in a byte or two."""
    whole = Tree.read(binary)
    tree = chance.choice(list(whole.trees()))
    sections = tree.sections
    if not sections:
        return binary
    at = chance.randrange(len(sections))
    match chance.randrange(8):
        case 0:
            del sections[at]
        case 1:
            sections.insert(chance.randrange(at, len(sections)) + 1, sections[at])
        case 2:
            other = chance.randrange(len(sections))
            sections[at], sections[other] = sections[other], sections[at]
        case 3:
            sections.insert(at, chance.choice(others))
        case _:
            _change(chance, sections[at].content)
    return whole.binary()


def _change(chance: random.Random, content: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2))):
        if not content:
            return
        at = chance.randrange(len(content))
        match chance.randrange(6):
            case 0:
                content[at] = (content[at] + chance.choice((-1, 1))) % 256
            case 1:
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                del content[at : at + chance.randrange(1, 4)]
            case 3:
                content[at:at] = chance.randbytes(chance.randrange(1, 4))
            case 4:
                # One entry more, or one less, than the vector says.
                content[0] = (content[0] + chance.choice((-1, 1))) % 256
            case _:
                content[at] = chance.randrange(16)
