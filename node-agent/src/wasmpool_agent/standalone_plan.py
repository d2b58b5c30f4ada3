"""What the operator does in a cluster, for one node without one: inspect, judge, reserve, deal out indexes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.standalone_serving import Ledger, Runs, borrows, deal_ports, note_what_serves, outgoing
from wasmpool_api.indexes import format_indexes
from wasmpool_api.instance_pool import From, InstancePool
from wasmpool_api.instance_pool_node import Assignment, InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.not_yet import workload_not_yet
from wasmpool_api.placement import Claim, NamespaceLimit, Node, Placement, Request, place
from wasmpool_api.reasons import PERMANENT, Outcome, Progress, Refusal, Waiting
from wasmpool_api.revisions import Revision, revision_of
from wasmpool_api.wasm_workload import ComponentHost, RestartPolicy, WasmWorkload

NODE: Final = "local"
SERVE_HOST: Final = "127.0.0.1"
"""Without a cluster, workloads answer on this machine alone."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where a workload stands. `settled`: nothing more happens to it without somebody changing something.

    `component_host`: of a component that is compiled.
    """

    namespace: str
    name: str
    state: WorkloadState
    reason: str
    message: str = ""
    settled: bool = False
    component_host: ComponentHost | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Assignments for the node, the revisions that they name, and a report for each workload."""

    assignments: tuple[Assignment, ...]
    revisions: Mapping[str, Revision]
    reports: tuple[Report, ...]


def plan(
    pool: InstancePool, workloads: Sequence[WasmWorkload], status: InstancePoolNodeStatus | None, ledger: Ledger
) -> Plan:
    """Changes `ledger` in what is out; calling it again with the same arguments gives the same plan."""
    inspecting: list[tuple[WasmWorkload, Revision]] = []
    running: dict[Claim, tuple[WasmWorkload, Revision]] = {}
    reports: dict[str, Report] = {}
    for workload in workloads:
        refused = _refused(pool, workload)
        if refused is not None:
            reports[_label(workload)] = refused
            continue
        first = revision_of(workload)
        module = ledger.modules.get(first.name)
        if module is None:
            inspecting.append((workload, first))
        else:
            revision = revision_of(workload, module.digest, module.image)
            running[Claim(workload.metadata.uid, revision.name)] = (workload, revision)
    note_what_serves(workloads, running, ledger)
    deal_ports(pool, workloads, ledger)
    leaving = outgoing(workloads, running, ledger)
    placements = _placements(pool, running | leaving, status, ledger)
    assignments: list[Assignment] = []
    revisions: dict[str, Revision] = {}
    for workload, revision in inspecting:
        assignments.append(_assignment(workload, revision, ledger, inspect=True))
        revisions[revision.name] = revision
        reports[_label(workload)] = _inspection_report(workload, ledger.last.get(revision.name))
    for claim, (workload, revision) in running.items():
        placed = placements[claim]
        indexes = _deal(workload, revision, placed.total, ledger)
        ledger.slots[revision.name] = placed.total
        # NB: one that the agent refused stays assigned without a slot, so that it goes on saying why.
        if placed.total or borrows(workload) or _is_refused(ledger.last.get(revision.name)):
            dealt = format_indexes(indexes)
            assignments.append(_assignment(workload, revision, ledger, slots=placed.total, indexes=dealt))
        revisions[revision.name] = revision
        reports[_label(workload)] = _report(workload, revision, placed, ledger)
    for claim, (workload, revision) in leaving.items():
        slots = ledger.slots[revision.name] = placements[claim].total
        assignments.append(_assignment(workload, revision, ledger, slots=slots, outdated=True))
        revisions[revision.name] = revision
    return Plan(tuple(assignments), revisions, tuple(reports[_label(it)] for it in workloads))


def _label(workload: WasmWorkload) -> str:
    return f"{workload.metadata.namespace}/{workload.metadata.name}"


