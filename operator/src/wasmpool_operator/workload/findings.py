"""The conditions of a WasmWorkload. Pure."""

from datetime import datetime

from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.reasons import PERMANENT, TEMPORARY, Outcome, Progress, RolloutReason
from wasmpool_api.wasm_workload import Rollout
from wasmpool_operator.conditions import Finding, Truth, condition_of
from wasmpool_operator.workload.borrowing import borrows_only
from wasmpool_operator.workload.completions import Completions
from wasmpool_operator.workload.progress import stalled
from wasmpool_operator.workload.standing import Standing, running


def findings_of(standing: Standing, rollout: Rollout | None, now: datetime) -> tuple[Finding, ...]:
    """All of them. `rollout`: see `standing.rolling_out`."""
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
    count = running(standing)
    desired = assessment.workload.spec.instances
    if completions is not None:
        desired = max(0, min(standing.reserved, desired)) or 1
    if borrows_only(assessment):
        return _ready_to_borrow(standing)
    if assessment.admitted and completions is None and not desired:
        return Finding("Ready", Truth.TRUE, RolloutReason.SCALED_TO_ZERO, "no instances wanted")
    message = f"{count} of {desired} running"
    if count >= desired and standing.shortfall is None:
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
