"""What is remembered between two plans without a cluster, and what requests need: ports, and who answers. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wasmpool_api.indexes import parse_indexes
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.placement import Claim
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import ModuleStatus, WasmWorkload

Runs = Mapping[Claim, tuple[WasmWorkload, Revision]]


@dataclass(slots=True)
class Ledger:
    """What is remembered from one status to the next, because an assignment's end makes the agent forget it.

    `modules`: by the name of the revision that was inspected. `done` and `failed`: indexes by revision. `last`: the
    last entry of each revision. `ports`: by workload uid. `serving`: what answers a workload's requests, by its uid.
    """

    modules: dict[str, ModuleStatus] = field(default_factory=dict[str, ModuleStatus])
    done: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    failed: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    out: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    slots: dict[str, int] = field(default_factory=dict[str, int])
    last: dict[str, NodeWorkload] = field(default_factory=dict[str, NodeWorkload])
    ports: dict[str, int] = field(default_factory=dict[str, int])
    serving: dict[str, Revision] = field(default_factory=dict[str, Revision])

    def learn(self, status: InstancePoolNodeStatus) -> None:
        """From what the agent has published."""
        for entry in status.workloads:
            self.last[entry.revision] = entry
            if entry.state is WorkloadState.INSPECTED and entry.module is not None:
                self.modules[entry.revision] = entry.module
            failed = parse_indexes(entry.failed)
            self.failed[entry.revision] = self.failed.get(entry.revision, frozenset()) | failed
            done = self.done.get(entry.revision, frozenset())
            self.done[entry.revision] = done | failed | parse_indexes(entry.completed)


def note_what_serves(workloads: Sequence[WasmWorkload], running: Runs, ledger: Ledger) -> None:
    """A revision serves once it has answered, until another of the same workload does, or the workload is gone."""
    for claim, (workload, revision) in running.items():
        entry = ledger.last.get(revision.name)
        if workload.spec.run.http is not None and entry is not None and entry.state is WorkloadState.RUNNING:
            ledger.serving[claim.uid] = revision
    there = {it.metadata.uid for it in workloads if it.spec.run.http is not None}
    ledger.serving = {uid: revision for uid, revision in ledger.serving.items() if uid in there}


def deal_ports(pool: InstancePool, workloads: Sequence[WasmWorkload], ledger: Ledger) -> None:
    """The lowest that are free, in the order of the manifests; without one a workload waits."""
    wanted = [it.metadata.uid for it in workloads if it.spec.run.http is not None]
    ledger.ports = {uid: port for uid, port in ledger.ports.items() if uid in wanted}
    first, last = map(int, pool.spec.http.port_range.split("-"))
    free = (port for port in range(first, last + 1) if port not in set(ledger.ports.values()))
    for uid in wanted:
        if uid not in ledger.ports:
            port = next(free, None)
            if port is not None:
                ledger.ports[uid] = port


def outgoing(
    workloads: Sequence[WasmWorkload], running: Runs, ledger: Ledger
) -> dict[Claim, tuple[WasmWorkload, Revision]]:
    """Revisions that answer until their successors do."""
    by_uid = {it.metadata.uid: it for it in workloads}
    return {
        Claim(uid, revision.name): (by_uid[uid], revision)
        for uid, revision in ledger.serving.items()
        if Claim(uid, revision.name) not in running
    }


def borrows(workload: WasmWorkload) -> bool:
    """Whether it answers without a reservation, too."""
    return bool(workload.spec.burst) and workload.spec.run.http is not None
