"""The files of a tar, one after another. Only what image layers have: ustar, pax and GNU long names.

The standard library's tarfile is not used on what a registry sent: it reads a header of any size into memory, and in
the Python that Debian 12 has, its pax parser takes time that grows with the square of that size, holding the GIL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

BLOCK: Final = 512
MOST_HEADER_BYTES: Final = 64 * 1024
MOST_ENTRIES: Final = 200_000
MOST_SIZE_DIGITS: Final = 19
MOST_PATH_BYTES: Final = 4096
MOST_DEPTH: Final = 64
MOST_HEADERS: Final = 4
"""Before the entry that they are about: x, g, L and K, each once."""


class TarError(Exception):
    """It is no tar, or one that is not read here."""


class Reader(Protocol):
    """Bytes in order."""

    @property
    def position(self) -> int:
        """Bytes read and skipped."""
        ...

    def read(self, size: int) -> bytes:
        """So many; fewer only at the end. Raises TarError."""
        ...

    def skip(self, size: int) -> None:
        """Over so many. Raises TarError where it ends before."""
        ...


class Type(Enum):
    """Of an entry, as far as it matters here."""

    FILE = auto()
    DIRECTORY = auto()
    HARD_LINK = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: without a slash at either end; `size`: of its content, which follows."""

    path: str
    type: Type
    size: int


_SPARSE: Final = "sparse"
_TYPES: Final = {b"0": Type.FILE, b"\0": Type.FILE, b"7": Type.FILE, b"5": Type.DIRECTORY, b"1": Type.HARD_LINK}


def entries(reader: Reader) -> Iterator[Entry]:
    """Each with the reader at its content: it may be read, or not. Raises TarError."""
    extra: dict[str, bytes] = {}
    headers = 0
    for _ in range(MOST_ENTRIES):
        header = reader.read(BLOCK)
        if not header.strip(b"\0"):  # two blocks of zeros end it, and some writers leave them out
            return
        _check(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in {b"x", b"g", b"L", b"K"}:
            headers += 1
            if headers > MOST_HEADERS:
                raise TarError(f"it has more than {MOST_HEADERS} headers for one entry")
            data = _small(reader, size)
            if kind == b"x":
                extra |= _pax(data)
            elif kind == b"L":
                extra["path"] = data.rstrip(b"\0")
            continue
        name, size = _path(extra.get("path") or _ustar_path(header)), _pax_size(extra, size)
        if kind == b"S" or _SPARSE in extra:
            raise TarError("it has a sparse file")
        extra, headers = {}, 0
        entry_type = _TYPES.get(kind, Type.OTHER)
        # Only files have content: what a link says of its size is its target's.
        content = size if entry_type is Type.FILE else 0
        end = reader.position + content + -content % BLOCK
        yield Entry(name, entry_type, content)
        reader.skip(end - reader.position)
    raise TarError(f"it has more than {MOST_ENTRIES} entries")


def _check(header: bytes) -> None:
    if len(header) != BLOCK:
        raise TarError("it ends within a header")
    wanted = _number(header[148:156])
    if sum(header[:148]) + 8 * 0x20 + sum(header[156:]) != wanted:
        raise TarError("a header's checksum is wrong")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256
        if field[0] != 0x80:
            raise TarError("a header has a number out of range")
        number = int.from_bytes(field[1:], "big")
    else:
        text = field.strip(b" \0")
        if text.strip(b"01234567"):
            raise TarError("a header has a number that is not octal")
        number = int(text or b"0", 8)
    if number >= 1 << 62:
        raise TarError("a header has a number out of range")
    return number


def _small(reader: Reader, size: int) -> bytes:
    if size > MOST_HEADER_BYTES:
        raise TarError(f"it has a header of {size} bytes, allowed are {MOST_HEADER_BYTES}")
    data = reader.read(size)
    reader.skip(-size % BLOCK)
    if len(data) != size:
        raise TarError("it ends within a header")
    return data


def _pax(data: bytes) -> dict[str, bytes]:
    """Records of `<length> <key>=<value>\\n`. Of all that there may be, the two that matter are kept."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > position else b""
        if not digits.isdigit():
            raise TarError("a pax header can't be read")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end].partition(b"=")
        if end > len(data) or end <= space or not equals or not value.endswith(b"\n"):
            raise TarError("a pax header can't be read")
        if key in {b"path", b"size"}:
            found[key.decode()] = value[:-1]
        elif key.startswith(b"GNU.sparse."):
            found[_SPARSE] = b""
        position = end
    return found


def _pax_size(extra: dict[str, bytes], size: int) -> int:
    given = extra.get("size")
    if given is None:
        return size
    if not given.isdigit() or len(given) > MOST_SIZE_DIGITS:
        raise TarError("a pax header has a size that is no number")
    return int(given)


def _ustar_path(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _path(raw: bytes) -> str:
    if len(raw) > MOST_PATH_BYTES:
        raise TarError(f"it has a path of {len(raw)} bytes, allowed are {MOST_PATH_BYTES}")
    parts = [part for part in raw.decode(errors="replace").split("/") if part not in {"", "."}]
    if ".." in parts:
        raise TarError("it has a path with '..'")
    if len(parts) > MOST_DEPTH:
        raise TarError(f"it has a path with {len(parts)} parts, allowed are {MOST_DEPTH}")
    return "/".join(parts)
