"""Resources of the host: their types in a component, and the objects that one instance's handles stand for.

Wasmtime knows a host resource as a number, its representation, and runs no destructors when a store is dropped: so each
instance has a table of its own, which goes with it.
"""

import ctypes
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wasmtime import component as wit

from wasmpool_agent.component_api import capi
from wasmpool_agent.wasmtime_async import HostTrap


@dataclass(slots=True)
class _Group:
    """Resource types that are one: by type (aliases, as `headers` of `fields`), or by name in another version."""

    number: int
    host: wit.ResourceType
    types: list[wit.ResourceType] = field(default_factory=list["wit.ResourceType"])
    names: set[str] = field(default_factory=set[str])


class ResourceTypes:
    """The host's resource types in one component. Names are without versions: "wasi:io/poll#pollable"."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []

    def add(self, name: str, resource_type: wit.ResourceType) -> None:
        """All are added before any is looked up."""
        same = [it for it in self._groups if name in it.names or resource_type in it.types]
        if not same:
            number = len(self._groups) + 1
            same = [_Group(number, wit.ResourceType.host(number))]
            self._groups += same
        first, *others = same
        for other in others:
            first.types += other.types
            first.names |= other.names
            self._groups.remove(other)
        first.types.append(resource_type)
        first.names.add(name)

    def host_type(self, name: str) -> wit.ResourceType:
        """What the linker defines under that name."""
        return next(it.host for it in self._groups if name in it.names)

    def number(self, resource_type: wit.ResourceType) -> int | None:
        """None: the type is the component's own."""
        return next((it.number for it in self._groups if resource_type in it.types), None)


class Handles:
    """One instance's. Invariant: an object is in here from when the guest is given it until the guest owns it no more.

    `context`: of the instance's store.
    """

    def __init__(self, context: int) -> None:
        self.context = context
        self._objects: dict[int, object] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._objects)

    def give(self, thing: object, number: int, *, owned: bool) -> int:
        """Makes a handle for the guest; the address of a resource that the value it is put in owns."""
        self._last += 1
        self._objects[self._last] = thing
        resource = capi.host_resource_new(owned, self._last, number)
        made = ctypes.c_void_p()
        error = capi.resource_to(self.context, resource, ctypes.addressof(made))
        capi.host_resource_delete(resource)
        capi.raise_error(error)
        return made.value or 0

    def take(self, resource: int) -> object:
        """The object of a handle that the guest gives away."""
        return self._objects.pop(self._representation(resource))

    def look(self, resource: int) -> object:
        """The object of a handle that the guest lends: this consumes the loan, as every loan must be."""
        return self._objects[self._representation(resource)]

    def drop(self, representation: int) -> None:
        """The guest has dropped its handle."""
        _close(self._objects.pop(representation, None))

    def close(self) -> None:
        """The instance has ended: what it still held goes, youngest first. Idempotent."""
        while self._objects:
            _, thing = self._objects.popitem()
            # NB: one that fails must not keep the others open; nobody is left to be told.
            with suppress(Exception):
                _close(thing)

    def _representation(self, resource: int) -> int:
        found = ctypes.c_void_p()
        try:
            capi.raise_error(capi.resource_of(self.context, resource, ctypes.addressof(found)))
        except Exception as error:
            raise HostTrap(f"a handle is not what it should be: {error}") from error
        representation: int = capi.host_resource_rep(found)
        capi.host_resource_delete(found)
        return representation


def _close(thing: Any) -> None:
    close = getattr(thing, "close", None)
    if close is not None:
        close()
