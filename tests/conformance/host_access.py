"""Memory as the host has it: where it begins, and whether the kernel would let this process touch an address."""

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.allocation import Guest

_libc: Final[Any] = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Toucher:
    """A pipe that bytes are sent through: where they can't be had from or put, system calls say EFAULT."""

    read_end: int
    write_end: int

    def readable(self, address: int) -> bool:
        """Whether the byte there can be read."""
        if _libc.write(self.write_end, ctypes.c_void_p(address), ctypes.c_size_t(1)) != 1:
            return False
        os.read(self.read_end, 1)
        return True

    def writable(self, address: int) -> bool:
        """Whether the byte there can be written; if it can, it is zero afterwards."""
        os.write(self.write_end, b"\0")
        if _libc.read(self.read_end, ctypes.c_void_p(address), ctypes.c_size_t(1)) == 1:
            return True
        os.read(self.read_end, 1)
        return False


@contextmanager
def toucher() -> Generator[Toucher]:
    """One, and its pipe's end."""
    read_end, write_end = os.pipe()
    try:
        yield Toucher(read_end, write_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def base_of(guest: Guest) -> int:
    """Where its memory begins in this process."""
    return ctypes.cast(guest.memory.data_ptr(guest.store), ctypes.c_void_p).value or 0
