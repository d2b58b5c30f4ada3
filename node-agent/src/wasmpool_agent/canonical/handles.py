"""Handles of one component instance, and the rules of owning and borrowing."""

from typing import Final

from wasmpool_agent.wasmtime_async import HostTrap

MAX_HANDLES: Final = 2**16
"""At once: behind each is an object of the host's."""


class Handle:
    """`lends`: how many calls have borrowed it that have not returned. `owned`: else it is borrowed itself."""

    __slots__ = ("lends", "owned", "resource", "value")

    def __init__(self, resource: int, value: object, owned: bool) -> None:
        self.resource = resource
        self.value = value
        self.owned = owned
        self.lends = 0


class Handles:
    """Numbers to handles; 0 is never one. `resources`: the names, for messages. `borrowed`: how many are."""

    __slots__ = ("_free", "_handles", "_names", "borrowed")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._handles: list[Handle | None] = [None]
        self._free: list[int] = []
        self.borrowed = 0

    def add(self, resource: int, value: object, *, owned: bool = True) -> int:
        """The number of a new handle. HostTrap where there are too many."""
        handle = Handle(resource, value, owned)
        if not owned:
            self.borrowed += 1
        if self._free:
            number = self._free.pop()
            self._handles[number] = handle
            return number
        number = len(self._handles)
        if number > MAX_HANDLES:
            raise HostTrap(f"more than {MAX_HANDLES} handles")
        self._handles.append(handle)
        return number

    def get(self, resource: int, number: int) -> Handle:
        """HostTrap where it is no handle, or of another resource."""
        handle = self._handles[number] if number < len(self._handles) else None
        if handle is None:
            raise HostTrap(f"unknown handle index {number}")
        if handle.resource != resource:
            raise HostTrap(
                f"handle index {number} is a {self._names[handle.resource]}, used as a {self._names[resource]}"
            )
        return handle

    def remove(self, resource: int, number: int) -> Handle:
        """Drops it. HostTrap as `get`, and where somebody has borrowed it."""
        handle = self.get(resource, number)
        if handle.lends:
            raise HostTrap(f"handle index {number} is borrowed by a call, and can't be given away or dropped")
        self._handles[number] = None
        self._free.append(number)
        if not handle.owned:
            self.borrowed -= 1
        return handle

    def give(self, resource: int, number: int) -> object:
        """What is behind an owned handle, which ends. HostTrap as `remove`, and where it is not owned."""
        handle = self.get(resource, number)
        if not handle.owned:
            raise HostTrap(f"handle index {number} is only borrowed, and can't be given away")
        self.remove(resource, number)
        return handle.value

    def clear(self) -> list[Handle]:
        """All that are left and owned; then there are none."""
        left = [handle for handle in self._handles if handle is not None and handle.owned]
        self._handles = [None]
        self._free = []
        self.borrowed = 0
        return left
