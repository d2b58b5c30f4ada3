"""The supervisor: follows the desired state, holds the region and the workers, and reports what is so.

Everything happens on one event loop. Events (a new desired state, a message of a worker, a module that is prepared)
only change records and wake one loop, which brings claims, instances and status in line with what is wanted. So nothing
depends on the order of events, nor on seeing each of them.

Order at the end, for each part uses those below it: claims' tasks, workers, slot table, region.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.budget import Budget
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.fetching import Modules
from wasmpool_agent.modules.images import Images
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.registries import registry_client
from wasmpool_agent.modules.sources import Sources
from wasmpool_agent.modules.store import Store
from wasmpool_agent.oci.parts import remove_stale
from wasmpool_agent.protocol import Exited, ModuleFailed, SiteStats, Started
from wasmpool_agent.supervisor.claiming import Claiming
from wasmpool_agent.supervisor.cpus import usable_cpus
from wasmpool_agent.supervisor.instances import Dispatcher
from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.pod_memory import PodMemory, memory_limit
from wasmpool_agent.supervisor.ports import DesiredState
from wasmpool_agent.supervisor.preparing import Preparer
from wasmpool_agent.supervisor.promises import ClaimKey, key_of
from wasmpool_agent.supervisor.quotas import Quotas
from wasmpool_agent.supervisor.reporting import Reporter
from wasmpool_agent.supervisor.reserving import Reserver
from wasmpool_agent.supervisor.serving import Services
from wasmpool_agent.supervisor.state import Clocks, Settings, State
from wasmpool_agent.supervisor.worker import SiteMessage, Worker
from wasmpool_agent.supervisor.workers import STOP_SECONDS, Workers
from wasmpool_api.instance_pool_node import Assignment

JOURNAL_SECONDS: Final = 7 * 24 * 3600.0
PURGE_SECONDS: Final = 3600.0

log = logging.getLogger(__name__)


class Supervisor:
    """One node of one pool, from the reservation of its region to its end."""

    def __init__(self, settings: Settings, desired: DesiredState, metrics: Metrics, clocks: Clocks) -> None:
        self._settings = settings
        self._port = desired
        self._metrics = metrics
        self._clocks = clocks
        self._state = State()
        self._reserver = Reserver(settings.pool.spec, self._state.changed)
        self._journal = Journal(settings.cache)
        metadata = settings.pool.metadata
        cache = Cache(Store(settings.cache, int(settings.pool.spec.agent.cache.size_limit)), metrics)
        remove_stale(cache.downloads, clocks.now().timestamp())
        sources = Sources(desired, metadata.namespace, metadata.name)
        self._registries = registry_client(settings.pool)
        memory = PodMemory.divided(
            memory_limit(), settings.pool.spec, settings.pool.spec.runtime.workers or usable_cpus()
        )
        # NB: two halves, so that nobody who only reads the cache waits for an image that is being unpacked.
        half = memory.module_bytes // 2
        unpacking, reading, pulled = Budget(half), Budget(half), Pulled(settings.cache)
        images = Images(
            self._registries,
            sources,
            settings.pool_credentials,
            cache,
            pulled,
            metrics,
            reading,
            unpacking,
            most_bytes=half,
            hint=memory.hint,
        )
        self._preparer = Preparer(
            desired=desired,
            pool=settings.pool,
            pool_file=settings.pool_file,
            sources=sources,
            modules=Modules(sources, images, cache, pulled, reading),
            cache=cache,
            metrics=metrics,
            memory=memory,
        )
        self._purge_due = 0.0
        self._said = asyncio.Event()
        self._claiming = Claiming(self._state, self._preparer, self._journal)
        self._dispatcher = Dispatcher(self._preparer, self._journal, clocks.monotonic)
        self._services = Services(self._preparer, settings.serve_host)
        self._quotas = Quotas()
        self.reporter = Reporter(self._state, self._reserver, settings, desired, metrics, clocks)
        """For probes."""

    def stop(self) -> None:
        """Instances are stopped, the region is given back, and `run` returns."""
        self._state.stopping.set()
        self._reserver.stop()
        self._state.changed()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            async with self._registries, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._follow(), name="follow"),
                    group.create_task(self._hold(), name="hold"),
                    group.create_task(self._reconcile_for_ever(group), name="reconcile"),
                    group.create_task(self.reporter.publish_for_ever(), name="publish"),
                ]
                await self._state.stopping.wait()
                log.info("stopping")
                await self._drain()
                await self._end_workers()
                await self.reporter.last_word()
                for task in tasks:
                    task.cancel()
                self._claiming.cancel()
        finally:
            self._services.close()
            self._preparer.close()
            if self._state.memory is not None:
                self._state.memory.close()

    # ----------------------------------------------------------------------------------------------- region and workers
    async def _hold(self) -> None:
        state = self._state
        state.memory = memory = await self._reserver.reserve()
        workers = Workers(
            count=self._settings.pool.spec.runtime.workers or usable_cpus(),
            region=memory.region,
            table=memory.table,
            pool_file=self._settings.pool_file,
            backing=memory.fallback,
            listener=self,
            clock=self._clocks.monotonic,
        )
        log.info("region reserved: %s; workers to start: %d", self._reserver.standing.message, workers.count)
        state.workers = workers
        state.reserved.set()
        state.changed()
        await workers.run()

    async def _drain(self) -> None:
        """Requests that run may end; new ones are taken until those who send them can know better."""
        workers = self._state.workers
        if workers is None or not workers.serves:
            return
        await asyncio.sleep(self._settings.leave_seconds)
        grace = float(self._settings.pool.spec.runtime.request_deadline)
        self._services.withdraw_all(self._state.claims.values(), workers, grace)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace + 1):
                while workers.serves:
                    self._said.clear()
                    await self._said.wait()

    async def _end_workers(self) -> None:
        workers = self._state.workers
        if workers is None:
            return
        self._dispatcher.stop_all()
        workers.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await workers.gone.wait()

    # ------------------------------------------------------------------------------------------------- what workers say
    def workers_changed(self) -> None:
        """See `Listener`."""
        self._state.changed()

    def instance_started(self, started: Started) -> None:
        """See `Listener`."""
        self._metrics.instance_started(started.instantiate_seconds)
        self._dispatcher.started(started)
        self._state.changed()

    def instance_exited(self, exited: Exited) -> None:
        """See `Listener`."""
        self._metrics.instance_exited(exited)
        self._dispatcher.exited(exited)
        self._state.changed()

    def instances_lost(self, instances: frozenset[int]) -> None:
        """See `Listener`."""
        self._dispatcher.lost(instances)
        self._state.changed()

    def allocations_counted(self, added: AllocationCounts) -> None:
        """See `Listener`."""
        self._metrics.allocated(added)

    def site_said(self, worker: Worker, message: SiteMessage) -> None:
        """See `Listener`."""
        if self._state.workers is not None:
            self._services.heard(message, worker, self._state.claims, self._state.workers)
        self._said.set()
        self._state.changed()

    def sites_counted(self, worker: Worker, counts: SiteStats) -> None:
        """See `Listener`."""
        for each in counts.sites:
            claim = self._state.claims.get(ClaimKey(each.site, each.revision))
            if claim is not None:
                self._metrics.http.add(worker.id, claim.label, each)

    def worker_died(self, wiped_slots: int) -> None:
        """See `Listener`."""
        self._said.set()
        self._metrics.worker_restarted()
        memory = self._state.memory
        if memory is not None:
            self._metrics.slots_reclaimed(wiped_slots * memory.region.shape.slot_bytes)

    def module_failed(self, failed: ModuleFailed) -> None:
        """See `Listener`."""
        log.error("a worker refused compiled code: %s: %s", failed.reason, failed.message)
        self._claiming.module_failed(failed)

    # ---------------------------------------------------------------------------------------------------- desired state
    async def _follow(self) -> None:
        state = self._state
        async for desired in self._port.watch():
            if desired.confirmed and not state.confirmed:
                state.confirmed = True
                state.found = desired.status
                agent = desired.status.agent if desired.status is not None else None
                state.predecessor_gone = agent is not None and agent.pod_uid != self._settings.agent.pod_uid
            state.desired = desired
            state.changed()

    async def _reconcile_for_ever(self, group: asyncio.TaskGroup) -> None:
        due: float | None = None
        while True:
            pause = None if due is None else max(0.0, due - self._clocks.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._state.wake.wait()
            self._state.wake.clear()
            if self._state.stopping.is_set():
                return
            due = self._reconcile(group)
            await asyncio.sleep(0)

    def _reconcile(self, group: asyncio.TaskGroup) -> float | None:
        """Brings claims and instances in line with the desired state. Gives when it is due again."""
        state = self._state
        if state.desired is None:
            return None
        if self._preparer.judge_by(state.desired.admission):
            self._claiming.judge_again()
        self._claiming.take_over(state.desired.assignments)
        self._claiming.prepare(group)
        due = None
        if state.workers is not None:
            now = self._clocks.monotonic()
            assert state.memory is not None, "reserved before there are workers"  # noqa: S101
            self._quotas.carry_out(state.claims.values(), state.memory.table)
            grace = float(self._settings.pool.spec.runtime.request_deadline)
            dues = (
                self._dispatcher.carry_out(state.claims.values(), state.workers, state.announced, now),
                self._services.carry_out(state.claims, state.workers, grace_seconds=grace, now=now),
            )
            due = min((it for it in dues if it is not None), default=None)
        self._claiming.let_go()
        self._metrics.http.keep(claim.label for claim in state.claims.values() if claim.service is not None)
        if state.confirmed and self._clocks.monotonic() >= self._purge_due:
            self._purge_due = self._clocks.monotonic() + PURGE_SECONDS
            self._purge_journal(state.desired.assignments)
        state.applied_generation = state.desired.generation
        return due

    def _purge_journal(self, assignments: Iterable[Assignment]) -> None:
        try:
            self._journal.forget_before(
                self._clocks.now().timestamp() - JOURNAL_SECONDS, {key_of(it) for it in assignments}
            )
        except OSError as error:
            log.warning("the journal can't be tidied up: %s", error)
