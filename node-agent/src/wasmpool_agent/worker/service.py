"""The worker's side of the socket: messages in, runs as tasks, messages out.

Every Start is answered by exactly one Exited. A message that is not one ends the worker: the supervisor, which made it,
can't be relied on any more, and its next worker will tell whether that was a slip.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Final, assert_never

from wasmpool_agent.allocation_counts import AllocationCounts, count_mappings
from wasmpool_agent.channel import ChannelClosed, ProtocolError
from wasmpool_agent.files import read_files
from wasmpool_agent.protocol import (
    Drop,
    Exited,
    Fault,
    GiveWay,
    LoadModule,
    ModuleFailed,
    ModuleLoaded,
    Ready,
    Result,
    Serve,
    Shutdown,
    SiteStats,
    Start,
    Stats,
    Stop,
    ToWorker,
    Withdraw,
    WorkerChannel,
)
from wasmpool_agent.wasi.files import Tree, trees
from wasmpool_agent.worker.artifacts import ArtifactRefusedError, Artifacts
from wasmpool_agent.worker.heap import Heap
from wasmpool_agent.worker.instance import NOTHING, Instances
from wasmpool_agent.worker.output import LogWriter
from wasmpool_agent.worker.revision import Said
from wasmpool_agent.worker.serving import Sites

STATS_SECONDS: Final = 1.0
MAPPINGS_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 2.0


class Service:
    """Serves one supervisor until it closes the socket or says Shutdown.

    Invariant: `_runs` holds exactly the instances whose Start was accepted and whose Exited is not posted yet.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        artifacts: Artifacts,
        instances: Instances,
        log: LogWriter,
        allocations: Callable[[], AllocationCounts],
        sites: Callable[[Callable[[Said | SiteStats], None]], Sites],
    ) -> None:
        self._channel = channel
        self._artifacts = artifacts
        self._instances = instances
        self._log = log
        self._allocations = allocations
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._started = 0
        self._exited = 0
        self._stats_due = False
        self._mappings, self._mappings_due = 0, 0.0
        self._stats: Stats | None = None
        self._sites = sites(self._say)
        self._heap = Heap()

    async def serve(self) -> int:
        """The process' exit status: 0 after Shutdown or when the supervisor is gone, 2 after a malformed message."""
        self._heap.grown()
        self._channel.post(Ready(pid=os.getpid(), wasmtime_version=version("wasmtime")))
        try:
            while True:
                message, fds = await self._channel.receive()
                try:
                    if isinstance(message, Shutdown):
                        await self._shut_down(message.grace_seconds)
                        return 0
                    self._handle(message, fds)
                finally:
                    for fd in fds:
                        os.close(fd)
        except ChannelClosed:
            return 0
        except ProtocolError as error:
            self._channel.post(Fault(message=str(error)))
            return 2
        finally:
            await self._stop_all()
            with suppress(TimeoutError):  # a supervisor that does not read is told nothing
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._channel.drain()

    def _handle(self, message: ToWorker, fds: tuple[int, ...]) -> None:
        match message:
            case LoadModule():
                if len(fds) != len(message.parts) or not fds:
                    raise ProtocolError(f"LoadModule of {len(message.parts)} parts came with {len(fds)} descriptors")
                self._load(message, fds)
            case Start():
                self._start(message, fds)
            case Stop():
                if (task := self._runs.get(message.instance)) is not None:
                    asyncio.get_running_loop().call_later(message.grace_seconds, task.cancel)
            case Drop():
                self._artifacts.drop(message.key)
                self._heap.shrunk()
            case Serve():
                self._sites.serve(message, fds)
            case GiveWay():
                self._sites.give_way(message.site)
            case Withdraw():
                self._sites.withdraw(message)
            case Shutdown():
                pass
            case _:
                assert_never(message)
        self._note()

    def _load(self, message: LoadModule, fds: tuple[int, ...]) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            self._artifacts.load(message, fds)
        except ArtifactRefusedError as error:
            self._channel.post(ModuleFailed(key=message.key, reason=error.reason, message=str(error)))
        else:
            self._heap.grown()
            seconds = asyncio.get_running_loop().time() - begun
            self._channel.post(ModuleLoaded(key=message.key, seconds=seconds))

    def _start(self, message: Start, fds: tuple[int, ...]) -> None:
        if message.instance in self._runs:
            raise ProtocolError(f"instance {message.instance} runs already")
        if len(fds) != message.files:
            raise ProtocolError(f"Start came with {len(fds)} descriptors, exactly {int(message.files)} are allowed")
        preopens = trees(read_files(fds[0])) if fds else NOTHING
        work = self._run(message, preopens)
        task = asyncio.get_running_loop().create_task(work, name=f"instance-{message.instance}")
        self._runs[message.instance] = task
        self._idle.clear()
        task.add_done_callback(lambda done: self._ended(message.instance, done))

    async def _run(self, start: Start, preopens: Mapping[str, Tree]) -> None:
        artifact = self._artifacts.get(start.artifact)
        if artifact is None:
            ended = Exited(
                instance=start.instance, result=Result.ERROR, message=f"artifact {start.artifact} is not loaded"
            )
        else:
            self._started += 1
            try:
                ended = await self._instances.run(start, artifact, self._channel.post, preopens)
            except Exception as error:  # noqa: BLE001 - one guest's trouble, even of our making, is not the others'
                ended = Exited(
                    instance=start.instance, result=Result.ERROR, message=f"the worker failed to run it: {error!r}"
                )
            self._exited += 1
        self._channel.post(ended)

    def _ended(self, instance: int, task: asyncio.Task[None]) -> None:
        del self._runs[instance]
        if not self._runs:
            self._idle.set()
        if task.cancelled():  # before its first step
            self._channel.post(Exited(instance=instance, result=Result.STOPPED, message="stopped before it began"))
        elif not isinstance(error := task.exception(), ChannelClosed | None):
            raise error
        self._note()

    async def _shut_down(self, grace_seconds: float) -> None:
        if self._runs and grace_seconds > 0:
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass

    async def _stop_all(self) -> None:
        for task in list(self._runs.values()):
            task.cancel()
        await self._idle.wait()
        await self._sites.end()

    def _say(self, message: Said | SiteStats) -> None:
        with suppress(ChannelClosed):  # whoever receives finds out
            self._channel.post(message)

    def _note(self) -> None:
        """Something was counted: Stats are due, at most once a second."""
        if not self._stats_due:
            self._stats_due = True
            asyncio.get_running_loop().call_later(STATS_SECONDS, self._post_stats)

    def _count_mappings(self) -> int:
        # NB: the kernel writes a line for each; with thousands of slots that takes milliseconds.
        now = asyncio.get_running_loop().time()
        if now >= self._mappings_due:
            self._mappings_due = now + MAPPINGS_SECONDS
            self._mappings = count_mappings()
        return self._mappings

    def _post_stats(self) -> None:
        self._stats_due = False
        stats = Stats(
            running=len(self._runs),
            modules=len(self._artifacts),
            started=self._started,
            exited=self._exited,
            lines=self._log.written,
            lines_dropped=self._log.dropped,
            mappings=self._count_mappings(),
            allocations=self._allocations(),
        )
        if stats != self._stats:
            self._stats = stats
            with suppress(ChannelClosed):  # whoever receives finds out
                self._channel.post(stats)
        self._sites.count()
        if self._runs or self._sites.busy:  # guests may write without starting or ending
            self._note()
