"""wasi:filesystem over read-only trees: what reads works, what would write says `read-only`."""

import hashlib
from typing import Final

from wasmpool_agent.wasi.files import File, PathError, PathEscapesError, PathNotDirectoryError, PathTooLongError, Tree
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import err, function, ok
from wasmpool_agent.wasi.p2.streams import READ_MOST_BYTES, Always, IoError

_TYPES: Final = "wasi:filesystem/types#"
_OF: Final = f"{_TYPES}[method]descriptor."
_EPOCH: Final = None
"""ConfigMaps have no times of their files."""


class Reading(Always):
    """A file as an input stream, from an offset on."""

    __slots__ = ("_at", "_file")

    def __init__(self, file: File, offset: int) -> None:
        self._file = file
        self._at = offset

    def read(self, limit: int) -> bytes | None:
        """See InputStream."""
        if self._at >= len(self._file.content):
            return None
        piece = self._file.content[self._at : self._at + limit]
        self._at += len(piece)
        return piece


class Listing:
    """The resource directory-entry-stream."""

    __slots__ = ("left",)

    def __init__(self, tree: Tree) -> None:
        self.left = list(reversed(tree.entries.items()))


Descriptor = File | Tree


@function("wasi:filesystem/preopens#get-directories")
def get_directories(host: Host) -> list[tuple[Tree, str]]:
    return [(tree, mount) for mount, tree in host.preopens.items()]


@function(_OF + "read-via-stream")
def read_via_stream(_: Host, descriptor: Descriptor, offset: int) -> object:
    return ok(Reading(descriptor, offset)) if isinstance(descriptor, File) else err("is-directory")


@function(_OF + "read")
def read(_: Host, descriptor: Descriptor, length: int, offset: int) -> object:
    if not isinstance(descriptor, File):
        return err("is-directory")
    end = offset + min(length, READ_MOST_BYTES)
    return ok((descriptor.content[offset:end], end >= len(descriptor.content)))


@function(_OF + "get-flags")
def get_flags(_: Host, __: Descriptor) -> object:
    return ok(frozenset({"read"}))


@function(_OF + "get-type")
def get_type(_: Host, descriptor: Descriptor) -> object:
    return ok(_type(descriptor))


@function(_OF + "read-directory")
def read_directory(_: Host, descriptor: Descriptor) -> object:
    return ok(Listing(descriptor)) if isinstance(descriptor, Tree) else err("not-directory")


@function(f"{_TYPES}[method]directory-entry-stream.read-directory-entry")
def read_directory_entry(_: Host, listing: Listing) -> object:
    if not listing.left:
        return ok(None)
    name, found = listing.left.pop()
    return ok({"type": _type(found), "name": name})


@function(_OF + "stat")
def stat(_: Host, descriptor: Descriptor) -> object:
    return ok(_stat(descriptor))


@function(_OF + "stat-at")
def stat_at(_: Host, descriptor: Descriptor, __: frozenset[str], path: str) -> object:
    found = _at(descriptor, path)
    return err(found) if isinstance(found, str) else ok(_stat(found))


@function(_OF + "open-at")
def open_at(
    _: Host, descriptor: Descriptor, __: frozenset[str], path: str, how: frozenset[str], flags: frozenset[str]
) -> object:
    if how >= {"create", "directory"}:
        return err("invalid")
    found = _at(descriptor, path)
    if isinstance(found, str):
        return err("read-only" if found == "no-entry" and "create" in how else found)
    if how >= {"create", "exclusive"}:
        return err("exist")
    if isinstance(found, Tree) and (how & {"create", "truncate"} or "write" in flags):
        return err("is-directory")
    if "directory" in how and isinstance(found, File):
        return err("not-directory")
    if "truncate" in how or flags & {"write", "mutate-directory"}:
        return err("read-only")
    return ok(found)


@function(_OF + "create-directory-at")
def create_directory_at(_: Host, descriptor: Descriptor, path: str) -> object:
    # Programs make sure of their directories so, and take it for a success that there is one.
    found = _at(descriptor, path)
    if isinstance(found, str):
        return err("read-only" if found == "no-entry" else found)
    return err("exist")


@function(_OF + "readlink-at")
def readlink_at(_: Host, descriptor: Descriptor, path: str) -> object:
    found = _at(descriptor, path)
    return err(found if isinstance(found, str) else "invalid")


@function(_OF + "is-same-object")
def is_same_object(_: Host, one: Descriptor, other: Descriptor) -> bool:
    return one.number == other.number


@function(_OF + "metadata-hash")
def metadata_hash(_: Host, descriptor: Descriptor) -> object:
    return ok(_hash(descriptor))


@function(_OF + "metadata-hash-at")
def metadata_hash_at(_: Host, descriptor: Descriptor, __: frozenset[str], path: str) -> object:
    found = _at(descriptor, path)
    return err(found) if isinstance(found, str) else ok(_hash(found))


@function(_OF + "advise")
def advise(_: Host, descriptor: Descriptor, __: int, ___: int, ____: str) -> object:
    return ok() if isinstance(descriptor, File) else err("bad-descriptor")


@function(f"{_TYPES}filesystem-error-code")
def filesystem_error_code(_: Host, __: IoError) -> str | None:
    return None


def _nothing_to_do(_: Host, *__: object) -> object:
    return ok()


def _read_only(_: Host, *__: object) -> object:
    return err("read-only")


for _name in ("sync", "sync-data"):
    function(_OF + _name)(_nothing_to_do)
for _name in [
    "write-via-stream",
    "append-via-stream",
    "set-size",
    "set-times",
    "write",
    "set-times-at",
    "link-at",
    "remove-directory-at",
    "rename-at",
    "symlink-at",
    "unlink-file-at",
]:
    function(_OF + _name)(_read_only)


def _type(descriptor: Descriptor) -> str:
    return "regular-file" if isinstance(descriptor, File) else "directory"


def _stat(descriptor: Descriptor) -> dict[str, object]:
    return {
        "type": _type(descriptor),
        "link-count": 1,
        "size": len(descriptor.content) if isinstance(descriptor, File) else 0,
        "data-access-timestamp": _EPOCH,
        "data-modification-timestamp": _EPOCH,
        "status-change-timestamp": _EPOCH,
    }


def _at(descriptor: Descriptor, path: str) -> Descriptor | str:
    """What is there, or the error."""
    if not isinstance(descriptor, Tree):
        return "not-directory"
    try:
        return descriptor.find(path)
    except PathEscapesError:
        return "not-permitted"
    except PathNotDirectoryError:
        return "not-directory"
    except PathTooLongError:
        return "name-too-long"
    except PathError:
        return "no-entry"


def _hash(descriptor: Descriptor) -> dict[str, int]:
    digest = hashlib.sha256(f"{descriptor.number}".encode()).digest()
    return {"lower": int.from_bytes(digest[:8], "little"), "upper": int.from_bytes(digest[8:16], "little")}
