"""A guest of preview 1 without an engine: its functions on a piece of memory with a guard on either side."""

import ctypes
from collections.abc import Mapping

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.files import Tree
from wasmpool_agent.wasi.guest import NOTHING_MOUNTED, Clocks, Guest
from wasmpool_agent.wasi.memory import GuestMemory
from wasmpool_agent.wasi.preview1 import FUNCTIONS
from wasmpool_agent.wasmtime_async import Wait

SIZE = 65536
GUARD = 4096
NOW_NS = 1_700_000_000_000_000_000
MONOTONIC_NS = 5_000_000_000


class Written:
    """An Output that keeps everything."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> Wait | None:
        self.data += data
        return None


class Fixture:
    """A guest with 64 KiB of memory between two guards of 0xA5."""

    def __init__(self, preopens: Mapping[str, Tree] = NOTHING_MOUNTED) -> None:
        self.buffer = ctypes.create_string_buffer(b"\xa5" * (SIZE + 2 * GUARD), SIZE + 2 * GUARD)
        ctypes.memset(ctypes.addressof(self.buffer) + GUARD, 0, SIZE)
        self.stdout = Written()
        self.stderr = Written()
        self.guest = Guest(
            args=("prog", "ü"),
            env={"A": "1"},
            stdout=self.stdout,
            stderr=self.stderr,
            clocks=Clocks(lambda: NOW_NS, lambda: MONOTONIC_NS, lambda: 42),
            preopens=preopens,
        )
        self.guest.memory = GuestMemory(lambda: (ctypes.addressof(self.buffer) + GUARD, SIZE))

    def call(self, name: str, *arguments: int) -> Errno | Wait:
        try:
            return FUNCTIONS[name](self.guest, *arguments)
        except WasiError as error:
            return error.errno

    def put(self, data: bytes, at: int = 30000) -> int:
        """Writes it there and gives the address."""
        self.guest.memory.write(at, data)
        return at

    def read(self, pointer: int, length: int) -> bytes:
        return self.guest.memory.read(pointer, length)

    def guards_are_whole(self) -> bool:
        raw = self.buffer.raw
        return raw[:GUARD] == raw[-GUARD:] == b"\xa5" * GUARD
