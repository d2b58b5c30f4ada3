"""The supervisor: follows the desired state, holds the region and the workers, and reports what is so.

Everything happens on one event loop. Events (a new desired state, a message of a worker, a module that is prepared)
only change records and wake one loop, which brings claims, instances and status in line with what is wanted. So nothing
depends on the order of events, nor on seeing each of them.

Order at the end, for each part uses those below it: claims' tasks, workers, slot table, region.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.store import Store
from wasmpool_agent.protocol import Exited, LoadReason, ModuleFailed, Started
from wasmpool_agent.status import EDGE_SECONDS, Counts, Finding, Written, build_status, publish_in
from wasmpool_agent.supervisor.backoff import API, PULLS
from wasmpool_agent.supervisor.claims import Claim, Step
from wasmpool_agent.supervisor.cpus import usable_cpus
from wasmpool_agent.supervisor.instances import Dispatcher
from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.ports import Desired, DesiredState, PortError
from wasmpool_agent.supervisor.preparing import NeverError, NotNowError, Preparer
from wasmpool_agent.supervisor.promises import ClaimKey, accept, key_of
from wasmpool_agent.supervisor.reserving import Memory, Reserver
from wasmpool_agent.supervisor.runs import Runs
from wasmpool_agent.supervisor.workers import STOP_SECONDS, Workers
from wasmpool_api.indexes import IndexesError, parse_indexes
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import AgentInfo, Assignment, InstancePoolNodeStatus
from wasmpool_api.reasons import NodeReason, Refusal, Waiting
from wasmpool_api.wasm_workload import RestartPolicy

LAST_WORD_SECONDS: Final = 3.0
JOURNAL_SECONDS: Final = 7 * 24 * 3600.0
STATUS_SECONDS: Final = 0.05
"""The least between two looks at the status: thousands of instances may end in a second."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clocks:
    """`monotonic`: seconds, for intervals; `now`: for timestamps that people read."""

    monotonic: Callable[[], float]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Settings:
    """`pool_file`: the same pool, for the children. `cache`: a directory that outlives this process, at best.

    `edge_seconds`: the least between two writes of the status.
    """

    pool: InstancePool
    pool_file: Path
    cache: Path
    agent: AgentInfo
    edge_seconds: float = EDGE_SECONDS


