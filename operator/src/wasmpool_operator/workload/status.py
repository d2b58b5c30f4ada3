"""The status of a WasmWorkload. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.meta import API_VERSION, WASM_WORKLOAD, WORKLOAD_UID_LABEL
from wasmpool_api.placement import Shortfall
from wasmpool_api.reasons import PERMANENT, TEMPORARY, Outcome, Progress, RolloutReason
from wasmpool_api.wasm_workload import Rollout, WasmWorkloadStatus, WorkloadInstances, WorkloadNode
from wasmpool_operator.actions import WriteStatus
from wasmpool_operator.conditions import Finding, Truth, condition_of, merged
from wasmpool_operator.events import regarding, workload_notes
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.borrowing import borrows_only
from wasmpool_operator.workload.completions import Completions
from wasmpool_operator.workload.progress import rollout_of, stalled
from wasmpool_operator.workload.reports import Report, running_instances

NODES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a workload after placement. `slots`: by revision and node, as the specs will have them.

    `address`: where its Service is, once there is one. `assigned`: revisions that nodes are told to run, with slots or
    without.
    """

    assessment: Assessment
    slots: Mapping[str, Mapping[str, int]]
    shortfall: Shortfall | None
    reports: tuple[Report, ...]
    completions: Completions | None
    address: str = ""
    assigned: frozenset[str] = frozenset()

    @property
    def older(self) -> frozenset[str]:
        """Revisions that the present one has still to replace."""
        return self.assigned - {self.assessment.revision.name}

    @property
    def serves(self) -> bool:
        """Whether it answers requests."""
        return self.assessment.workload.spec.run.http is not None

    @property
    def reserved(self) -> int:
        """Slots over all revisions and nodes."""
        return sum(sum(nodes.values()) for nodes in self.slots.values())

    @property
    def must_be_recorded(self) -> bool:
        """Whether the status will hold something that the agents forget once their assignment changes."""
        status = self.assessment.workload.status
        counted = self.completions is not None and self.completions.text != status.completions
        module, revision = self.assessment.module, self.assessment.revision
        inspected = module is not None and module != status.module
        return counted or inspected or (bool(revision.digest) and revision.name != status.updated_revision)


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
    findings = _findings(standing, rollout, now)
    return WasmWorkloadStatus(
        observed_generation=workload.metadata.generation,
        selector=f"{WORKLOAD_UID_LABEL}={workload.metadata.uid}",
        current_revision=_current_revision(standing, target if assessment.revision.digest else ""),
        updated_revision=target or workload.status.updated_revision,
        instances=WorkloadInstances(
            desired=workload.spec.instances,
            reserved=standing.reserved,
            ready=_running(standing),
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


def rolling_out(standing: Standing, now: datetime) -> Rollout | None:
    """How far the present revision has come, while an older one is there and it may take over."""
    assessment = standing.assessment
    if assessment.refused:
        return None
    target = assessment.revision.name
    return rollout_of(
        assessment.workload,
        target,
        standing.older,
        reserved=sum(standing.slots.get(target, {}).values()),
        ready=_running(standing, target),
        now=now,
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


def _running(standing: Standing, revision: str = "") -> int:
    """Instances that run; of one revision, or of all."""
    # NB: counted against what is reserved: an agent that has not yet seen a scale-down still reports the old number.
    total = 0
    for report in standing.reports:
        if report.current and revision in {"", report.entry.revision}:
            slots = standing.slots.get(report.entry.revision, {}).get(report.member.name, 0)
            total += min(slots, running_instances(report.entry, serves=standing.serves))
    return total


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
        )
        for name in shown
    )


def _findings(standing: Standing, rollout: Rollout | None, now: datetime) -> tuple[Finding, ...]:
    assessment = standing.assessment
    reserved = _slots_reserved(standing)
    ready = _ready(standing, reserved)
    findings = [assessment.module_valid, assessment.admission, reserved, ready]
    if standing.completions is not None:
        findings.append(_finished(standing, standing.completions, reserved))
    permanent = next(
        (it for it in (assessment.admission, reserved) if it.truth is Truth.FALSE and it.reason in PERMANENT), None
    )
    done = standing.completions is not None and standing.completions.finished
    if permanent is not None:
        findings.append(Finding("Reconciling", Truth.FALSE, permanent.reason, "see Stalled"))
        findings.append(Finding("Stalled", Truth.TRUE, permanent.reason, permanent.message))
        return tuple(findings)
    if rollout is not None:
        trouble = _trouble(standing, rollout.revision)
        found = stalled(assessment.workload, rollout, standing.older, now, trouble[1] if trouble is not None else "")
        if found is not None:
            findings.append(Finding("Reconciling", Truth.FALSE, found.reason, "see Stalled"))
            findings.append(found)
            return tuple(findings)
    settled = done or (ready.truth is Truth.TRUE and _rolled_out(standing))
    if settled:
        findings.append(Finding("Reconciling", Truth.FALSE, RolloutReason.UP_TO_DATE))
    elif ready.truth is Truth.TRUE:
        findings.append(
            Finding("Reconciling", Truth.TRUE, RolloutReason.ROLLING_OUT, "an older version still holds slots")
        )
    else:
        findings.append(Finding("Reconciling", Truth.TRUE, ready.reason, ready.message))
    findings.append(Finding("Stalled", Truth.FALSE, RolloutReason.NOT_STALLED))
    return tuple(findings)


def _rolled_out(standing: Standing) -> bool:
    if standing.completions is not None:
        return True
    return not standing.older


def _slots_reserved(standing: Standing) -> Finding:
    kind = "SlotsReserved"
    assessment, wanted = standing.assessment, standing.assessment.workload.spec.instances
    if standing.completions is not None:
        wanted = len(standing.completions.open)
    if not assessment.admitted and not (standing.reserved and not assessment.refused):
        truth = Truth.FALSE if assessment.refused else Truth.UNKNOWN
        return Finding(kind, truth, assessment.admission.reason, "no slot is held: see Admitted")
    if standing.shortfall is not None:
        return Finding(kind, Truth.FALSE, standing.shortfall.reason, standing.shortfall.message)
    if standing.completions is not None and standing.completions.finished and not standing.reserved:
        return Finding(kind, Truth.TRUE, Outcome.SLOTS_RESERVED, "finished; no slot is held any more")
    nodes = len({name for held in standing.slots.values() for name in held})
    where = f"{standing.reserved} of {wanted} slots on {nodes} {'node' if nodes == 1 else 'nodes'}"
    return Finding(kind, Truth.TRUE, Outcome.SLOTS_RESERVED, where)


def _ready(standing: Standing, reserved: Finding) -> Finding:
    assessment, completions = standing.assessment, standing.completions
    if completions is not None and completions.finished:
        return _outcome("Ready", standing, completions)
    running = _running(standing)
    desired = assessment.workload.spec.instances
    if completions is not None:
        desired = max(0, min(standing.reserved, desired)) or 1
    if borrows_only(assessment):
        return _ready_to_borrow(standing)
    if assessment.admitted and completions is None and not desired:
        return Finding("Ready", Truth.TRUE, RolloutReason.SCALED_TO_ZERO, "no instances wanted")
    message = f"{running} of {desired} running"
    if running >= desired and standing.shortfall is None:
        return Finding("Ready", Truth.TRUE, Outcome.RUNNING, message)
    if assessment.admission.truth is not Truth.TRUE and not standing.reserved:
        return Finding("Ready", assessment.admission.truth, assessment.admission.reason, assessment.admission.message)
    trouble = _trouble(standing)
    if trouble is not None:
        return Finding("Ready", Truth.FALSE, trouble[0], f"{message}; {trouble[1]}")
    if reserved.truth is Truth.FALSE:
        return Finding("Ready", Truth.FALSE, reserved.reason, f"{message}; {reserved.message}")
    return Finding("Ready", Truth.FALSE, *_progress(standing, message))


def _ready_to_borrow(standing: Standing) -> Finding:
    """Of one that has no slot of its own: ready where a node would answer."""
    admission = standing.assessment.admission
    running = (it for it in standing.reports if it.current and it.entry.state is WorkloadState.RUNNING)
    nodes = len({it.member.name for it in running})
    message = f"{nodes} {'node' if nodes == 1 else 'nodes'} serving with borrowed slots"
    if nodes:
        return Finding("Ready", Truth.TRUE, Outcome.RUNNING, message)
    if admission.truth is not Truth.TRUE:
        return Finding("Ready", admission.truth, admission.reason, admission.message)
    trouble = _trouble(standing)
    if trouble is not None:
        return Finding("Ready", Truth.FALSE, trouble[0], f"{message}; {trouble[1]}")
    return Finding("Ready", Truth.FALSE, *_progress(standing, message))


def _trouble(standing: Standing, revision: str = "") -> tuple[str, str] | None:
    """What an agent complains of; of one revision, or of any."""
    for report in standing.reports:
        entry = report.entry
        if revision not in {"", entry.revision}:
            continue
        wanted = _is_assigned(standing, entry.revision) and report.member.fresh
        failed = entry.state in {WorkloadState.BACK_OFF, WorkloadState.REFUSED, WorkloadState.FAILED}
        if wanted and (failed or entry.reason in TEMPORARY):
            reason = entry.reason or (Outcome.BACK_OFF if entry.state is WorkloadState.BACK_OFF else Outcome.FAILED)
            code = f", exit code {entry.exit_code}" if entry.exit_code is not None else ""
            return reason, f"node {report.member.name}: {entry.message or entry.state.value}{code}"
    return None


def _progress(standing: Standing, message: str) -> tuple[str, str]:
    """The reason, and the message with what the agent says of it: whose turn comes before, say."""
    reports = [it for it in standing.reports if it.current and _is_assigned(standing, it.entry.revision)]
    for state, reason in (
        (WorkloadState.PULLING, Progress.PULLING),
        (WorkloadState.COMPILING, Progress.COMPILING),
    ):
        found = [it for it in reports if it.entry.state is state]
        if found:
            said = [f"{message}; node {it.member.name}: {it.entry.message}" for it in found if it.entry.message]
            return reason, said[0] if said else message
    return Progress.STARTING, message


def _is_assigned(standing: Standing, revision: str) -> bool:
    """Whether nodes are to run it, with slots or by borrowing."""
    return revision in standing.assigned or revision in standing.slots


def _finished(standing: Standing, completions: Completions, reserved: Finding) -> Finding:
    if completions.finished:
        return _outcome("Finished", standing, completions, truth=Truth.TRUE)
    out = sum(len(indexes) for indexes in completions.out.values())
    message = f"{len(completions.done)} of {completions.total} done, {out} out, {len(completions.left)} to come"
    message += _last_failure(standing, completions)
    if reserved.truth is Truth.TRUE:
        return Finding("Finished", Truth.FALSE, Outcome.RUNNING, message)
    return Finding("Finished", Truth.FALSE, reserved.reason, message)


def _outcome(kind: str, standing: Standing, completions: Completions, *, truth: Truth | None = None) -> Finding:
    reason = Outcome.FAILED if completions.failed else Outcome.SUCCEEDED
    message = f"{completions.succeeded} succeeded, {completions.failed} failed"
    message += _last_failure(standing, completions)
    return Finding(kind, truth or Truth.of(not completions.failed), reason, message)


def _last_failure(standing: Standing, completions: Completions) -> str:
    """What an agent says of a run that failed; an agent forgets it with the assignment, the condition does not."""
    if not completions.failed:
        return ""
    for report in standing.reports:
        if report.entry.failed and report.entry.message:
            return f"; node {report.member.name}: {report.entry.message}"
    known = condition_of(standing.assessment.workload.status.conditions, "Finished")
    _, separator, failure = known.message.partition("; ") if known is not None else ("", "", "")
    return f"{separator}{failure}"
