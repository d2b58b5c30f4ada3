"""How a command is made and entered: a core module by its entry point, a component by wasi:cli/run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import wasmtime

from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasi.interfaces import RUN
from wasmpool_agent.wasi.p2 import Host
from wasmpool_agent.wasmtime_async import Call, HostFunctions, yield_every_tick
from wasmpool_agent.worker.artifacts import ComponentArtifact, CoreArtifact
from wasmpool_agent.worker.component import ComponentInstance, exported
from wasmpool_agent.worker.scheduler import CpuClock, Scheduler

Placement = Callable[[], AbstractContextManager[None]]


class NoEntryError(Exception):
    """The module has nothing of that name to enter; the message has what it has."""


class Entry(Protocol):
    """One run. Its store stays the caller's, and is closed after it."""

    @property
    def exit_code(self) -> int | None:
        """Once the guest has called exit."""
        ...

    async def make(self, scheduler: Scheduler, cpu: CpuClock, placement: Placement) -> None:
        """The instance. Raises GuestTrap, wasmtime.WasmtimeError."""
        ...

    async def enter(self, scheduler: Scheduler, cpu: CpuClock) -> int:
        """Runs it to its end and gives the exit code. Raises as `make`, and NoEntryError."""
        ...

    def close(self) -> None:
        """Before the store's. Idempotent."""
        ...


@dataclass(slots=True)
class CoreEntry:
    """Of a core module, for WASI preview 1."""

    functions: HostFunctions[Guest]
    artifact: CoreArtifact
    entrypoint: str
    store: wasmtime.Store
    guest: Guest
    _making: Call[Guest] | None = None

    @property
    def exit_code(self) -> int | None:
        """See Entry."""
        return self.guest.exit_code

    async def make(self, scheduler: Scheduler, cpu: CpuClock, placement: Placement) -> None:
        """See Entry."""
        yield_every_tick(self.store)
        self._making = self.functions.instantiate(self.artifact.instance_pre, self.store, self.guest)
        await scheduler.run(self._making, cpu, placement())

    async def enter(self, scheduler: Scheduler, cpu: CpuClock) -> int:
        """See Entry."""
        assert self._making is not None, "made before it is entered"  # noqa: S101
        call = self.functions.call(self.store, self._making, self.entrypoint, self.guest)
        if call is None:
            exported_functions = ", ".join(self.artifact.functions[:10]) or "none"
            raise NoEntryError(
                f'entrypoint: the module exports no function "{self.entrypoint}"; it exports: {exported_functions}'
            )
        await scheduler.run(call, cpu)
        return 0

    def close(self) -> None:
        """See Entry."""


@dataclass(slots=True)
class ComponentEntry:
    """Of a component, for WASI 0.2."""

    artifact: ComponentArtifact
    host: Host
    store: wasmtime.Store
    instance: ComponentInstance = field(init=False)

    def __post_init__(self) -> None:
        self.instance = self.artifact.program.instance(self.store, self.host)

    @property
    def exit_code(self) -> int | None:
        """See Entry."""
        return self.host.exit_code

    async def make(self, scheduler: Scheduler, cpu: CpuClock, placement: Placement) -> None:
        """See Entry."""
        await scheduler.run(self.instance.instantiate(placement), cpu)

    async def enter(self, scheduler: Scheduler, cpu: CpuClock) -> int:
        """See Entry."""
        export = exported(self.artifact.program, RUN)
        if export is None:
            names = ", ".join(sorted(self.artifact.program.exports)[:10]) or "none"
            raise NoEntryError(f"the component exports no {RUN}@0.2; it exports: {names}")
        call = self.instance.call(export, "run")
        await scheduler.run(call, cpu)
        result = call.result()
        return 0 if isinstance(result, tuple) and result[0] else 1

    def close(self) -> None:
        """See Entry."""
        self.instance.close()
