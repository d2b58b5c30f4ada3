"""Guest memory, as the canonical ABI sees it. Every pointer that a guest says goes through `check` or `slice_at`.

NB: memoryviews clip slices without a word, so what is not checked here would be wrong, not refused.
"""

from typing import Final

from wasmpool_agent.wasmtime_async import HostTrap
from wasmpool_agent.wasmtime_cells import memory_size, memory_view

MAX_LIFTED_BYTES: Final = 64 * 1024**2
"""What one call may hand to the host, counted by its size there: lists may overlap, so the memory's size is no limit.

A guest that passes more is ended.
"""
LISTED_BYTES: Final = 64
"""What an element of a list takes at least, as a Python object."""


class Memory:
    """One linear memory of one instance, as large as it is now. `view` is good until the guest runs again.

    Invariant: `size` is never more than the memory has, for memories don't shrink.
    """

    __slots__ = ("_context", "_handle", "left", "size", "view")
    size: int
    left: int
    view: memoryview

    def __init__(self, context: int, handle: int) -> None:
        self._context = context
        self._handle = handle
        self.size = -1
        self.left = MAX_LIFTED_BYTES
        self.view = memoryview(b"")
        self.refresh()

    def refresh(self) -> None:
        """At the beginning of every host call, and after every realloc: it may have grown, and moved thereby."""
        size = memory_size(self._context, self._handle)
        if size != self.size:
            self.view = memory_view(self._context, self._handle, size)
            self.size = size

    def check(self, pointer: int, size: int, alignment: int) -> None:
        """Ends the guest unless all of it is within the memory, at a multiple of the alignment."""
        if pointer + size > self.size or pointer < 0 or size < 0:
            raise HostTrap(f"{size} bytes at {pointer} are out of bounds of a memory of {self.size} bytes")
        if pointer & (alignment - 1):
            raise HostTrap(f"the pointer {pointer} is not aligned to {alignment} bytes")

    def slice_at(self, pointer: int, size: int, alignment: int = 1) -> memoryview:
        """These bytes, to be copied at once. Ends the guest as `check` does."""
        self.check(pointer, size, alignment)
        self.take(size)
        return self.view[pointer : pointer + size]

    def take(self, size: int) -> None:
        """Counts what is handed to the host."""
        self.left -= size
        if self.left < 0:
            raise HostTrap(f"more than {MAX_LIFTED_BYTES} bytes in one call")

    def close(self) -> None:
        """Before the store ends. Idempotent."""
        self.size = 0
        self.view = memoryview(b"")


class NoMemory(Memory):
    """For functions that pass nothing by memory."""

    __slots__ = ()

    def __init__(self) -> None:
        self.size = 0
        self.left = 0
        self.view = memoryview(b"")

    def refresh(self) -> None:
        """There is none to grow."""
