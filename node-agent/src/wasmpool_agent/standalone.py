"""The desired state from a directory of manifests: `wasmpool-agent run`, with no cluster."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

from wasmpool_agent.errors import UserError
from wasmpool_agent.manifests import Manifests, files_of, folder_config_map, read_manifests
from wasmpool_agent.standalone_plan import Plan, Report, never_ending, plan
from wasmpool_agent.standalone_serving import Ledger
from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap, Desired
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus, WorkloadState
from wasmpool_api.reasons import RegionReason
from wasmpool_api.revisions import Revision

LOOK_SECONDS: Final = 1.0

log = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int], ...]


class FileNode:
    """One node whose assignments are made here, from manifests and the node's own status. Implements `DesiredState`.

    `once`: `settled` is set as soon as nothing more will happen, and a problem that would be waited for counts as one
    that stays. `tell` is called with each report that differs from the one before.
    """

    def __init__(self, directory: Path, pool: InstancePool, *, once: bool, tell: Callable[[Report], None]) -> None:
        """Raises UserError where the manifests are wrong."""
        self._directory = directory
        self._pool = pool
        self._once = once
        self._tell = tell
        self._signature = self._look()
        self._manifests = self._read()
        self._status: InstancePoolNodeStatus | None = None
        self._ledger = Ledger()
        self._told: dict[str, Report] = {}
        self._plan = Plan((), {}, ())
        self._generation = 0
        self._changed = asyncio.Event()
        self.settled = asyncio.Event()
        self.region_problem = ""

    @property
    def all_succeeded(self) -> bool:
        """Whether every workload has run to a good end."""
        return all(it.state is WorkloadState.SUCCEEDED for it in self._plan.reports)

    async def watch(self) -> AsyncIterator[Desired]:
        """See `DesiredState`."""
        self._replan()
        while True:
            yield Desired(self._generation, self._plan.assignments, self._status)
            seen = self._generation
            while self._generation == seen:
                self._changed.clear()
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    await self._look_again()

    async def revision(self, name: str) -> Revision:
        """See `DesiredState`."""
        found = self._plan.revisions.get(name)
        if found is None:
            raise AbsentError(f"no workload of {self._directory} has revision {name} any more")
        return found

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        """See `Objects`: a manifest, or else a folder of that name."""
        found = self._manifests.config_maps.get((namespace, name))
        if found is not None:
            return found
        return await asyncio.to_thread(folder_config_map, self._directory, namespace, name)

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """See `Objects`: a manifest."""
        found = self._manifests.secrets.get((namespace, name))
        if found is None:
            raise AbsentError(f"no manifest in {self._directory} is Secret {namespace}/{name}")
        return found

    async def publish(self, status: InstancePoolNodeStatus) -> None:
        """See `DesiredState`. What the status says decides what is assigned next."""
        if any(it.type == "Draining" and it.status == "True" for it in status.conditions):
            return  # what is said from here on is only that all is being stopped
        self._status = status
        self._ledger.learn(status)
        self._replan()
        self._notice_region(status)

    def _replan(self) -> None:
        before = self._plan.assignments
        self._plan = plan(self._pool, self._manifests.workloads, self._status, self._ledger)
        for report in self._plan.reports:
            label = f"{report.namespace}/{report.name}"
            if self._told.get(label) != report:
                self._told[label] = report
                self._tell(report)
        if self._plan.assignments != before or not self._generation:
            self._generation += 1
            self._changed.set()
        if all(report.settled for report in self._plan.reports):
            self.settled.set()
        else:
            self.settled.clear()

    def _notice_region(self, status: InstancePoolNodeStatus) -> None:
        condition = next((it for it in status.conditions if it.type == "RegionReserved"), None)
        if condition is None or condition.status == "True" or condition.reason == RegionReason.RESERVING:
            self.region_problem = ""
            return
        self.region_problem = f"{condition.reason}: {condition.message}"
        if self._once:
            self.settled.set()

    def _look(self) -> Signature:
        return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files_of(self._directory))

    async def _look_again(self) -> None:
        """Files may have changed. A mistake in them leaves things as they are."""
        try:
            signature = await asyncio.to_thread(self._look)
            if signature == self._signature:
                return
            self._signature = signature
            self._manifests = await asyncio.to_thread(self._read)
        except (UserError, OSError) as error:
            log.warning("%s; going on with the manifests as they were", error)
            return
        log.info("the manifests in %s have changed", self._directory)
        self._replan()

    def _read(self) -> Manifests:
        manifests = read_manifests(self._directory)
        if not manifests.workloads:
            raise UserError(f"--workloads {self._directory}: no WasmWorkload is in its YAML files")
        endless = never_ending(manifests.workloads) if self._once else []
        if endless:
            raise UserError(
                f"--once: {', '.join(endless)} would never end: it answers requests, or its run.command.restartPolicy "
                "is Always; allowed are commands with OnFailure and Never"
            )
        return manifests
