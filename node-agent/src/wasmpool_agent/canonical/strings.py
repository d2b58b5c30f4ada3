"""Strings in the three encodings of the canonical ABI."""

from collections.abc import Callable
from typing import Final, NamedTuple

from wasmpool_agent.canonical.memory import Memory
from wasmpool_agent.wasmtime_async import HostTrap

_UTF16: Final = 1 << 31
"""In the length of a string that is either Latin-1 or UTF-16: it is UTF-16."""
MAX_STRING_BYTES: Final = 2**31 - 1


class Encoded(NamedTuple):
    """`units`: the length as the guest gets it. `alignment`: bytes."""

    data: bytes
    alignment: int
    units: int


Decoder = Callable[[Memory, int, int], str]
"""(memory, pointer, length in units) -> text; HostTrap where it is none."""


def _decode(memory: Memory, pointer: int, size: int, alignment: int, encoding: str) -> str:
    if size > MAX_STRING_BYTES:
        raise HostTrap(f"a string of {size} bytes: at most {MAX_STRING_BYTES} are allowed")
    try:
        return str(memory.slice_at(pointer, size, alignment), encoding)
    except UnicodeDecodeError as error:
        raise HostTrap(f"a string that is not {encoding.upper()}: {error.reason}") from error


def _utf8(memory: Memory, pointer: int, units: int) -> str:
    return _decode(memory, pointer, units, 1, "utf-8")


def _utf16(memory: Memory, pointer: int, units: int) -> str:
    return _decode(memory, pointer, units * 2, 2, "utf-16-le")


def _either(memory: Memory, pointer: int, units: int) -> str:
    if units & _UTF16:
        return _utf16(memory, pointer, units ^ _UTF16)
    return _decode(memory, pointer, units, 2, "latin-1")


DECODERS: Final[dict[str, Decoder]] = {"utf8": _utf8, "utf16": _utf16, "latin1+utf16": _either}


def encode(text: str, encoding: str) -> Encoded:
    """Raises ValueError for what has no encoding: surrogates, or too much of it."""
    if encoding == "utf8":
        data = text.encode()
        found = Encoded(data, 1, len(data))
    elif encoding == "utf16" or not _is_latin1(text):
        data = text.encode("utf-16-le")
        found = Encoded(data, 2, len(data) // 2 | (_UTF16 if encoding == "latin1+utf16" else 0))
    else:
        data = text.encode("latin-1")
        found = Encoded(data, 2, len(data))
    if len(found.data) > MAX_STRING_BYTES:
        raise ValueError(f"a string of {len(found.data)} bytes: at most {MAX_STRING_BYTES} are allowed")
    return found


def _is_latin1(text: str) -> bool:
    return text.isascii() or max(text) <= "\xff"
