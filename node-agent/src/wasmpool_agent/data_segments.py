"""Joins data segments that lie close to each other. Pure: a module in, a module that does the same out.

Without copy-on-write images Wasmtime turns data segments into code, one piece for each. Go's linker leaves out every
run of a few zeros: 32,000 segments for a small program, which take 700 MB and three times as long to compile as the
rest of it, and each instance runs through all of them. Joined, with the zeros in between, they are a few hundred.

    |seg 0| 0 0 |seg 1| 0 |seg 2| ......... |seg 3|      becomes      |segment 0          | ......... |segment 1|

What makes it the same: only active segments of a memory that the module defines itself are joined; the zeros between
them fall where nothing else is written, in memory that is new and so is zero already; and a module that names its
segments (it then has a DataCount section) is left alone. Where one would trap, so would the other, before any guest
code runs.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.wasm_encoding import signed, unsigned

GAP_MAX_BYTES: Final = 64
_HEADER: Final = b"\0asm\x01\0\0\0"
_IMPORT, _MEMORY, _DATA, _DATA_COUNT = 2, 5, 11, 12
_I32_CONST, _END = 0x41, 0x0B
_IMPORTED_MEMORY: Final = 2


class _NotOursError(Exception):
    """Something that is not joined: the module stays as it is, and the compiler says what is wrong, if anything is."""


@dataclass(slots=True)
class _Segment:
    offset: int
    content: bytearray

    @property
    def end(self) -> int:
        return self.offset + len(self.content)


def join_data_segments(wasm: bytes) -> bytes:
    """The module with fewer data segments; the very same bytes where there is nothing to join or anything unusual."""
    try:
        return _join(wasm)
    except (_NotOursError, IndexError):
        return wasm


def _join(wasm: bytes) -> bytes:
    if not wasm.startswith(_HEADER):
        raise _NotOursError
    sections = {kind: (start, body, end) for kind, start, body, end in _sections(wasm)}
    if _DATA not in sections or _MEMORY not in sections or _DATA_COUNT in sections:
        raise _NotOursError
    if _IMPORT in sections:
        _refuse_imported_memory(wasm, sections[_IMPORT][1])
    start, body, end = sections[_DATA]
    count, at = _unsigned(wasm, body)
    joined = list(_joined(_segments(wasm, at, end, count)))
    if len(joined) == count:
        return wasm
    data = b"".join((unsigned(len(joined)), *map(_segment_bytes, joined)))
    return b"".join((wasm[:start], bytes((_DATA,)), unsigned(len(data)), data, wasm[end:]))


def _refuse_imported_memory(wasm: bytes, at: int) -> None:
    count, at = _unsigned(wasm, at)
    for _ in range(count):
        for _ in range(2):
            length, at = _unsigned(wasm, at)
            at += length
        # Whatever is not a function is rare, and a memory would be somebody else's: neither is worth the parsing.
        if wasm[at] != 0:
            raise _NotOursError
        _, at = _unsigned(wasm, at + 1)


def _sections(wasm: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, and where it starts, where its body starts, where it ends."""
    at = len(_HEADER)
    while at < len(wasm):
        kind = wasm[at]
        length, body = _unsigned(wasm, at + 1)
        if body + length > len(wasm):
            raise _NotOursError
        yield kind, at, body, body + length
        at = body + length


def _segments(wasm: bytes, at: int, end: int, count: int) -> Iterator[_Segment]:
    for _ in range(count):
        if wasm[at] != 0 or wasm[at + 1] != _I32_CONST:
            raise _NotOursError
        offset, at = _signed(wasm, at + 2)
        if wasm[at] != _END:
            raise _NotOursError
        length, at = _unsigned(wasm, at + 1)
        if at + length > end:
            raise _NotOursError
        yield _Segment(offset % 2**32, bytearray(wasm[at : at + length]))
        at += length
    if at != end:
        raise _NotOursError


def _joined(segments: Iterator[_Segment]) -> Iterator[_Segment]:
    written = _Written()
    current: _Segment | None = None
    for segment in segments:
        if current is not None:
            gap = segment.offset - current.end
            if 0 <= gap <= GAP_MAX_BYTES and not written.touches(current.end, segment.end):
                current.content += bytes(gap) + segment.content
                continue
            written.add(current)
            yield current
        current = segment
    if current is not None:
        written.add(current)
        yield current


class _Written:
    """Where the joined segments are. Invariant: they do not overlap, and both lists are in ascending order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def touches(self, start: int, end: int) -> bool:
        """Whether any byte from start to before end is written."""
        after = bisect_left(self._starts, end)
        return after > 0 and self._ends[after - 1] > start

    def add(self, segment: _Segment) -> None:
        """Raises _NotOursError where it overlaps: then the order of writing matters."""
        if not segment.content:
            return
        if self.touches(segment.offset, segment.end):
            raise _NotOursError
        at = bisect_left(self._starts, segment.offset)
        self._starts.insert(at, segment.offset)
        self._ends.insert(at, segment.end)


def _segment_bytes(segment: _Segment) -> bytes:
    offset = segment.offset - 2**32 if segment.offset >= 2**31 else segment.offset
    head = bytes((0, _I32_CONST)) + signed(offset) + bytes((_END,))
    return head + unsigned(len(segment.content)) + bytes(segment.content)


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift >= 35:
            raise _NotOursError


def _signed(data: bytes, at: int) -> tuple[int, int]:
    begin = at
    value, at = _unsigned(data, at)
    bits = 7 * (at - begin)
    return value - (1 << bits) if value >> (bits - 1) & 1 else value, at
