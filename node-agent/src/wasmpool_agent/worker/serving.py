"""All workloads that this worker answers requests for, as the supervisor wants them."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from wasmpool_agent.allocators import InstanceAllocator
from wasmpool_agent.channel import ProtocolError
from wasmpool_agent.files import read_files
from wasmpool_agent.http.network import Client, MakeSession, Network
from wasmpool_agent.protocol import (
    SITES_PER_MESSAGE,
    Result,
    Serve,
    ServeFailed,
    SiteCounts,
    SiteStats,
    Starved,
    Withdraw,
    Withdrawn,
)
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.files import trees
from wasmpool_agent.wasi.guest import Clocks
from wasmpool_agent.wasi.interfaces import HANDLER
from wasmpool_agent.worker.artifacts import Artifacts, ComponentArtifact
from wasmpool_agent.worker.component import ComponentMaker, exported
from wasmpool_agent.worker.lines import Lines
from wasmpool_agent.worker.output import LineStream
from wasmpool_agent.worker.revision import Revision, Said
from wasmpool_agent.worker.scheduler import Scheduler
from wasmpool_agent.worker.site import Site
from wasmpool_agent.worker.supply import Made, Supply

END_SECONDS: Final = 2.0


class Sites:
    """Owns the sites, by workload uid."""

    def __init__(
        self,
        artifacts: Artifacts,
        allocator: InstanceAllocator,
        scheduler: Scheduler,
        lines: Lines,
        limits: StoreLimits,
        post: Callable[[Said | SiteStats], None],
    ) -> None:
        self._artifacts = artifacts
        self._allocator = allocator
        self._scheduler = scheduler
        self._lines = lines
        self._limits = limits
        self._post = post
        self._sites: dict[str, Site] = {}
        self._seen: dict[tuple[str, str], SiteCounts] = {}
        self._instances = 0
        self._network = Network(_sessions)

    def serve(self, told: Serve, fds: tuple[int, ...]) -> None:
        """A revision begins to answer, or goes on with other numbers. `fds` stay the caller's."""
        if len(fds) != 1 + told.files:
            raise ProtocolError(f"Serve came with {len(fds)} descriptors, exactly {1 + told.files} are allowed")
        site = self._sites.get(told.site)
        known = site.revisions.get(told.revision) if site is not None else None
        if known is not None:
            known.told = told
            known.client.allow(told.allowed_hosts)
            known.supply.queue_seconds, known.supply.most_ready = told.queue_seconds, told.ready
            known.supply.making_seconds = told.deadline_seconds
            known.supply.replenish()
            return
        artifact = self._artifacts.get(told.artifact)
        handler = exported(artifact.program, HANDLER) if isinstance(artifact, ComponentArtifact) else None
        if not isinstance(artifact, ComponentArtifact) or handler is None:
            problem = "is not loaded" if artifact is None else f"exports no {HANDLER}@0.2"
            failed = f"artifact {told.artifact} {problem}"
            self._post(ServeFailed(site=told.site, revision=told.revision, result=Result.ERROR, message=failed))
            return
        if site is None or not site.revisions:  # one without any has closed its listener
            site = self._sites[told.site] = Site(socket.socket(fileno=os.dup(fds[0])))
        supply = Supply(
            self._allocator,
            self._scheduler,
            self._maker(told, artifact, fds[1:]),
            told.workload_id,
            artifact.number,
            told.queue_seconds,
            told.ready,
            lambda: self._post(Starved(site=told.site)),
            told.deadline_seconds,
        )
        client = Client(self._network, told.allowed_hosts)
        revision = Revision(site, told, handler, supply, self._scheduler, client, self._post)
        site.revisions[told.revision] = revision
        revision.probe()

    def give_way(self, name: str) -> None:
        """Another worker has requests that wait for slots of this site."""
        site = self._sites.get(name)
        for revision in site.revisions.values() if site is not None else ():
            revision.supply.give_way()

    def withdraw(self, message: Withdraw) -> None:
        """Answered by Withdrawn, also of what is not known."""
        site = self._sites.get(message.site)
        revision = site.revisions.get(message.revision) if site is not None else None
        if revision is None:
            self._post(Withdrawn(site=message.site, revision=message.revision))
            return
        revision.withdraw(message.grace_seconds)

    def count(self) -> None:
        """Posts what has changed."""
        self._sites = {name: it for name, it in self._sites.items() if it.revisions}
        found = [revision.seen() for site in self._sites.values() for revision in site.revisions.values()]
        changed = [it for it in found if self._seen.get((it.site, it.revision)) != it]
        for at in range(0, len(changed), SITES_PER_MESSAGE):
            self._post(SiteStats(sites=tuple(changed[at : at + SITES_PER_MESSAGE])))
        self._seen = {(it.site, it.revision): it for it in found}

    async def end(self) -> None:
        """Everything, at once."""
        for site in list(self._sites.values()):
            for revision in list(site.revisions.values()):
                revision.withdraw(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while any(site.revisions for site in self._sites.values()):  # noqa: ASYNC110 - see below
                    await asyncio.sleep(0.001)  # what still runs ends with the loop's next turns
        self._network.close()

    @property
    def busy(self) -> bool:
        """Whether there is anything whose figures may change."""
        return bool(self._sites)

    def _maker(self, told: Serve, artifact: ComponentArtifact, files: tuple[int, ...]) -> ComponentMaker:
        return ComponentMaker(
            engine=self._artifacts.engine,
            allocator=self._allocator,
            program=artifact.program,
            limits=told.limits or self._limits,
            env=told.env,
            preopens=trees(read_files(files[0])) if files else {},
            args=(told.workload.rpartition("/")[2],),
            outputs=partial(self._outputs, told),
            clocks=_clocks,
        )

    def _outputs(self, told: Serve) -> tuple[LineStream, LineStream]:
        self._instances += 1
        return self._lines.streams(told.workload, told.revision, self._instances)


def _sessions() -> MakeSession:
    from wasmpool_agent.outgoing_http import AioSession  # noqa: PLC0415 - 16 MB, for those who send something

    return AioSession


def _clocks(made: Made) -> Clocks:
    return Clocks(time.time_ns, time.monotonic_ns, made.cpu.ns)
