"""A guest's files on their way to a worker: one sealed memfd, told from the message that it comes with."""

import os
from collections.abc import Mapping
from typing import Final

import msgspec

FILES_MOST_BYTES: Final = 16 * 1024**2
"""Of one guest, together."""

Mounts = Mapping[str, Mapping[str, bytes]]
"""By where they are mounted, then by path."""


def pack_files(mounts: Mounts) -> bytes:
    """What `read_files` reads."""
    return msgspec.msgpack.encode(mounts)


def read_files(fd: int) -> dict[str, dict[str, bytes]]:
    """Raises msgspec.DecodeError, OSError. `fd` stays the caller's."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    return msgspec.msgpack.decode(data, type=dict[str, dict[str, bytes]])
