"""Compiled code of several parts as one blob, as the cache keeps it, and as the memfds that workers map.

A core module is what Wasmtime made of it, and no bundle. A component's bundle begins with a line of JSON that says what
it is and how long each part is; the parts follow, in their order.
"""

import mmap
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from wasmpool_agent.compiler import Sealed, memfd, seal
from wasmpool_agent.protocol import ArtifactKind

_MAGIC: Final = b"wasmpool-bundle-1 "


class BundleError(Exception):
    """What the cache gave is no bundle that this version makes."""


class _Head(msgspec.Struct, frozen=True):
    kind: ArtifactKind
    sizes: tuple[int, ...]


def pack(kind: ArtifactKind, parts: Sequence[bytes]) -> list[bytes]:
    """The blob, in pieces."""
    head = msgspec.json.encode(_Head(kind, tuple(map(len, parts))))
    return [_MAGIC + head + b"\n", *parts]


def unpack(sealed: Sealed) -> tuple[ArtifactKind, tuple[Sealed, ...]]:
    """What it is, and a memfd for each part; takes `sealed` over. Raises BundleError, OSError."""
    try:
        with mmap.mmap(sealed.fd, sealed.size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as content:
            if content[: len(_MAGIC)] != _MAGIC:
                return ArtifactKind.MODULE, (sealed,)
            kind, parts = _parts(content)
    except BaseException:
        os.close(sealed.fd)
        raise
    os.close(sealed.fd)
    return kind, parts


def _parts(content: mmap.mmap) -> tuple[ArtifactKind, tuple[Sealed, ...]]:
    end = content.find(b"\n")
    try:
        head = msgspec.json.decode(content[len(_MAGIC) : end], type=_Head)
    except msgspec.DecodeError as error:
        raise BundleError(str(error)) from error
    if sum(head.sizes) != len(content) - end - 1:
        raise BundleError(f"its parts have {sum(head.sizes)} bytes, it has {len(content) - end - 1}")
    made: list[Sealed] = []
    at = end + 1
    try:
        with memoryview(content) as view:
            for size in head.sizes:
                fd = memfd("wasmpool-artifact", view[at : at + size])
                made.append(Sealed(fd, size, ""))  # so that it is closed whatever happens
                made[-1] = seal(fd)
                at += size
    except BaseException:
        for each in made:
            os.close(each.fd)
        raise
    return head.kind, tuple(made)