class Supervisor:
    """One node of one pool, from the reservation of its region to its end."""

    def __init__(self, settings: Settings, desired: DesiredState, metrics: Metrics, clocks: Clocks) -> None:
        self._settings = settings
        self._spec = settings.pool.spec
        self._port = desired
        self._metrics = metrics
        self._clocks = clocks
        self._wake = asyncio.Event()
        self._dirty = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reserved = asyncio.Event()
        self._reserver = Reserver(self._spec, self._changed)
        self._memory: Memory | None = None
        self._workers: Workers | None = None
        self._store = Store(settings.cache)
        self._journal = Journal(settings.cache)
        self._preparer = Preparer(
            desired=desired,
            pool=settings.pool,
            pool_file=settings.pool_file,
            store=self._store,
            metrics=metrics,
        )
        self._dispatcher = Dispatcher(self._preparer, self._journal, clocks.monotonic)
        self._desired: Desired | None = None
        self._found: InstancePoolNodeStatus | None = None
        self._confirmed = False
        self._predecessor_gone = False
        self._announced: frozenset[ClaimKey] = frozenset()
        self._claims: dict[ClaimKey, Claim] = {}
        self._tasks: dict[ClaimKey, asyncio.Task[None]] = {}
        self._last_workload_id = 0
        self._applied_generation = 0
        self._written: Written | None = None

    # ------------------------------------------------------------------------------------------------------- for probes
    def unready(self) -> str:
        """Why this agent takes nothing now; empty if it is ready."""
        if self._stopping.is_set():
            return "the agent is stopping"
        if not self._reserver.standing.reserved:
            return f"{self._reserver.standing.reason}: {self._reserver.standing.message}"
        if self._workers is None or not self._workers.ready:
            fault = self._workers.last_fault if self._workers is not None else ""
            return f"no worker is ready; the last one ended {fault}" if fault else "no worker is ready"
        if self._written is None:
            return "the status has not been written yet"
        return ""

    def progress(self) -> str:
        """For a person who waits."""
        standing = self._reserver.standing
        return f"region: {standing.pages_done} of {standing.pages_total} pages" if standing.pages_total else ""

    def metrics_text(self) -> bytes:
        """With figures as they are at this moment."""
        self._measure()
        return self._metrics.text()

    # --------------------------------------------------------------------------------------------------------- its life
    def stop(self) -> None:
        """Instances are stopped, the region is given back, and `run` returns."""
        self._stopping.set()
        self._reserver.stop()
        self._changed()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._follow(), name="follow"),
                    group.create_task(self._hold(), name="hold"),
                    group.create_task(self._reconcile_for_ever(group), name="reconcile"),
                    group.create_task(self._publish_for_ever(), name="publish"),
                ]
                await self._stopping.wait()
                log.info("stopping")
                await self._end_workers()
                await self._last_word()
                for task in [*tasks, *self._tasks.values()]:
                    task.cancel()
        finally:
            self._preparer.close()
            if self._memory is not None:
                self._memory.close()

    def _changed(self) -> None:
        self._wake.set()
        self._dirty.set()

    # ----------------------------------------------------------------------------------------------- region and workers
    async def _hold(self) -> None:
        self._memory = memory = await self._reserver.reserve()
        workers = Workers(
            count=self._spec.runtime.workers or usable_cpus(),
            region=memory.region,
            table=memory.table,
            pool_file=self._settings.pool_file,
            backing=memory.fallback,
            listener=self,
            clock=self._clocks.monotonic,
        )
        log.info("region reserved: %s; starting %d workers", self._reserver.standing.message, workers.count)
        self._workers = workers
        self._reserved.set()
        self._changed()
        await workers.run()

    async def _end_workers(self) -> None:
        workers = self._workers
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
        self._changed()

    def instance_started(self, started: Started) -> None:
        """See `Listener`."""
        self._metrics.instance_started(started.instantiate_seconds)
        self._dispatcher.started(started)
        self._changed()

    def instance_exited(self, exited: Exited) -> None:
        """See `Listener`."""
        self._metrics.instance_exited(exited)
        self._dispatcher.exited(exited)
        self._changed()

    def instances_lost(self, instances: frozenset[int]) -> None:
        """See `Listener`."""
        self._dispatcher.lost(instances)
        self._changed()

    def allocations_counted(self, added: AllocationCounts) -> None:
        """See `Listener`."""
        self._metrics.allocated(added)

    def worker_died(self, wiped_slots: int) -> None:
        """See `Listener`."""
        self._metrics.worker_restarted()
        if self._memory is not None:
            self._metrics.slots_reclaimed(wiped_slots * self._memory.region.shape.slot_bytes)

    def module_failed(self, failed: ModuleFailed) -> None:
        """See `Listener`."""
        log.error("a worker refused compiled code: %s: %s", failed.reason, failed.message)
        if failed.reason is not LoadReason.UNSUPPORTED_IMPORT:
            self._preparer.discard(failed.key)
        for claim in self._claims.values():
            if claim.prepared is None or claim.prepared.artifact != failed.key:
                continue
            claim.prepared = None
            if failed.reason is LoadReason.UNSUPPORTED_IMPORT:
                claim.step, claim.reason, claim.message = Step.REFUSED, Refusal.UNSUPPORTED_FEATURE, failed.message
            else:
                claim.load_failures += 1
                claim.step, claim.reason, claim.message = Step.COMPILING, Waiting.COMPILE_FAILED, failed.message
        self._changed()

    # ---------------------------------------------------------------------------------------------------- desired state
    async def _follow(self) -> None:
        async for desired in self._port.watch():
            if desired.confirmed and not self._confirmed:
                self._confirmed = True
                self._found = desired.status
                agent = desired.status.agent if desired.status is not None else None
                self._predecessor_gone = agent is not None and agent.pod_uid != self._settings.agent.pod_uid
                long_ago = self._clocks.now().timestamp() - JOURNAL_SECONDS
                self._journal.forget_before(long_ago, {key_of(it) for it in desired.assignments})
            self._desired = desired
            self._changed()

    async def _reconcile_for_ever(self, group: asyncio.TaskGroup) -> None:
        due: float | None = None
        while True:
            pause = None if due is None else max(0.0, due - self._clocks.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            if self._stopping.is_set():
                return
            due = self._reconcile(group)
            await asyncio.sleep(0)

    def _reconcile(self, group: asyncio.TaskGroup) -> float | None:
        """Brings claims and instances in line with the desired state. Gives when it is due again."""
        if self._desired is None:
            return None
        self._take_over(self._desired.assignments)
        for key, claim in self._claims.items():
            if claim.assigned and claim.prepared is None and claim.step is not Step.REFUSED:
                task = self._tasks.get(key)
                if (task is None or task.done()) and not self._inspected(claim):
                    self._tasks[key] = group.create_task(self._prepare(claim), name=f"prepare-{claim.label}")
        due = None
        if self._workers is not None:
            due = self._dispatcher.carry_out(
                self._claims.values(), self._workers, self._announced, self._clocks.monotonic()
            )
        self._let_go()
        self._applied_generation = self._desired.generation
        return due

    def _take_over(self, assignments: tuple[Assignment, ...]) -> None:
        """Claims as the assignments are; those without one end."""
        wanted = {key_of(it): it for it in assignments}
        for key, assignment in wanted.items():
            claim = self._claims.get(key)
            if claim is None or claim.assignment.inspect != assignment.inspect:
                if claim is not None and claim.used:
                    continue  # its instances end first
                self._forget(key)
                self._last_workload_id += 1
                self._claims[key] = Claim(assignment, workload_id=self._last_workload_id)
            else:
                claim.assignment, claim.assigned = assignment, True
        for key, claim in self._claims.items():
            claim.assigned = key in wanted
        before = {key: claim.accepted for key, claim in self._claims.items()}
        held = {key: claim.used for key, claim in self._claims.items() if claim.used}
        accepted = accept(wanted.values(), self._allocatable(), before, held)
        for key, claim in self._claims.items():
            claim.accepted = accepted.get(key, 0) if claim.assigned else 0
            if claim.runs is not None:
                claim.runs.assign(claim.accepted, claim.indexes if claim.assigned else frozenset())

    def _let_go(self) -> None:
        """Claims that are neither assigned nor hold a slot."""
        for key in [key for key, claim in self._claims.items() if not claim.assigned and not claim.used]:
            self._forget(key)
            self._journal.forget(key)

    def _forget(self, key: ClaimKey) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        if self._claims.pop(key, None) is not None:
            for unused in self._preparer.release(key):
                if self._workers is not None:
                    self._workers.drop(unused)

    # ------------------------------------------------------------------------------------------------------ preparation
    @staticmethod
    def _inspected(claim: Claim) -> bool:
        return claim.assignment.inspect and claim.step is Step.INSPECTED

    async def _prepare(self, claim: Claim) -> None:
        """Until the claim is inspected, prepared, or can't be. What is broken may be mended, so it is tried again."""
        failures = 0
        await asyncio.sleep(PULLS.seconds(claim.load_failures))
        while True:
            if claim.step is not Step.REFUSED:
                claim.step = Step.PULLING
            try:
                if claim.assignment.inspect:
                    if await self._inspect(claim):
                        return
                else:
                    await self._make_ready(claim)
                    return
            except NotNowError as error:
                claim.step, claim.reason, claim.message = error.step, error.reason, error.message
            except NeverError as error:
                claim.step, claim.reason, claim.message = Step.REFUSED, error.reason, error.message
                if error.finding is not None:
                    claim.module = error.finding.module
                self._changed()
                return
            except Exception as error:  # a bug that one tenant's module finds must not end everybody's agent
                log.exception("%s could not be prepared", claim.label)
                claim.step, claim.reason = Step.PULLING, Waiting.MODULE_PULL_FAILED
                claim.message = f"the agent failed to prepare it, which is its own fault: {error!r}"
            self._changed()
            failures += 1
            await asyncio.sleep(PULLS.seconds(failures))

    async def _inspect(self, claim: Claim) -> bool:
        """False where the module is refused, and looked at again later."""
        finding = await self._preparer.inspect(claim)
        claim.module = finding.module
        claim.step = Step.INSPECTED if finding.admitted else Step.REFUSED
        claim.reason = "" if finding.admitted else finding.reason
        claim.message = "" if finding.admitted else finding.message
        self._changed()
        return finding.admitted

    async def _make_ready(self, claim: Claim) -> None:
        if not self._reserved.is_set():
            claim.step = Step.WAITING
            self._changed()
            await self._reserved.wait()
        memory = self._memory
        assert memory is not None, "set before _reserved is"  # noqa: S101

        def on_step(step: Step) -> None:
            claim.step, claim.reason, claim.message = step, "", ""
            self._changed()

        prepared, finding = await self._preparer.prepare(claim, memory.fallback, on_step)
        claim.module = finding.module
        command = prepared.revision.run.command
        policy = command.restart_policy if command is not None else RestartPolicy.ALWAYS
        if claim.runs is None:
            claim.runs = self._resumed(claim, policy)
        claim.prepared = prepared
        claim.step, claim.reason, claim.message = Step.PREPARED, "", ""
        self._changed()

    def _resumed(self, claim: Claim, policy: RestartPolicy) -> Runs:
        """Where an earlier process of this agent, or of its predecessor on the node, has left it."""
        runs = Runs(policy)
        if not runs.counted:
            return runs
        record = self._journal.read(claim.key)
        runs.completed |= record.completed
        runs.failed |= record.failed
        found = self._found.workloads if self._found is not None else ()
        for entry in found:
            if ClaimKey(entry.uid, entry.revision) == claim.key:
                with suppress(IndexesError):
                    runs.completed |= parse_indexes(entry.completed)
                    runs.failed |= parse_indexes(entry.failed)
        if policy is RestartPolicy.NEVER:
            if not self._confirmed:
                raise NotNowError(
                    Step.WAITING,
                    Waiting.NO_READY_NODES,
                    "the API server has not been reached yet, so nobody knows what an earlier agent has begun",
                )
            lost = set(record.lost) - runs.completed - runs.failed
            if self._predecessor_gone and self._assigned_to_predecessor(claim):
                lost |= claim.indexes - runs.completed - runs.failed
            for index in sorted(lost):
                self._journal.ended(claim.key, index, completed=False)
            if lost:
                log.warning("%s: indexes %s were begun by an agent that is gone: failed", claim.label, sorted(lost))
            runs.failed |= lost
        runs.failed -= runs.completed
        return runs

    def _assigned_to_predecessor(self, claim: Claim) -> bool:
        """Whether the agent before this one may have begun it: nobody can tell how far it came."""
        return any(
            ClaimKey(entry.uid, entry.revision) == claim.key
            for entry in (self._found.workloads if self._found is not None else ())
        )

    # ----------------------------------------------------------------------------------------------------------- status
    def _allocatable(self) -> int:
        if self._memory is None:
            return 0
        counts = self._memory.table.counts()
        return counts.total - counts.quarantined

    def _findings(self) -> list[Finding]:
        standing = self._reserver.standing
        region: bool | None = standing.reserved
        if standing.reason is NodeReason.ENGINE_REFUSED:
            region = None
        unready = "" if self._written is None and not self._blocked() else self.unready()
        ready_reason = NodeReason.AGENT_READY if not unready else NodeReason.AGENT_NOT_READY
        if not standing.reserved:
            ready_reason = NodeReason.ENGINE_REFUSED if region is None else NodeReason.AGENT_NOT_READY
        draining = self._stopping.is_set()
        return [
            Finding("Ready", not unready, ready_reason, unready),
            Finding("RegionReserved", region, standing.reason, standing.message),
            Finding(
                "Draining",
                draining,
                NodeReason.STOPPING if draining else NodeReason.IN_SERVICE,
                "the agent is stopping" if draining else "",
            ),
        ]

    def _blocked(self) -> bool:
        """Whether something other than the first write of the status is missing."""
        return self._stopping.is_set() or self._workers is None or not self._workers.ready

    def status(self) -> InstancePoolNodeStatus:
        """As it is now."""
        memory = self._memory
        counts = None
        if memory is not None:
            table = memory.table.counts()
            counts = Counts(
                capacity=table.total,
                used=table.used + table.wiping,
                quarantined=table.quarantined,
                reserved=sum(claim.reserved for claim in self._claims.values()),
            )
        now = self._clocks.monotonic()
        return build_status(
            before=self._written.status if self._written is not None else self._found,
            generation=self._applied_generation,
            agent=self._settings.agent,
            findings=self._findings(),
            counts=counts,
            shape=memory.region.shape if memory is not None else None,
            workloads=[claim.entry(now) for claim in self._claims.values()],
            now=self._clocks.now(),
        )

    def _measure(self) -> None:
        standing, memory = self._reserver.standing, self._memory
        if memory is None:
            self._metrics.region(ready=False, reason=standing.reason)
        else:
            shape = memory.region.shape
            self._metrics.region(
                ready=True, reason=standing.reason, backing=shape.backing, size_bytes=shape.region_bytes
            )
            self._metrics.huge_pages(shape.page_bytes)
            self._metrics.slots(memory.table.counts(), sum(claim.reserved for claim in self._claims.values()))
        now = self._clocks.monotonic()
        self._metrics.workloads(claim.entry(now).state for claim in self._claims.values())
        self._metrics.workers(self._workers.ready if self._workers is not None else 0)
        self._metrics.mappings(self._workers.mappings if self._workers is not None else {})

    async def _publish_for_ever(self) -> None:
        failures = 0
        pause: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._dirty.wait()
            self._dirty.clear()
            pause = None
            if self._desired is None or not self._confirmed:
                continue
            status = self.status()
            pause = publish_in(
                self._written, status, self._clocks.monotonic(), edge_seconds=self._settings.edge_seconds
            )
            if pause == 0:
                failures = 0 if await self._publish(status) else failures + 1
                pause = API.seconds(failures) if failures else None
                # Not more often, however much happens: what comes of it is in the next status.
                await asyncio.sleep(max(STATUS_SECONDS, pause or 0.0))
                self._dirty.set()
            else:
                await asyncio.sleep(STATUS_SECONDS)

    async def _publish(self, status: InstancePoolNodeStatus) -> bool:
        try:
            await self._port.publish(status)
        except PortError as error:
            log.warning("the status could not be written: %s", error)
            self._metrics.status_written(ok=False)
            return False
        self._written = Written(status, self._clocks.monotonic())
        self._metrics.status_written(ok=True)
        announced = frozenset(ClaimKey(entry.uid, entry.revision) for entry in status.workloads)
        if announced != self._announced:
            self._announced = announced
            self._wake.set()
        return True

    async def _last_word(self) -> None:
        """That nothing runs here any more, if anybody is there to hear it."""
        if self._desired is None or self._written is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._publish(self.status())
