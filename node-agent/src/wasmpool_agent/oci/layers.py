"""The one .wasm file of a plain image, over all its layers. Runs in a thread: it unpacks.

Twice: once for the names, and once more for the content of the one that is left. What is not wanted is never kept.
The work is linear in the layers' unpacked size, and whoever waits can end it between two pieces.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final

from wasmpool_agent.oci.errors import ArtifactInvalidError, TooLargeError, shown
from wasmpool_agent.oci.manifest import NAMES_SHOWN, Descriptor
from wasmpool_agent.oci.tar import Entry, TarError, Type, entries

UNPACKED_FACTOR: Final = 4
UNPACKED_MORE: Final = 1024 * 1024
"""All layers together may unpack to so many times what the module may have, and so much more: tars are padded."""
MOST_NAMES: Final = 256
WASM_MAGIC: Final = b"\0asm"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_CHUNK: Final = 256 * 1024
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_SUFFIX: Final = ".wasm"


@dataclass(frozen=True, slots=True)
class Layer:
    """`file`: the blob, checked against its digest."""

    described: Descriptor
    file: BinaryIO


@dataclass(frozen=True, slots=True)
class _Place:
    layer: int
    number: int
    type: Type
    size: int


def find_wasm(layers: Sequence[Layer], most_bytes: int, go_on: Callable[[], None] = lambda: None) -> bytes:
    """Its content. `go_on` is called between two pieces, and may raise. Raises ArtifactInvalidError, TooLargeError."""
    most_unpacked = most_bytes * UNPACKED_FACTOR + UNPACKED_MORE
    budget = _Budget(most_unpacked, go_on)
    found: dict[str, _Place] = {}
    for number, layer in enumerate(layers):
        _apply(found, number, layer, budget)
    name = _only(found, len(layers))
    place = found[name]
    if place.type is not Type.FILE:
        raise ArtifactInvalidError(f"{shown(name)} is a hard link in the image; allowed is a file")
    if place.size > most_bytes:
        raise TooLargeError(f"{shown(name)} has {place.size} bytes in the image, allowed are {most_bytes}")
    return _content(layers[place.layer], place, _Budget(most_unpacked, go_on))


def _only(found: dict[str, _Place], layers: int) -> str:
    names = sorted(found)
    if not names:
        raise ArtifactInvalidError(f"the image has no {_SUFFIX} file in its {layers} layers")
    if len(names) > 1:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        listed = ", ".join(shown(name, 100) for name in names[:NAMES_SHOWN])
        raise ArtifactInvalidError(f"the image has {len(names)} {_SUFFIX} files: {listed}{more}; one is allowed")
    return names[0]


def _apply(found: dict[str, _Place], layer_number: int, layer: Layer, budget: "_Budget") -> None:
    """What this layer removes of the lower ones, then what it adds: whiteouts are for lower layers only."""
    removal = _Removal(found)
    added: dict[str, _Place] = {}
    for number, entry in enumerate(_entries(layer, budget)):
        directory, _, name = entry.path.rpartition("/")
        if name == _OPAQUE:
            removal.below(directory)
        elif name.startswith(_WHITEOUT):
            removal.of(f"{directory}/{name[len(_WHITEOUT) :]}".lstrip("/"))
        else:
            if entry.type is not Type.DIRECTORY:  # it may be where a directory was
                removal.of(entry.path)
                added.pop(entry.path, None)
            if entry.type in {Type.FILE, Type.HARD_LINK} and name.endswith(_SUFFIX):
                added[entry.path] = _Place(layer_number, number, entry.type, entry.size)
        if len(added) > MOST_NAMES:
            raise ArtifactInvalidError(f"the image has more than {MOST_NAMES} {_SUFFIX} files; one is allowed")
    removal.carry_out()
    found |= added


class _Removal:
    """Of what lower layers have. Remembers only what concerns that, so each entry costs one look."""

    def __init__(self, found: dict[str, _Place]) -> None:
        self._found = found
        self._concerned = {path for name in found for path in (name, *_parents(name))}
        self._paths: set[str] = set()

    def of(self, path: str) -> None:
        """A file, or a directory with all that is in it."""
        self._paths |= {path, f"{path}/"} & self._concerned

    def below(self, directory: str) -> None:
        """All that is in a directory; the root's name is empty."""
        self._paths |= {f"{directory}/" if directory else ""} & self._concerned

    def carry_out(self) -> None:
        """Removes it."""
        for name in list(self._found):
            if name in self._paths or any(parent in self._paths for parent in _parents(name)):
                del self._found[name]


