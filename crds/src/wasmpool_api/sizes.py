"""Sizes as types: bytes, pages of WebAssembly, huge pages and slots can't be mixed up, go negative or overflow.

The name of every conversion says which way it rounds. Python's integers don't overflow, but those of the kernel and of
the native part do: no size here exceeds 2^63 - 1.
"""

from dataclasses import dataclass
from typing import Final, Self

from wasmpool_api.limits import WASM_PAGE_BYTES

BASE_PAGE_BYTES: Final = 4096
MAX_SIZE: Final = 2**63 - 1


class SizeError(ValueError):
    """A size is negative or too large. `given` is the number, `allowed` the largest possible one."""

    def __init__(self, what: str, given: int, allowed: int = MAX_SIZE) -> None:
        super().__init__(f"{given} {what}: from 0 to {allowed} is allowed")
        self.what = what
        self.given = given
        self.allowed = allowed


@dataclass(frozen=True, slots=True, order=True)
class ByteCount:
    """A number of bytes, 0 to 2^63 - 1."""

    value: int

    def __post_init__(self) -> None:
        _check("bytes", self.value)

    def __add__(self, other: "ByteCount") -> "ByteCount":
        return ByteCount(self.value + other.value)

    def __mul__(self, times: int) -> "ByteCount":
        return ByteCount(self.value * times)

    def rounded_up_to(self, multiple: "ByteCount") -> "ByteCount":
        """The smallest multiple of `multiple` (at least one byte) that is not less."""
        return ByteCount(_divided_rounded_up(self.value, multiple.value) * multiple.value)

    def __int__(self) -> int:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class WasmPages:
    """A number of WebAssembly pages, of 64 KiB each."""

    value: int

    def __post_init__(self) -> None:
        _check("pages of 64 KiB", self.value)

    @classmethod
    def of_rounded_up(cls, size: ByteCount) -> Self:
        """As many as hold `size`."""
        return cls(_divided_rounded_up(size.value, WASM_PAGE_BYTES))

    def to_bytes(self) -> ByteCount:
        """Exact."""
        return ByteCount(self.value * WASM_PAGE_BYTES)

    def __int__(self) -> int:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class HugePages:
    """A number of pages of the machine, `page` bytes each."""

    value: int
    page: ByteCount

    def __post_init__(self) -> None:
        _check("huge pages", self.value)

    @classmethod
    def of_rounded_up(cls, size: ByteCount, page: ByteCount) -> Self:
        """As many as hold `size`."""
        return cls(_divided_rounded_up(size.value, page.value), page)

    def to_bytes(self) -> ByteCount:
        """Exact."""
        return self.page * self.value

    def __int__(self) -> int:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Slots:
    """A number of slots."""

    value: int

    def __post_init__(self) -> None:
        _check("slots", self.value)

    def of_bytes(self, each: ByteCount) -> ByteCount:
        """What so many slots of `each` bytes take, side by side."""
        return each * self.value

    def __int__(self) -> int:
        return self.value


def _check(what: str, value: int) -> None:
    if not 0 <= value <= MAX_SIZE:
        raise SizeError(what, value)


def _divided_rounded_up(value: int, by: int) -> int:
    if by < 1:
        raise SizeError("bytes to round to", by)
    return -(-value // by)
