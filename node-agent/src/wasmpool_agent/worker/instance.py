"""One run of one guest: slot, store, instance, entry point, and back.

The order of the end is what keeps tenants apart: the future is dropped, then the store, which wipes the memories, then
the slot is given back. All of it happens however the run ends.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

import msgspec
import wasmtime

from wasmpool_agent import _native
from wasmpool_agent.allocators import InstanceAllocator, NoFreeSlotError, Slot
from wasmpool_agent.protocol import (
    MAX_BACKTRACE_CHARS,
    MAX_TEXT_CHARS,
    Exited,
    Result,
    Start,
    Started,
)
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.guest import Clocks, Guest
from wasmpool_agent.wasmtime_async import GuestTrap, HostFunctions, yield_every_tick
from wasmpool_agent.worker.artifacts import Artifact
from wasmpool_agent.worker.output import Backlog, LineStream, LogLine, LogWriter, rfc3339
from wasmpool_agent.worker.scheduler import CpuClock, Scheduler
from wasmpool_api.limits import WASM_PAGE_BYTES


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
        self._log = log
        self._limits = limits
        self._encoder = msgspec.json.Encoder()

    async def run(self, start: Start, artifact: Artifact, on_started: Callable[[Started], None]) -> Exited:
        """Runs it to its end. Cancelled, the guest ends at once and the result says `stopped`."""
        clock = asyncio.get_running_loop().time
        received = clock()
        cpu = CpuClock(time.monotonic_ns)
        try:
            slot = self._allocator.allocate(start.workload_id, artifact.number)
        except NoFreeSlotError as error:
            return Exited(instance=start.instance, result=Result.NO_SLOT, message=str(error))
        store: wasmtime.Store | None = None
        streams = self._streams(start)
        wiped = _Wiped()
        try:
            store = wasmtime.Store(self._functions.linker.engine)
            _limit(store, start.limits or self._limits)
            yield_every_tick(store)
            guest = Guest(
                args=start.args,
                env=dict(start.env),
                stdout=streams[0],
                stderr=streams[1],
                clocks=Clocks(time.time_ns, time.monotonic_ns, cpu.ns),
            )
            deadline = None if start.deadline_seconds is None else received + start.deadline_seconds
            end = await self._to_its_end(_Running(start, slot, store, guest, cpu), artifact, deadline, on_started)
        finally:
            # NB: nothing is awaited from here on, so that what is wiped meanwhile is this guest's alone.
            with wiped:
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

    async def _to_its_end(
        self, running: "_Running", artifact: Artifact, deadline: float | None, on_started: Callable[[Started], None]
    ) -> _End:
        guest = running.guest
        try:
            async with asyncio.timeout_at(deadline):
                return await self._call(running, artifact, on_started)
        except GuestTrap as trap:
            if guest.exit_code is not None:
                return _exited(guest.exit_code)
            return _End(Result.TRAP, message=trap.message, backtrace=trap.backtrace)
        except TimeoutError:  # NB: before OSError, of which it is one
            return _End(Result.DEADLINE, message=f"ended at its deadline of {running.start.deadline_seconds:g} s")
        except (wasmtime.WasmtimeError, OSError) as error:
            return _End(Result.ERROR, message=f"the instance could not be made: {error}")
        except asyncio.CancelledError:
            # Whoever cancels this task wants the guest to end, and gets the account of it.
            return _End(Result.STOPPED, message="stopped")

    async def _call(self, running: "_Running", artifact: Artifact, on_started: Callable[[Started], None]) -> _End:
        clock = asyncio.get_running_loop().time
        start, store, guest = running.start, running.store, running.guest
        begun = clock()
        making = self._functions.instantiate(artifact.instance_pre, store, guest)
        await self._scheduler.run(making, running.cpu, self._allocator.initialize(running.slot))
        on_started(Started(instance=start.instance, slot=running.slot.index, instantiate_seconds=clock() - begun))
        call = self._functions.call(store, making, start.entrypoint, guest)
        if call is None:
            exported = ", ".join(artifact.functions[:10]) or "none"
            return _End(
                Result.ERROR,
                message=f'entrypoint: the module exports no function "{start.entrypoint}"; it exports: {exported}',
            )
        await self._scheduler.run(call, running.cpu)
        return _exited(0)

    def _streams(self, start: Start) -> tuple[LineStream, LineStream]:
        namespace, _, workload = start.workload.rpartition("/")
        backlog = Backlog()

        def stream(name: str) -> LineStream:
            def line(message: str, partial: bool) -> LogLine:
                return LogLine(
                    time=rfc3339(datetime.now(UTC)),
                    namespace=namespace,
                    workload=workload,
                    revision=start.revision,
                    instance=start.instance,
                    index=start.index,
                    stream=name,
                    message=message,
                    partial=partial,
                )

            return LineStream(self._log, backlog, line, self._encoder)

        return stream("stdout"), stream("stderr")


@dataclass(frozen=True, slots=True)
class _Running:
    """What belongs to one instance while it runs."""

    start: Start
    slot: Slot
    store: wasmtime.Store
    guest: Guest
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


def _limit(store: wasmtime.Store, limits: StoreLimits) -> None:
    store.set_limits(
        memory_size=limits.memory_pages * WASM_PAGE_BYTES,
        table_elements=limits.table_elements,
        instances=1,
        tables=limits.tables,
        memories=limits.memories,
    )


def _exited(code: int) -> _End:
    # An exit code is an i32 in the guest; -1 is better known by that name than as 4294967295.
    signed = code - 2**32 if code >= 2**31 else code
    if signed == 0:
        return _End(Result.SUCCESS, 0)
    return _End(Result.ERROR, signed, "")
