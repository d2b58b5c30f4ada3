"""Pieces of a core module's binary. Pure."""

from collections.abc import Sequence


def unsigned(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """LEB128 with a sign."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def vector(items: Sequence[bytes]) -> bytes:
    """Their number before them."""
    return unsigned(len(items)) + b"".join(items)


def string(text: str) -> bytes:
    """UTF-8, with its length before it."""
    data = text.encode()
    return unsigned(len(data)) + data


def section(number: int, content: bytes) -> bytes:
    """With its number and length before it."""
    return bytes((number,)) + unsigned(len(content)) + content