def _refused(pool: InstancePool, workload: WasmWorkload) -> Report | None:
    """What needs no look at the module."""
    namespace, name = workload.metadata.namespace, workload.metadata.name
    wanted = f"{workload.spec.pool_ref.namespace or namespace}/{workload.spec.pool_ref.name}"
    served = f"{pool.metadata.namespace or 'default'}/{pool.metadata.name}"
    if wanted != served:
        message = f"spec.poolRef is {wanted}, this agent serves {served}"
        return Report(namespace, name, WorkloadState.PENDING, Waiting.POOL_NOT_FOUND, message, settled=True)
    allowed = pool.spec.tenancy.allowed_namespaces.from_
    if allowed is not From.ALL and namespace != (pool.metadata.namespace or "default"):
        message = f"namespace {namespace} may not use pool {served}: tenancy.allowedNamespaces.from is {allowed.value}"
        if allowed is From.SELECTOR:
            message += ", and without a cluster namespaces have no labels to select by"
        return Report(namespace, name, WorkloadState.REFUSED, Refusal.NAMESPACE_NOT_ALLOWED, message, settled=True)
    unsupported = workload_not_yet(workload.spec)
    if unsupported is not None:
        return Report(namespace, name, WorkloadState.REFUSED, Refusal.UNSUPPORTED_FEATURE, unsupported, settled=True)
    return None


def _placements(
    pool: InstancePool,
    running: Runs,
    status: InstancePoolNodeStatus | None,
    ledger: Ledger,
) -> dict[Claim, Placement]:
    slots = status.slots if status is not None else None
    if slots is None:
        return {claim: Placement({}) for claim in running}
    entries = status.workloads if status is not None else ()
    node = Node(
        name=NODE,
        slots=slots.allocatable,
        capacity=slots.capacity,
        promised={Claim(it.uid, it.revision): it.reserved_slots for it in entries if it.reserved_slots},
    )
    requests = [_request(claim, workload, revision, ledger) for claim, (workload, revision) in running.items()]
    share = pool.spec.tenancy.max_share.of_rounded_down(slots.capacity)
    limit = NamespaceLimit(share, f"tenancy.maxShare {pool.spec.tenancy.max_share.to_builtin()}")
    namespaces = {workload.metadata.namespace for workload, _ in running.values()}
    limits = dict.fromkeys(namespaces, limit) if share < slots.capacity else {}
    return place(pool.metadata.name, [node], requests, limits)


def _request(claim: Claim, workload: WasmWorkload, revision: Revision, ledger: Ledger) -> Request:
    spec, held = workload.spec, ledger.slots.get(revision.name, 0)
    wanted, minimum = spec.instances, spec.min_instances_or_default
    if _is_refused(ledger.last.get(revision.name)):
        wanted = held = 0
    elif spec.runs_to_completion:
        left = len(_left(workload, revision, ledger))
        held = len(ledger.out.get(revision.name, frozenset()) - ledger.done.get(revision.name, frozenset()))
        wanted, minimum = left, min(minimum, left) if not ledger.done.get(revision.name) else 1
    return Request(
        claim=claim,
        namespace=workload.metadata.namespace,
        name=workload.metadata.name,
        wanted=wanted,
        minimum=minimum,
        priority=spec.priority,
        max_per_node=spec.placement.max_per_node,
        held={NODE: held} if held else {},
        movable=not spec.runs_to_completion,
        in_turns=spec.runs_to_completion,
    )


def _left(workload: WasmWorkload, revision: Revision, ledger: Ledger) -> list[int]:
    done = ledger.done.get(revision.name, frozenset())
    return [index for index in range(workload.spec.instances) if index not in done]


def _deal(workload: WasmWorkload, revision: Revision, slots: int, ledger: Ledger) -> frozenset[int]:
    """First what is out already, then the lowest that are left."""
    if not workload.spec.runs_to_completion:
        return frozenset()
    left = _left(workload, revision, ledger)
    out = ledger.out.get(revision.name, frozenset())
    dealt = frozenset([*(it for it in left if it in out), *(it for it in left if it not in out)][:slots])
    ledger.out[revision.name] = dealt
    return dealt


