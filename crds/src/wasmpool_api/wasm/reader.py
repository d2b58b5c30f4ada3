"""Bytes to numbers. Every length is checked against what is there before it is believed."""

import re
from typing import Final

_HIGH_BYTES: Final = bytes(range(0x80, 0x100))
_BAD_U32: Final = re.compile(rb"[\x80-\xff]{4}[\x10-\xff]")


class ModuleInvalid(ValueError):  # noqa: N818 - the reason's name in a workload's status
    """The bytes are no WebAssembly binary. `offset`: where, in bytes from the start of the file."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"{problem} (at offset {offset})")
        self.offset = offset
        self.problem = problem


class Reader:
    """Reads `data` from `position` up to `end`; offsets in errors are those of `data`, so readers can be nested.

    Invariant: position <= end <= len(data).
    """

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes | memoryview, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end
        if not 0 <= position <= self.end <= len(data):
            raise ValueError(f"{position} to {end} is not within the {len(data)} bytes that there are")

    @property
    def remaining(self) -> int:
        """Bytes left."""
        return self.end - self.position

    def byte(self, what: str) -> int:
        """One byte. `what` is for the message."""
        at = self.position
        if at >= self.end:
            raise ModuleInvalid(at, f"unexpected end: {what} is missing")
        self.position = at + 1
        return self.data[at]

    def peek(self) -> int:
        """The next byte, which stays; -1 at the end."""
        return self.data[self.position] if self.position < self.end else -1

    def skip(self, length: int, what: str) -> int:
        """Passes `length` bytes and returns where they begin."""
        at = self.position
        if length > self.end - at:
            raise ModuleInvalid(at, f"unexpected end: {what} of {length} bytes, {self.end - at} are left")
        self.position = at + length
        return at

    def u32(self, what: str) -> int:
        """An unsigned LEB128 of at most 32 bits."""
        return self._unsigned(what, 32)

    def u64(self, what: str) -> int:
        """An unsigned LEB128 of at most 64 bits."""
        return self._unsigned(what, 64)

    def s33(self, what: str) -> int:
        """A signed LEB128 of at most 33 bits: a heap type."""
        return self._signed(what, 33)

    def s32(self, what: str) -> int:
        """A signed LEB128 of at most 32 bits."""
        return self._signed(what, 32)

    def s64(self, what: str) -> int:
        """A signed LEB128 of at most 64 bits."""
        return self._signed(what, 64)

    def count(self, what: str, most: int, least_bytes: int = 1) -> int:
        """The length of a vector, whose elements take `least_bytes` or more each: more than can be there is a lie."""
        at = self.position
        count = self._unsigned(f"the number of {what}", 32)
        if count > most:
            raise ModuleInvalid(at, f"{count} {what}: at most {most} are allowed")
        if count * least_bytes > self.end - self.position:
            raise ModuleInvalid(at, f"{count} {what} can't be in the {self.end - self.position} bytes that are left")
        return count

    def name(self, what: str) -> str:
        """A UTF-8 text with its length before it."""
        at = self.position
        length = self._unsigned(f"the length of {what}", 32)
        start = self.skip(length, what)
        try:
            return bytes(self.data[start : start + length]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModuleInvalid(at, f"{what} is not UTF-8") from error

    def section(self, what: str) -> "Reader":
        """A reader of what follows, whose length stands before it; this one goes on behind it."""
        at = self.position
        length = self._unsigned(f"the length of {what}", 32)
        if length > self.remaining:
            raise ModuleInvalid(at, f"{what} says it has {length} bytes, {self.remaining} are left in the file")
        start = self.skip(length, what)
        return Reader(self.data, start, start + length)

    def skip_u32s(self, count: int, what: str) -> None:
        """Passes exactly `count` unsigned LEB128 numbers, which must reach to the end. In C, for they may be many."""
        body = bytes(self.data[self.position : self.end])
        bad = _BAD_U32.search(body)
        if bad is not None:
            raise ModuleInvalid(self.position + bad.start(), f"{what}: a number is longer or larger than 32 bits")
        found = len(body.translate(None, _HIGH_BYTES))
        if found != count or (body and body[-1] >= 0x80):
            raise ModuleInvalid(self.position, f"{count} {what} are announced, the section has {found}")
        self.position = self.end

    def expect_end(self, what: str) -> None:
        """Nothing may be left."""
        if self.position != self.end:
            raise ModuleInvalid(self.position, f"{what} has {self.remaining} bytes too many")

    def _unsigned(self, what: str, bits: int) -> int:
        at = self.position
        data, position, end = self.data, at, self.end
        value = shift = 0
        while position < end:
            byte = data[position]
            position += 1
            if shift + 7 > bits and byte >> (bits - shift):
                problem = f"is longer than {bits} bits" if byte >= 0x80 else f"does not fit {bits} bits"
                raise ModuleInvalid(at, f"{what} {problem}")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.position = position
                return value
            shift += 7
        raise ModuleInvalid(at, f"unexpected end: {what} is cut off")

    def _signed(self, what: str, bits: int) -> int:
        at = self.position
        value = shift = 0
        for position in range(at, self.end):
            byte = self.data[position]
            if shift + 7 > bits:
                # The last byte: no continuation, and the bits beyond the number must repeat its sign.
                sign_and_rest = (byte & 0x7F) >> (bits - shift - 1)
                if byte >= 0x80:
                    raise ModuleInvalid(at, f"{what} is longer than {bits} bits")
                if sign_and_rest not in {0, 0x7F >> (bits - shift - 1)}:
                    raise ModuleInvalid(at, f"{what} does not fit {bits} bits")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.position = position + 1
                return value - (1 << shift) if byte & 0x40 else value
        raise ModuleInvalid(at, f"unexpected end: {what} is cut off")
