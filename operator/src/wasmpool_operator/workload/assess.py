"""From a workload and what is known of its module to a verdict: may it hold slots, and with which revision? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from wasmpool_api.admission import judge_for
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import NodeWorkload, WorkloadState
from wasmpool_api.not_yet import workload_not_yet
from wasmpool_api.reasons import Outcome, Progress, Refusal, Waiting
from wasmpool_api.revisions import Revision, revision_of
from wasmpool_api.wasm_workload import ModuleStatus, WasmWorkload
from wasmpool_operator.conditions import Finding, Truth
from wasmpool_operator.views import PoolKey
from wasmpool_operator.workload.reports import Report


@dataclass(frozen=True, slots=True)
class Assessment:
    """`revision`: to be inspected, or, once `module` is known, to be run. `refusing`: nodes whose agents won't run it.

    Invariant: `admitted` implies that `module` is known and that no limit of the pool refuses it.
    """

    workload: WasmWorkload
    revision: Revision
    module: ModuleStatus | None
    module_valid: Finding
    admission: Finding
    inspect: bool = False
    refusing: frozenset[str] = frozenset()
    banned: bool = False
    """Nothing of it may hold a slot, not even an older revision."""

    @property
    def admitted(self) -> bool:
        """Whether slots may be reserved for `revision`."""
        return self.admission.truth is Truth.TRUE

    @property
    def refused(self) -> bool:
        """Whether somebody must change something before it can run."""
        return self.admission.truth is Truth.FALSE


def assess(
    workload: WasmWorkload,
    pool: InstancePool | None,
    key: PoolKey,
    *,
    not_allowed: str | None,
    any_node_ready: bool,
    reports: Sequence[Report],
) -> Assessment:
    """`not_allowed`: why the workload's namespace may not use the pool. `reports`: what agents say of the workload."""
    pinned = _pinned(workload, reports)
    revision = revision_of(workload, pinned.digest if pinned is not None else "")

    def outcome(truth: Truth, reason: str, message: str, *, banned: bool = False) -> Assessment:
        valid = _module_valid(pinned, reason, message)
        return Assessment(workload, revision, pinned, valid, Finding("Admitted", truth, reason, message), banned=banned)

    if pool is None:
        return outcome(Truth.UNKNOWN, Waiting.POOL_NOT_FOUND, f"there is no InstancePool {key}")
    if pool.metadata.deletion_timestamp is not None:
        return outcome(Truth.UNKNOWN, Waiting.POOL_DRAINING, f"InstancePool {key} is being deleted")
    if not_allowed is not None:
        return outcome(Truth.FALSE, Refusal.NAMESPACE_NOT_ALLOWED, not_allowed, banned=True)
    unsupported = workload_not_yet(workload.spec)
    if unsupported is not None:
        return outcome(Truth.FALSE, Refusal.UNSUPPORTED_FEATURE, unsupported)
    if pinned is None or pinned.needs is None:
        return _inspection(workload, revision, any_node_ready=any_node_ready, key=key, reports=reports)
    verdict = judge_for(pinned.needs, pool.spec, workload.spec.limits, pool.metadata.name)
    if not verdict.admitted:
        return outcome(Truth.FALSE, verdict.reason, verdict.message)
    refusals = [it for it in reports if it.member.fresh and _refuses(it.entry, revision.name)]
    if refusals:
        entry, node = refusals[0].entry, refusals[0].member.name
        reason = entry.reason or Refusal.UNSUPPORTED_FEATURE
        valid = _module_valid(pinned, reason, entry.message)
        return Assessment(
            workload,
            revision,
            pinned,
            valid,
            Finding("Admitted", Truth.FALSE, reason, f"node {node}: {entry.message}"),
            refusing=frozenset(it.member.name for it in refusals),
        )
    return outcome(Truth.TRUE, Outcome.ADMITTED, verdict.message)


def _inspection(
    workload: WasmWorkload, revision: Revision, *, any_node_ready: bool, key: PoolKey, reports: Sequence[Report]
) -> Assessment:
    entry = next((it.entry for it in reports if it.member.fresh and it.entry.revision == revision.name), None)

    def outcome(truth: Truth, reason: str, message: str) -> Assessment:
        return Assessment(
            workload,
            revision,
            None,
            _module_valid(None, reason, message),
            Finding("Admitted", truth, reason, message),
            inspect=True,
        )

    if entry is not None and entry.state is WorkloadState.REFUSED:
        return outcome(Truth.FALSE, entry.reason or Refusal.MODULE_INVALID, entry.message)
    if entry is not None and entry.reason:
        return outcome(Truth.UNKNOWN, entry.reason, entry.message)
    if not any_node_ready:
        return outcome(
            Truth.UNKNOWN,
            Waiting.NO_READY_NODES,
            f"pool {key} has no ready node to inspect the module on; its Ready condition says why",
        )
    if entry is not None and entry.state is WorkloadState.PULLING:
        return outcome(Truth.UNKNOWN, Progress.PULLING, "the module is being fetched")
    return outcome(Truth.UNKNOWN, Progress.INSPECTING, "the module is being inspected")


def _pinned(workload: WasmWorkload, reports: Sequence[Report]) -> ModuleStatus | None:
    """The module of the workload's present version, if some agent has inspected it: now, or as status remembers it."""
    known = workload.status.module
    if known is not None and known.digest and known.needs is not None:  # noqa: SIM102 - one thing after the other
        if revision_of(workload, known.digest).name == workload.status.updated_revision:
            return known
    inspected = revision_of(workload).name
    for report in reports:
        module = report.entry.module
        if report.entry.revision == inspected and module is not None and module.digest and module.needs is not None:
            return module
    return None


def _module_valid(module: ModuleStatus | None, reason: str, message: str) -> Finding:
    if reason == Refusal.MODULE_INVALID:
        return Finding("ModuleValid", Truth.FALSE, reason, message)
    if module is not None:
        return Finding("ModuleValid", Truth.TRUE, Outcome.MODULE_VALID, module.digest)
    return Finding("ModuleValid", Truth.UNKNOWN, reason, message)


def _refuses(entry: NodeWorkload, revision: str) -> bool:
    return entry.revision == revision and entry.state is WorkloadState.REFUSED
