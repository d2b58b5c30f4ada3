"""Instances of components: their stores, what they may see of the world, and how they are made."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import wasmtime

from wasmpool_agent.allocators import InstanceAllocator, Slot
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.files import Tree
from wasmpool_agent.wasi.guest import Clocks, Output
from wasmpool_agent.wasi.p2 import Host
from wasmpool_agent.wasi.p2.http_types import Answering
from wasmpool_agent.worker.scheduler import Polled
from wasmpool_agent.worker.supply import Made
from wasmpool_api.limits import WASM_PAGE_BYTES


class ComponentInstance(Protocol):
    """Of a program."""

    def instantiate(self, placement: Callable[[], AbstractContextManager[None]]) -> Polled:
        """Makes it."""
        ...

    def call(self, export: str, function: str, /, *values: object) -> "Called":
        """Calls what it exports."""
        ...

    def close(self) -> None:
        """Before the store's."""
        ...


class Called(Polled, Protocol):
    """A call of an export."""

    def result(self) -> object:
        """Once it has ended: what it returned, lifted."""
        ...


class Program(Protocol):
    """A loaded component: of our own canonical ABI, or of Wasmtime's component API."""

    @property
    def exports(self) -> Mapping[str, frozenset[str]]:
        """Functions by interface."""
        ...

    def instance(self, store: wasmtime.Store, host: Host) -> ComponentInstance:
        """A new one."""
        ...


def exported(program: Program, interface: str) -> str | None:
    """The name under which it exports an interface in some 0.2 version."""
    return next((name for name in program.exports if name.startswith(f"{interface}@0.2.")), None)


def limit(store: wasmtime.Store, limits: StoreLimits) -> None:
    """Holds a store to them."""
    store.set_limits(
        memory_size=limits.memory_pages * WASM_PAGE_BYTES,
        table_elements=limits.table_elements,
        instances=limits.instances,
        tables=limits.tables,
        memories=limits.memories,
    )


@dataclass(slots=True)
class Guest:
    """An instance with its host."""

    instance: ComponentInstance
    host: Host

    def close(self) -> None:
        """See supply.Instance."""
        if isinstance(self.host.http, Answering):
            self.host.http.close()
        self.instance.close()


@dataclass(slots=True)
class ComponentMaker:
    """Implements supply.Maker. `outputs`: standard output and error of one instance."""

    engine: wasmtime.Engine
    allocator: InstanceAllocator
    program: Program
    limits: StoreLimits
    env: tuple[tuple[str, str], ...]
    preopens: dict[str, Tree]
    args: tuple[str, ...]
    outputs: Callable[[], tuple[Output, Output]]
    clocks: Callable[[Made], Clocks]

    def store(self) -> wasmtime.Store:
        """See supply.Maker."""
        store = wasmtime.Store(self.engine)
        limit(store, self.limits)
        return store

    def begin(self, made: Made, slot: Slot) -> Polled:
        """See supply.Maker."""
        stdout, stderr = self.outputs()
        host = Host(self.args, self.env, stdout, stderr, self.clocks(made), preopens=self.preopens)
        instance = self.program.instance(made.store, host)
        made.what = Guest(instance, host)
        return instance.instantiate(lambda: self.allocator.initialize(slot))
