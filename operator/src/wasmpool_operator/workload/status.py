"""The status of a WasmWorkload. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import PoolWorkloads
from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.meta import API_VERSION, WASM_WORKLOAD, WORKLOAD_UID_LABEL
from wasmpool_api.reasons import PERMANENT
from wasmpool_api.wasm_workload import WasmWorkloadStatus, WorkloadInstances, WorkloadNode
from wasmpool_operator.actions import WriteStatus
from wasmpool_operator.conditions import merged
from wasmpool_operator.events import regarding, workload_notes
from wasmpool_operator.workload.findings import findings_of
from wasmpool_operator.workload.standing import Standing, rolling_out, running

NODES_SHOWN = 10


def status_action(standing: Standing, now: datetime) -> WriteStatus | None:
    """Writes the status, if there is anything new in it."""
    workload = standing.assessment.workload
    status = status_of(standing, now)
    if status == workload.status:
        return None
    return WriteStatus(
        {
            "apiVersion": API_VERSION,
            "kind": WASM_WORKLOAD,
            "metadata": {
                "name": workload.metadata.name,
                "namespace": workload.metadata.namespace,
                "uid": workload.metadata.uid,
            },
            "status": encode(status),
        },
        about=regarding(workload),
        notes=workload_notes(workload.status, status),
    )


def status_of(standing: Standing, now: datetime) -> WasmWorkloadStatus:
    """The whole status."""
    assessment, workload = standing.assessment, standing.assessment.workload
    # NB: `updated_revision` also says whether the module is pinned: see `pinning.Pin`.
    target = assessment.revision.name if assessment.module is not None else ""
    rollout = rolling_out(standing, now)
    findings = findings_of(standing, rollout, now)
    return WasmWorkloadStatus(
        observed_generation=workload.metadata.generation,
        selector=f"{WORKLOAD_UID_LABEL}={workload.metadata.uid}",
        current_revision=_current_revision(standing, target if assessment.revision.digest else ""),
        updated_revision=target or workload.status.updated_revision,
        instances=WorkloadInstances(
            desired=workload.spec.instances,
            reserved=standing.reserved,
            ready=running(standing),
            succeeded=standing.completions.succeeded if standing.completions is not None else 0,
            failed=standing.completions.failed if standing.completions is not None else 0,
        ),
        rollout=rollout,
        module=assessment.module or workload.status.module,
        nodes=_nodes(standing),
        completions=standing.completions.text if standing.completions is not None else "",
        address=standing.address,
        conditions=merged(workload.status.conditions, findings, generation=workload.metadata.generation, now=now),
    )


def count_of(standing: Standing) -> Literal["admitted", "waiting", "refused"]:
    """How the pool counts it."""
    if standing.assessment.refused:
        return "refused"
    if standing.shortfall is not None:
        return "refused" if standing.shortfall.reason in PERMANENT and not standing.reserved else "waiting"
    return "admitted" if standing.assessment.admitted else "waiting"


def would_refuse(standing: Standing) -> bool:
    """Whether it is admitted only because the pool's admission.mode is Count."""
    return count_of(standing) == "admitted" and standing.assessment.would_refuse


def _current_revision(standing: Standing, target: str) -> str:
    """The revision that the instances run: the old one until nothing of it is left."""
    known = standing.assessment.workload.status.current_revision
    older = any(nodes for revision, nodes in standing.slots.items() if revision != target)
    if not known or not older:
        return target or known
    return known


def _nodes(standing: Standing) -> tuple[WorkloadNode, ...]:
    slots: dict[str, int] = {}
    for nodes in standing.slots.values():
        for name, count in nodes.items():
            slots[name] = slots.get(name, 0) + count
    entries = {report.member.name: report for report in standing.reports if report.member.fresh}
    for report in standing.reports:
        if report.member.fresh and report.entry.revision == standing.assessment.revision.name:
            entries[report.member.name] = report
    shown = sorted(slots.keys() | entries.keys())[:NODES_SHOWN]
    return tuple(
        WorkloadNode(
            node_name=name,
            slots=slots.get(name, 0),
            state=entries[name].entry.state.value if name in entries else WorkloadState.PENDING.value,
            reason=entries[name].entry.reason if name in entries else "",
            component_host=entries[name].entry.component_host if name in entries else None,
        )
        for name in shown
    )


def counts(standings: Sequence[Standing]) -> PoolWorkloads:
    """Of one pool's workloads."""
    kinds = [count_of(standing) for standing in standings]
    return PoolWorkloads(
        admitted=kinds.count("admitted"),
        waiting=kinds.count("waiting"),
        refused=kinds.count("refused"),
        would_refuse=sum(would_refuse(standing) for standing in standings),
    )
