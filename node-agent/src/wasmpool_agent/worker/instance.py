"""One run of one guest: slot, store, instance, entry point, and back.

The order of the end is what keeps tenants apart: the future is dropped, then the store, which wipes the memories, then
the slot is given back. All of it happens however the run ends.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final

import wasmtime

from wasmpool_agent import _native
from wasmpool_agent.allocators import InstanceAllocator, NoFreeSlotError, Slot
from wasmpool_agent.protocol import MAX_BACKTRACE_CHARS, MAX_TEXT_CHARS, Exited, Result, Start, Started
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.files import Tree
from wasmpool_agent.wasi.guest import Clocks, Guest
from wasmpool_agent.wasi.p2 import Host
from wasmpool_agent.wasmtime_async import GuestTrap, HostFunctions
from wasmpool_agent.worker.artifacts import Artifact, ComponentArtifact
from wasmpool_agent.worker.component import limit
from wasmpool_agent.worker.entries import ComponentEntry, CoreEntry, Entry, NoEntryError
from wasmpool_agent.worker.lines import Lines
from wasmpool_agent.worker.output import LineStream, LogWriter
from wasmpool_agent.worker.scheduler import CpuClock, Scheduler

NOTHING: Final[Mapping[str, Tree]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _End:
    """How the guest's own part ended."""

    result: Result
    exit_code: int | None = None
    message: str = ""
    backtrace: str = ""


class Instances:
    """Runs instances; everything that they share is here."""

    def __init__(
        self,
        functions: HostFunctions[Guest],
        allocator: InstanceAllocator,
        scheduler: Scheduler,
        log: LogWriter,
        limits: StoreLimits,
    ) -> None:
        self._functions = functions
        self._allocator = allocator
        self._scheduler = scheduler
        self._lines = Lines(log)
        self._limits = limits

    async def run(
        self,
        start: Start,
        artifact: Artifact,
        on_started: Callable[[Started], None],
        preopens: Mapping[str, Tree] = NOTHING,
    ) -> Exited:
        """Runs it to its end. Cancelled, the guest ends at once and the result says `stopped`."""
        clock = asyncio.get_running_loop().time
        received = clock()
        cpu = CpuClock(time.monotonic_ns)
        try:
            slot = self._allocator.allocate(start.workload_id, artifact.number)
        except NoFreeSlotError as error:
            return Exited(instance=start.instance, result=Result.NO_SLOT, message=str(error))
        store: wasmtime.Store | None = None
        entry: Entry | None = None
        streams = self._lines.streams(start.workload, start.revision, start.instance, start.index)
        wiped = _Wiped()
        try:
            store = wasmtime.Store(self._functions.linker.engine)
            limit(store, start.limits or self._limits)
            entry = self._entry(
                start, artifact, store, streams, Clocks(time.time_ns, time.monotonic_ns, cpu.ns), preopens
            )
            deadline = None if start.deadline_seconds is None else received + start.deadline_seconds
            end = await self._to_its_end(_Running(start, slot, entry, cpu), deadline, on_started)
        finally:
            # NB: nothing is awaited from here on, so that what is wiped meanwhile is this guest's alone.
            with wiped:
                if entry is not None:
                    entry.close()
                if store is not None:
                    store.close()
                self._allocator.deallocate(slot)
            for stream in streams:
                stream.close()
        return Exited(
            instance=start.instance,
            result=end.result,
            exit_code=end.exit_code,
            message=end.message[:MAX_TEXT_CHARS],
            backtrace=end.backtrace[:MAX_BACKTRACE_CHARS],
            seconds=clock() - received,
            cpu_seconds=cpu.ns() / 1e9,
            wiped_bytes=wiped.size,
            wipe_seconds=wiped.seconds,
        )

    def _entry(
        self,
        start: Start,
        artifact: Artifact,
        store: wasmtime.Store,
        streams: tuple[LineStream, LineStream],
        clocks: Clocks,
        preopens: Mapping[str, Tree],
    ) -> Entry:
        if isinstance(artifact, ComponentArtifact):
            host = Host(start.args, start.env, *streams, clocks, preopens=dict(preopens))
            return ComponentEntry(artifact, host, store)
        guest = Guest(
            args=start.args,
            env=dict(start.env),
            stdout=streams[0],
            stderr=streams[1],
            clocks=clocks,
            preopens=preopens,
        )
        return CoreEntry(self._functions, artifact, start.entrypoint, store, guest)

    async def _to_its_end(
        self, running: "_Running", deadline: float | None, on_started: Callable[[Started], None]
    ) -> _End:
        entry = running.entry
        try:
            async with asyncio.timeout_at(deadline):
                return await self._call(running, on_started)
        except GuestTrap as trap:
            if entry.exit_code is not None:
                return _exited(entry.exit_code)
            return _End(Result.TRAP, message=trap.message, backtrace=trap.backtrace)
        except NoEntryError as error:
            return _End(Result.ERROR, message=str(error))
        except TimeoutError:  # NB: before OSError, of which it is one
            return _End(Result.DEADLINE, message=f"ended at its deadline of {running.start.deadline_seconds:g} s")
        except (wasmtime.WasmtimeError, OSError) as error:
            return _End(Result.ERROR, message=f"the instance could not be made: {error}")
        except asyncio.CancelledError:
            # Whoever cancels this task wants the guest to end, and gets the account of it.
            return _End(Result.STOPPED, message="stopped")

    async def _call(self, running: "_Running", on_started: Callable[[Started], None]) -> _End:
        clock = asyncio.get_running_loop().time
        begun = clock()
        await running.entry.make(self._scheduler, running.cpu, lambda: self._allocator.initialize(running.slot))
        instance, slot = running.start.instance, running.slot.index
        on_started(Started(instance=instance, slot=slot, instantiate_seconds=clock() - begun))
        return _exited(await running.entry.enter(self._scheduler, running.cpu))


@dataclass(frozen=True, slots=True)
class _Running:
    """What belongs to one instance while it runs."""

    start: Start
    slot: Slot
    entry: Entry
    cpu: CpuClock


class _Wiped:
    """Entered: measures what this process wipes."""

    size = 0
    seconds = 0.0

    def __enter__(self) -> None:
        _, self._size, self._ns, _ = _native.wipe_stats()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _, size, ns, _ = _native.wipe_stats()
        self.size, self.seconds = size - self._size, (ns - self._ns) / 1e9


def _exited(code: int) -> _End:
    # An exit code is an i32 in the guest; -1 is better known by that name than as 4294967295.
    signed = code - 2**32 if code >= 2**31 else code
    if signed == 0:
        return _End(Result.SUCCESS, 0)
    return _End(Result.ERROR, signed, "")
