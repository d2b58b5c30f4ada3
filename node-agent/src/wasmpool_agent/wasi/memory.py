"""A guest's linear memory. Every pointer and length that a guest hands over is checked here and nowhere else."""

import ctypes
from collections.abc import Callable
from struct import Struct
from typing import Final

from wasmpool_agent.wasi.errno import Errno, WasiError

_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_IOVEC: Final = Struct("<II")
IOVECS_MAX: Final = 1024
"""As Linux' IOV_MAX."""


class GuestMemory:
    """Reads and writes by guest address; WasiError(FAULT) for whatever is not wholly inside the memory.

    `extent` gives address and length in bytes as they are now. Nothing of it is kept beyond a call, for the guest may
    grow its memory between two host calls, and after its store is closed the memory is somebody else's.
    """

    __slots__ = ("_extent",)

    def __init__(self, extent: Callable[[], tuple[int, int]]) -> None:
        self._extent = extent

    def _locate(self, pointer: int, length: int) -> int:
        base, size = self._extent()
        # Python's integers do not overflow, so this sum can't wrap around as it would in C.
        if pointer < 0 or length < 0 or pointer + length > size:
            raise WasiError(Errno.FAULT)
        return base + pointer

    def check(self, pointer: int, length: int) -> None:
        """Raises WasiError(FAULT) unless all of it is inside."""
        self._locate(pointer, length)

    def read(self, pointer: int, length: int) -> bytes:
        """A copy."""
        return ctypes.string_at(self._locate(pointer, length), length)

    def write(self, pointer: int, data: bytes) -> None:
        """All of it or nothing."""
        ctypes.memmove(self._locate(pointer, len(data)), data, len(data))

    def write_u32(self, pointer: int, value: int) -> None:
        """Little-endian, any alignment."""
        self.write(pointer, _U32.pack(value))

    def write_u64(self, pointer: int, value: int) -> None:
        """Little-endian, any alignment."""
        self.write(pointer, _U64.pack(value))

    def iovecs(self, pointer: int, count: int) -> list[tuple[int, int]]:
        """(address, length) of each buffer, all of them checked. WasiError(INVALID) for more than IOVECS_MAX."""
        if count > IOVECS_MAX:
            raise WasiError(Errno.INVALID)
        vectors = list(_IOVEC.iter_unpack(self.read(pointer, count * _IOVEC.size)))
        for address, length in vectors:
            self._locate(address, length)
        return vectors

    def gather(self, vectors: list[tuple[int, int]], limit: int) -> bytes:
        """The buffers' content in order, at most `limit` bytes of it."""
        parts: list[bytes] = []
        for address, length in vectors:
            part = self.read(address, min(length, limit))
            parts.append(part)
            limit -= len(part)
            if not limit:
                break
        return b"".join(parts)
