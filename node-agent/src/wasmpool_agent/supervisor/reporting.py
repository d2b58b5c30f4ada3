"""What the supervisor says of itself: the node's status, written when it changes; probes; figures."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from wasmpool_agent.metrics import Metrics
from wasmpool_agent.status import (
    PASSING_SECONDS,
    Counts,
    Finding,
    Written,
    build_status,
    is_passing,
    publish_in,
    written_now,
)
from wasmpool_agent.status_budget import reductions
from wasmpool_agent.supervisor.backoff import API
from wasmpool_agent.supervisor.ports import DesiredState, PortError, RefusedError
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.reserving import Reserver
from wasmpool_agent.supervisor.state import Clocks, Settings, State
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus
from wasmpool_api.reasons import NodeReason

LAST_WORD_SECONDS: Final = 3.0
STATUS_SECONDS: Final = 0.05
"""The least between two looks at the status: thousands of instances may end in a second."""

log = logging.getLogger(__name__)


class Reporter:
    """The only one that writes the status."""

    def __init__(
        self,
        state: State,
        reserver: Reserver,
        settings: Settings,
        port: DesiredState,
        metrics: Metrics,
        clocks: Clocks,
    ) -> None:
        self._state = state
        self._reserver = reserver
        self._settings = settings
        self._port = port
        self._metrics = metrics
        self._clocks = clocks
        self._written: Written | None = None
        self._passing_since: float | None = None

    def unready(self) -> str:
        """Why this agent takes nothing now; empty if it is ready."""
        state, standing = self._state, self._reserver.standing
        if state.stopping.is_set():
            return "the agent is stopping"
        if not standing.reserved:
            return f"{standing.reason}: {standing.message}"
        if state.workers is None or not state.workers.ready:
            fault = state.workers.last_fault if state.workers is not None else ""
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

    def status(self) -> InstancePoolNodeStatus:
        """As it is now."""
        state, memory = self._state, self._state.memory
        counts = None
        if memory is not None:
            table = memory.table.counts()
            counts = Counts(
                capacity=table.total,
                used=table.used + table.wiping,
                quarantined=table.quarantined,
                reserved=self._reserved(),
            )
        now = self._clocks.monotonic()
        return build_status(
            before=self._written.status if self._written is not None else state.found,
            generation=state.applied_generation,
            agent=self._settings.agent,
            findings=self._findings(),
            counts=counts,
            shape=memory.region.shape if memory is not None else None,
            workloads=[claim.entry(now) for claim in state.claims.values()],
            now=self._clocks.now(),
        )

    async def publish_for_ever(self) -> None:
        """Writes the status whenever it has changed, and not more often than it may."""
        state = self._state
        failures = 0
        pause: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await state.dirty.wait()
            state.dirty.clear()
            pause = None
            if state.desired is None or not state.confirmed:
                continue
            status = self.status()
            pause = self._publish_in(status)
            if pause == 0:
                failures = 0 if await self._publish(status) else failures + 1
                pause = API.seconds(failures) if failures else None
                # Not more often, however much happens: what comes of it is in the next status.
                await asyncio.sleep(max(STATUS_SECONDS, pause or 0.0))
                state.dirty.set()
            else:
                await asyncio.sleep(STATUS_SECONDS)

    def _publish_in(self, status: InstancePoolNodeStatus) -> float | None:
        now, written = self._clocks.monotonic(), self._written
        pause = publish_in(written, status, now, edge_seconds=self._settings.edge_seconds)
        # NB: runs begin only once their claim is in a status that was written.
        claims, known = self._state.claims, self._state.announced
        awaited = {(it.uid, it.revision) for it in claims if claims[it].runs is not None and it not in known}
        if pause is None or written is None or not is_passing(written.status, status, awaited):
            self._passing_since = None
            return pause
        if self._passing_since is None:
            self._passing_since = now
        return max(pause, self._passing_since + PASSING_SECONDS - now)

    async def last_word(self) -> None:
        """That nothing runs here any more, if anybody is there to hear it."""
        if self._state.desired is None or self._written is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._publish(self.status())

    async def _publish(self, status: InstancePoolNodeStatus) -> bool:
        try:
            cut = await self._publish_as_taken(status)
        except PortError as error:
            log.warning("the status could not be written: %s", error)
            self._metrics.status_written("error")
            return False
        # NB: the whole of it, so that what was cut is not taken for a change.
        self._written = written_now(
            self._written, status, self._clocks.monotonic(), edge_seconds=self._settings.edge_seconds
        )
        self._passing_since = None
        self._metrics.status_written("cut" if cut else "ok")
        announced = frozenset(ClaimKey(entry.uid, entry.revision) for entry in status.workloads)
        if announced != self._state.announced:
            self._state.announced = announced
            self._state.wake.set()
        return True

    async def _publish_as_taken(self, status: InstancePoolNodeStatus) -> bool:
        """Whether less than `status` had to do: one workload must not keep the others' news back. Raises PortError."""
        try:
            await self._port.publish(status)
        except RefusedError as error:
            refusal = error
        else:
            return False
        for reduced in reductions(status, refusal.entries):
            log.warning("the status was refused and is cut: %s", refusal)
            try:
                await self._port.publish(reduced)
            except RefusedError as error:
                refusal = error
            else:
                return True
        raise refusal

    def _findings(self) -> list[Finding]:
        standing = self._reserver.standing
        region: bool | None = standing.reserved
        if standing.reason is NodeReason.ENGINE_REFUSED:
            region = None
        unready = "" if self._written is None and not self._blocked() else self.unready()
        ready_reason = NodeReason.AGENT_READY if not unready else NodeReason.AGENT_NOT_READY
        if not standing.reserved:
            ready_reason = NodeReason.ENGINE_REFUSED if region is None else NodeReason.AGENT_NOT_READY
        draining = self._state.stopping.is_set()
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
        workers = self._state.workers
        return self._state.stopping.is_set() or workers is None or not workers.ready

    def _reserved(self) -> int:
        return sum(claim.reserved for claim in self._state.claims.values())

    def _measure(self) -> None:
        state, standing, memory = self._state, self._reserver.standing, self._state.memory
        if memory is None:
            self._metrics.region(ready=False, reason=standing.reason)
        else:
            shape = memory.region.shape
            self._metrics.region(
                ready=True, reason=standing.reason, backing=shape.backing, size_bytes=shape.region_bytes
            )
            self._metrics.huge_pages(shape.page_bytes)
            self._metrics.slots(memory.table.counts(), self._reserved())
        now = self._clocks.monotonic()
        self._metrics.workloads(claim.entry(now).state for claim in state.claims.values())
        self._metrics.workers(state.workers.ready if state.workers is not None else 0)
        self._metrics.mappings(state.workers.mappings if state.workers is not None else {})