def _assignment(
    workload: WasmWorkload,
    revision: Revision,
    ledger: Ledger,
    *,
    slots: int = 0,
    indexes: str = "",
    inspect: bool = False,
    outdated: bool = False,
) -> Assignment:
    return Assignment(
        uid=workload.metadata.uid,
        namespace=workload.metadata.namespace,
        name=workload.metadata.name,
        revision=revision.name,
        slots=slots,
        priority=workload.spec.priority,
        indexes=indexes,
        inspect=inspect,
        outdated=outdated,
        burst=0 if inspect else workload.spec.burst,
        port=0 if inspect else ledger.ports.get(workload.metadata.uid, 0),
    )


def _is_refused(entry: NodeWorkload | None) -> bool:
    return entry is not None and entry.state is WorkloadState.REFUSED


def _inspection_report(workload: WasmWorkload, entry: NodeWorkload | None) -> Report:
    namespace, name = workload.metadata.namespace, workload.metadata.name
    if entry is None:
        return Report(namespace, name, WorkloadState.PENDING, Progress.INSPECTING)
    failed = entry.reason in PERMANENT or entry.reason in {Waiting.MODULE_PULL_FAILED, Waiting.COMPILE_FAILED}
    return Report(namespace, name, entry.state, entry.reason, entry.message, settled=failed)


def _report(workload: WasmWorkload, revision: Revision, placed: Placement, ledger: Ledger) -> Report:
    namespace, name = workload.metadata.namespace, workload.metadata.name
    entry = ledger.last.get(revision.name)
    if entry is not None and _is_refused(entry):
        return Report(namespace, name, entry.state, entry.reason, entry.message, settled=True)
    if workload.spec.runs_to_completion and not _left(workload, revision, ledger):
        return _finished(workload, entry, len(ledger.failed.get(revision.name, ())))
    if not placed.total and not borrows(workload):
        if placed.shortfall is None:
            nothing = workload.spec.instances == 0
            return Report(namespace, name, WorkloadState.PENDING, Outcome.ADMITTED, settled=nothing)
        why, told = placed.shortfall.reason, placed.shortfall.message
        return Report(namespace, name, WorkloadState.PENDING, why, told, settled=why in PERMANENT)
    if entry is None:
        return Report(namespace, name, WorkloadState.PENDING, Outcome.ADMITTED, f"slots reserved: {placed.total}")
    failed = entry.reason in {Waiting.MODULE_PULL_FAILED, Waiting.COMPILE_FAILED}
    state, reason, message = entry.state, entry.reason, entry.message
    if workload.spec.run.http is not None and state is WorkloadState.RUNNING:
        answers = f"answers on http://{SERVE_HOST}:{ledger.ports.get(workload.metadata.uid, 0)}"
        message = f"{answers}; the last failure: {message}" if message else answers
    if workload.spec.runs_to_completion and state is WorkloadState.SUCCEEDED:  # so far: others are still to run
        total = workload.spec.instances
        done = total - len(_left(workload, revision, ledger)) - len(ledger.failed.get(revision.name, ()))
        state, reason, message = WorkloadState.RUNNING, Outcome.RUNNING, f"{done} of {total} succeeded"
    host = entry.component_host
    return Report(namespace, name, state, reason, message, settled=failed, component_host=host)


def _finished(workload: WasmWorkload, entry: NodeWorkload | None, failed: int) -> Report:
    total = workload.spec.instances
    message = f"{total - failed} of {total} succeeded"
    if failed and entry is not None and entry.message:
        message += f"; {entry.message}"
    state = WorkloadState.FAILED if failed else WorkloadState.SUCCEEDED
    reason = Outcome.FAILED if failed else Outcome.SUCCEEDED
    host = entry.component_host if entry is not None else None
    namespace, name = workload.metadata.namespace, workload.metadata.name
    return Report(namespace, name, state, reason, message, settled=True, component_host=host)


def never_ending(workloads: Sequence[WasmWorkload]) -> list[str]:
    """Those for whose end nobody need wait, as namespace/name."""
    return [_label(it) for it in workloads if it.spec.restart_policy is RestartPolicy.ALWAYS and it.spec.instances]