def _parents(name: str) -> Iterator[str]:
    """With a slash at the end; the root is empty."""
    yield ""
    yield from (name[: at + 1] for at, char in enumerate(name) if char == "/")


def _content(layer: Layer, place: _Place, budget: "_Budget") -> bytes:
    layer.file.seek(0)
    reader = _Reader(layer, budget)
    try:
        for number, entry in enumerate(_entries_of(reader, layer)):
            if number == place.number:
                content = BytesIO()
                while piece := reader.read(min(entry.size - content.tell(), _CHUNK)):
                    content.write(piece)
                if content.tell() == entry.size:
                    return content.getvalue()
    except (TarError, zlib.error) as error:
        raise _unreadable(layer, error) from error
    raise ArtifactInvalidError(f"layer {layer.described} ends within the module")


def _entries(layer: Layer, budget: "_Budget") -> Iterator[Entry]:
    layer.file.seek(0)
    try:
        yield from _entries_of(_Reader(layer, budget), layer)
    except (TarError, zlib.error) as error:
        raise _unreadable(layer, error) from error


def _entries_of(reader: "_Reader", layer: Layer) -> Iterator[Entry]:
    if reader.begins_with(WASM_MAGIC):
        # `oras push app.wasm` without a type: the module itself, named as if it were a tar.
        yield Entry(layer.described.title or f"layer{_SUFFIX}", Type.FILE, layer.described.size)
        return
    yield from entries(reader)


def _unreadable(layer: Layer, error: Exception) -> ArtifactInvalidError:
    return ArtifactInvalidError(f"layer {layer.described} can't be unpacked: {shown(str(error))}")


@dataclass(slots=True)
class _Budget:
    most: int
    go_on: Callable[[], None]
    used: int = 0

    def spend(self, size: int) -> None:
        self.go_on()
        self.used += size
        if self.used > self.most:
            raise TooLargeError(f"the image's layers unpack to more than {self.most} bytes, which is what is allowed")


class _Reader:
    """Unpacked bytes, in order. Never unpacks more than a chunk ahead. Implements tar.Reader."""

    def __init__(self, layer: Layer, budget: _Budget) -> None:
        self._file = layer.file
        self._budget = budget
        self._ahead = bytearray()
        self._packed = b""
        self.position = 0
        start = self._file.read(4)
        self._file.seek(0)
        if start == _ZSTD:
            raise ArtifactInvalidError(f"layer {layer.described} is packed with zstd; allowed are tar and tar+gzip")
        self._unpacker = zlib.decompressobj(wbits=31) if start.startswith(_GZIP) else None

    def begins_with(self, magic: bytes) -> bool:
        while len(self._ahead) < len(magic) and self._fill():
            pass
        return self._ahead.startswith(magic)

    def read(self, size: int) -> bytes:
        self._budget.go_on()
        while len(self._ahead) < size and self._fill():
            pass
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        end = self.position + size
        while self.position < end:
            if not self.read(min(end - self.position, _CHUNK)):
                raise TarError("it ends within a file")

    def _fill(self) -> bool:
        """Whether there is more."""
        more = self._next()
        self._budget.spend(len(more))
        self._ahead += more
        return bool(more)

    def _next(self) -> bytes:
        if self._unpacker is None:
            return self._file.read(_CHUNK)
        while True:
            if not self._packed:
                self._packed = self._file.read(_CHUNK)
                if not self._packed:
                    if not self._unpacker.eof:
                        raise TarError("the gzip stream ends too soon")
                    return b""
            if self._unpacker.eof:  # gzip has members, one after another
                self._packed = self._packed.lstrip(b"\0")
                if not self._packed:
                    continue
                self._unpacker = zlib.decompressobj(wbits=31)
            more = self._unpacker.decompress(self._packed, _CHUNK)
            self._packed = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
            if more:
                return more
