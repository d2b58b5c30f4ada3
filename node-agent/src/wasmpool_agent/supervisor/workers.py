"""The worker processes: started, listened to, and replaced when they end.

What a worker holds when it dies, and in which order it is cleared away:
    process      waited for, killed first if it only closed its socket
    slots        wiped whole and freed (SlotTable.reclaim); NB: only once the process is gone
    instances    reported as lost
"""

import asyncio
import logging
import os
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from wasmpool_agent.channel import ChannelClosed, ProtocolError
from wasmpool_agent.protocol import (
    Drop,
    Exited,
    Fault,
    FromWorker,
    GiveWay,
    LoadModule,
    ModuleFailed,
    ModuleLoaded,
    Ready,
    Serve,
    ServeFailed,
    Serving,
    Shutdown,
    SiteStats,
    Start,
    Started,
    Starved,
    Stats,
    Stop,
    SupervisorChannel,
    Trapped,
    Withdraw,
    Withdrawn,
    socket_pair,
    supervisor_channel,
)
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.supervisor.artifacts import Artifact
from wasmpool_agent.supervisor.backoff import WORKERS
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.worker import Home, Listener, SiteMessage, Worker
from wasmpool_agent.supervisor.worker_process import Launcher, ending, to_its_end
from wasmpool_api.instance_pool import Backing

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 60.0
MESSAGES_IN_A_ROW: Final = 64

log = logging.getLogger(__name__)


class Workers:
    """A fixed number of workers over one region and one slot table, which stay the caller's.

    `gone` is set when all have ended for good.
    """

    def __init__(
        self,
        *,
        count: int,
        region: Region,
        table: SlotTable,
        pool_file: Path,
        backing: Backing | None,
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._count = count
        self._region = region
        self._table = table
        self._launcher = Launcher(region, table, pool_file, backing)
        self._listener = listener
        self._clock = clock
        self._ready: dict[int, Worker] = {}
        self._where: dict[int, Worker] = {}
        self._stopping = False
        self._left = count
        self.gone = asyncio.Event()
        self.last_fault = ""

    @property
    def ready(self) -> int:
        """How many can take instances."""
        return len(self._ready)

    @property
    def count(self) -> int:
        """How many there should be."""
        return self._count

    @property
    def pids(self) -> tuple[int, ...]:
        """Of those that are ready."""
        return tuple(worker.pid for worker in self._ready.values())

    @property
    def mappings(self) -> Mapping[str, int]:
        """How many memory mappings each worker has, once it has said so."""
        return {f"worker-{worker.id}": worker.mappings for worker in self._ready.values() if worker.mappings}

    async def run(self) -> None:
        """Keeps them running until `stop`, then returns. Cancelled, it kills them."""
        async with asyncio.TaskGroup() as group:
            for worker_id in range(1, self._count + 1):
                group.create_task(self._keep(worker_id), name=f"worker-{worker_id}")

    def stop(self) -> None:
        """Tells all to end. `run` returns when they have."""
        self._stopping = True
        for worker in self._ready.values():
            worker.post(Shutdown())

    def choose(self, artifact: Artifact, count: int) -> list[Worker]:
        """Workers for so many instances of a module, the least loaded first.

        Fewer, or none, where the next one has not loaded the module yet: it is told to, and workers_changed follows.
        """
        chosen: list[Worker] = []
        load = {worker.id: len(worker.instances) for worker in self._ready.values()}
        for _ in range(count if load else 0):
            worker = min(self._ready.values(), key=lambda it: (load[it.id], it.id))
            if artifact.key not in worker.loaded:
                self._load(worker, artifact)
                break
            chosen.append(worker)
            load[worker.id] += 1
        return chosen

    def start(self, worker: Worker, start: Start, fds: tuple[int, ...] = ()) -> None:
        """Every start is answered by instance_exited or instances_lost. `fds`: of its files; they stay the caller's."""
        worker.instances.add(start.instance)
        self._where[start.instance] = worker
        worker.post(start, fds)

    def stop_instance(self, instance: int, grace_seconds: float = 0.0) -> None:
        """An instance that is gone already is none of anybody's concern."""
        worker = self._where.get(instance)
        if worker is not None:
            worker.post(Stop(instance=instance, grace_seconds=grace_seconds))

    def serve(self, key: ClaimKey, serve: Serve, artifact: Artifact, fds: tuple[int, ...], homes: int) -> None:
        """So many workers answer its requests, or all there are; those that do already go on. Level-triggered.

        `fds`: of the listener, then of the files; they stay the caller's.
        """
        have = [it for it in self._ready.values() if key in it.serving and not it.serving[key].withdrawing]
        free = sorted(
            (it for it in self._ready.values() if key not in it.serving), key=lambda it: (len(it.serving), it.id)
        )
        for worker in (have + free)[:homes]:
            if artifact.key not in worker.loaded:
                self._load(worker, artifact)
                continue
            home = worker.serving.get(key)
            if home is None:
                home = worker.serving[key] = Home(serve)
            elif home.told == serve:
                continue
            home.told = serve
            worker.post(serve, fds)
        for worker in have[homes:]:
            self._withdraw(worker, key, serve.deadline_seconds)

    def withdraw(self, key: ClaimKey, grace_seconds: float) -> None:
        """No worker takes requests for it any more. Idempotent."""
        for worker in self._ready.values():
            self._withdraw(worker, key, grace_seconds)

    def homes(self, key: ClaimKey) -> Mapping[int, Home]:
        """The workers that were told to serve it, and have not said that nothing of it is left."""
        return {worker.id: worker.serving[key] for worker in self._ready.values() if key in worker.serving}

    @property
    def serves(self) -> bool:
        """Whether any worker has a home of anything."""
        return any(worker.serving for worker in self._ready.values())

    def tell_others(self, worker: Worker, site: str, message: GiveWay) -> None:
        """All that serve the site, but this one."""
        for other in self._ready.values():
            if other is not worker and any(key.uid == site for key in other.serving):
                other.post(message)

    def drop(self, key: str) -> None:
        """Nobody starts that module any more."""
        for worker in self._ready.values():
            if key in worker.loaded or key in worker.loading:
                worker.loaded.discard(key)
                worker.loading.discard(key)
                worker.post(Drop(key=key))

    def _load(self, worker: Worker, artifact: Artifact) -> None:
        if artifact.key in worker.loading:
            return
        worker.loading.add(artifact.key)
        message = LoadModule(key=artifact.key, kind=artifact.kind, parts=artifact.parts)
        with suppress(ChannelClosed):  # its keeper notices
            worker.channel.post(message, artifact.fds)

    def _withdraw(self, worker: Worker, key: ClaimKey, grace_seconds: float) -> None:
        home = worker.serving.get(key)
        if home is not None and not home.withdrawing:
            home.withdrawing, home.answering = True, False
            worker.post(Withdraw(site=key.uid, revision=key.revision, grace_seconds=grace_seconds))

    async def _keep(self, worker_id: int) -> None:
        try:
            await self._replace(worker_id)
        finally:
            self._left -= 1
            if not self._left:
                self.gone.set()

    async def _replace(self, worker_id: int) -> None:
        failures = 0
        while not self._stopped():
            begun = self._clock()
            await self._one_life(worker_id)
            if self._stopped():
                return
            failures = 1 if self._clock() - begun > STABLE_SECONDS else failures + 1
            pause = WORKERS.seconds(failures)
            log.error("worker %d ended: %s; another is started in %g s", worker_id, self.last_fault, pause)
            await asyncio.sleep(pause)

    def _stopped(self) -> bool:
        return self._stopping

    async def _one_life(self, worker_id: int) -> None:
        ours, theirs = socket_pair()
        channel = supervisor_channel(ours)
        try:
            with theirs:
                process = await self._launcher.launch(worker_id, theirs.fileno())
        except OSError as error:
            channel.close()
            self.last_fault = f"it could not be started: {error}"
            return
        self.last_fault = ""
        try:
            await self._listen(worker_id, channel)
        except TimeoutError:
            self.last_fault = f"it was not ready within {READY_SECONDS:g} s"
        except (ChannelClosed, ProtocolError) as error:
            self.last_fault = self.last_fault or str(error)
        finally:
            channel.close()
            await to_its_end(self._bury(worker_id, process))

    async def _listen(self, worker_id: int, channel: SupervisorChannel) -> None:
        async with asyncio.timeout(READY_SECONDS):
            message = await _receive(channel)
        if isinstance(message, Fault):
            self.last_fault = message.message
            raise ChannelClosed(message.message)
        if not isinstance(message, Ready):
            raise ProtocolError(f"the first message of a worker is {type(message).__name__}, Ready is wanted")
        worker = Worker(worker_id, channel, message.pid)
        self._ready[worker_id] = worker
        log.info("worker %d is ready", worker_id, extra={"pid": message.pid})
        if self._stopping:
            worker.post(Shutdown())
        self._listener.workers_changed()
        heard = 0
        while True:
            self._hear(worker, await _receive(channel))
            heard += 1
            if heard % MESSAGES_IN_A_ROW == 0:
                # NB: what has arrived already is received without a pause, and others want their turn too.
                await asyncio.sleep(0)

    def _hear(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case Started():
                self._listener.instance_started(message)
            case Exited():
                worker.instances.discard(message.instance)
                self._where.pop(message.instance, None)
                self._listener.instance_exited(message)
            case ModuleLoaded():
                if message.key in worker.loading:
                    worker.loading.discard(message.key)
                    worker.loaded.add(message.key)
                self._listener.workers_changed()
            case ModuleFailed():
                worker.loading.discard(message.key)
                self._listener.module_failed(message)
            case Serving() | ServeFailed() | Trapped() | Starved() | Withdrawn():
                self._hear_of_site(worker, message)
            case SiteStats():
                self._listener.sites_counted(worker, message)
            case Fault():
                self.last_fault = message.message
            case Stats():
                if message.lines_dropped:
                    log.debug("worker %d has dropped %d lines of guests", worker.id, message.lines_dropped)
                self._listener.allocations_counted(message.allocations - worker.counted)
                worker.counted = message.allocations
                worker.mappings = message.mappings
            case Ready():
                raise ProtocolError("a worker said Ready twice")

    def _hear_of_site(self, worker: Worker, message: SiteMessage) -> None:
        if not isinstance(message, Starved):
            key = ClaimKey(message.site, message.revision)
            home = worker.serving.get(key)
            if isinstance(message, Withdrawn):
                worker.serving.pop(key, None)
            elif home is not None and not isinstance(message, Trapped):
                home.answering = isinstance(message, Serving) and not home.withdrawing
        self._listener.site_said(worker, message)

    async def _bury(self, worker_id: int, process: Process) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS if self._stopping else 1.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.returncode:
            said = f": {self.last_fault}" if self.last_fault else ""
            self.last_fault = ending(process.returncode) + said
        held = self._table.owned_by(worker_id)
        wiped = self._table.reclaim(worker_id, self._region)
        if wiped < len(held):
            log.error("of slots %s of worker %d some are not clean after a wipe: they are quarantined", held, worker_id)
        worker = self._ready.pop(worker_id, None)
        lost = frozenset(worker.instances) if worker is not None else frozenset[int]()
        for instance in lost:
            self._where.pop(instance, None)
        if not self._stopping:
            self._listener.worker_died(wiped)
        if lost:
            self._listener.instances_lost(lost)
        self._listener.workers_changed()


async def _receive(channel: SupervisorChannel) -> FromWorker:
    message, fds = await channel.receive()
    for fd in fds:  # no message of a worker has any
        os.close(fd)
    return message
