"""From a workload and what is known of its module to a verdict: may it hold slots, and with which revision? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from wasmpool_api.admission import Verdict, judge_for
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import NodeWorkload, WorkloadState
from wasmpool_api.limits import WASM_PAGE_BYTES
from wasmpool_api.not_yet import workload_not_yet
from wasmpool_api.reasons import TEMPORARY, Outcome, Progress, Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import ModuleStatus, WasmWorkload
from wasmpool_operator.conditions import Finding, Truth
from wasmpool_operator.pool.members import Member
from wasmpool_operator.views import PoolKey
from wasmpool_operator.workload.pinning import Pin, pin_of
from wasmpool_operator.workload.reports import Place, Report
from wasmpool_operator.workload.revisions import Past

_OF_THE_MODULE: Final = frozenset({Refusal.MODULE_INVALID, Refusal.UNSUPPORTED_FEATURE})
"""Refusals that one agent gives as well as another: the rest is about the node, or about limits that it goes by."""
_RAN: Final = frozenset({WorkloadState.RUNNING, WorkloadState.SUCCEEDED})


@dataclass(frozen=True, slots=True)
class Assessment:
    """`revision`: to be inspected, or, once its module is pinned, to be run.

    `refusing`: nodes whose agents won't run it; where others may, it is admitted for all that. `too_small`: nodes whose
    slots are smaller than its memory, as those of an earlier version of the pool may be. `inspect`: some node has to
    look at the module, for the first time or again. `would_refuse`: admitted only because the pool's admission.mode is
    Count.

    Invariant: `admitted` implies that `revision` has a digest and that no limit of the pool refuses it.
    """

    workload: WasmWorkload
    revision: Revision
    module: ModuleStatus | None
    module_valid: Finding
    admission: Finding
    inspect: bool = False
    refusing: frozenset[str] = frozenset()
    too_small: frozenset[str] = frozenset()
    banned: bool = False
    """Nothing of it may hold a slot, not even an older revision."""
    would_refuse: bool = False

    @property
    def inspection(self) -> Revision:
        """The revision to be inspected: the same, without a digest."""
        return msgspec.structs.replace(self.revision, digest="", image="")

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
    places: Sequence[Place] = (),
    nodes: Sequence[Member] = (),
    pasts: Sequence[Past] = (),
) -> Assessment:
    """`not_allowed`: why the workload's namespace may not use the pool. `reports`: what agents say of the workload.

    `places`: what the nodes' present specs have of it. `pasts`: what it ran before. `nodes`: those it could be on.
    """
    pin = pin_of(workload, reports, places, pasts)
    if pool is None:
        message = f"there is no InstancePool {key}"
        if not workload.spec.pool_ref.namespace:
            message += "; a pool of another namespace is named with poolRef.namespace"
        return _assessment(pin, Truth.UNKNOWN, Waiting.POOL_NOT_FOUND, message)
    if pool.metadata.deletion_timestamp is not None:
        return _assessment(pin, Truth.UNKNOWN, Waiting.POOL_DRAINING, f"InstancePool {key} is being deleted")
    if not_allowed is not None:
        return _assessment(pin, Truth.FALSE, Refusal.NAMESPACE_NOT_ALLOWED, not_allowed, banned=True)
    unsupported = workload_not_yet(workload.spec)
    if unsupported is not None:
        return _assessment(pin, Truth.FALSE, Refusal.UNSUPPORTED_FEATURE, unsupported)
    verdict = _verdict(pin, pool)
    if not pin.fixed:
        return _loose(pin, verdict, reports, nodes, any_node_ready=any_node_ready, key=key)
    if verdict is not None and not verdict.admitted:
        if pin.held(reports, places):
            return _assessment(pin, Truth.FALSE, verdict.reason, verdict.message)
        return _loose(pin.loosen(), verdict, reports, nodes, any_node_ready=any_node_ready, key=key)
    found = _fixed(pin, verdict, reports, nodes)
    successor = pin.successor()
    if found.refused and found.refusing and successor is not None and not pin.held(reports, places):
        return _loose(successor, _verdict(successor, pool), reports, nodes, any_node_ready=any_node_ready, key=key)
    return found


def _verdict(pin: Pin, pool: InstancePool) -> Verdict | None:
    if pin.module is None or pin.module.needs is None:
        return None
    limits = pin.workload.spec.limits
    return judge_for(pin.module.needs, pool.spec, limits, pool.metadata.name, sums=pin.module.component)


def _fixed(pin: Pin, verdict: Verdict | None, reports: Sequence[Report], nodes: Sequence[Member]) -> Assessment:
    """One that no limit refuses. What one node says holds for the others only if they have not shown otherwise."""
    refusals = [it for it in reports if it.member.fresh and _refuses(pin, it.entry)]
    refusing = frozenset(it.member.name for it in refusals)
    messages = [verdict.message] if verdict is not None and verdict.message else []
    if refusals:
        entry, node = refusals[0].entry, refusals[0].member.name
        reason = entry.reason or Refusal.UNSUPPORTED_FEATURE
        if {it.name for it in nodes} <= refusing or (_of_the_module(refusals) and not _runs(pin, reports)):
            return Assessment(
                pin.workload,
                pin.revision,
                pin.module,
                _module_valid(pin.module, reason, entry.message),
                Finding("Admitted", Truth.FALSE, reason, f"node {node}: {entry.message}"),
                inspect=pin.changeable,
                refusing=refusing,
            )
        messages.extend(f"not on node {it.member.name}: {it.entry.reason}: {it.entry.message}" for it in refusals[:1])
    would_refuse = verdict is not None and verdict.would_refuse
    found = _assessment(pin, Truth.TRUE, Outcome.ADMITTED, "; ".join(messages), would_refuse=would_refuse)
    return replace(found, refusing=refusing, too_small=_too_small(pin, nodes))


def _loose(
    pin: Pin,
    verdict: Verdict | None,
    reports: Sequence[Report],
    nodes: Sequence[Member],
    *,
    any_node_ready: bool,
    key: PoolKey,
) -> Assessment:
    """One whose module may still become another: fixed here as soon as it was seen, and nobody refuses it.

    NB: limits that admit it now are not enough. It may have been mended meanwhile, and what is pinned must be there.
    """
    sighting = pin.sighting
    if sighting is not None and sighting.reason in TEMPORARY:
        return _assessment(pin, Truth.UNKNOWN, sighting.reason, sighting.message, inspect=True)
    if verdict is not None and not verdict.admitted:
        inspect = pin.changeable
        return _assessment(pin, Truth.FALSE, verdict.reason, verdict.message, inspect=inspect)
    if sighting is not None and sighting.state is WorkloadState.REFUSED:
        if verdict is not None and sighting.reason == Refusal.EXCEEDS_MODULE_LIMITS:
            message = f"{verdict.message}; the agent on node {pin.node} goes by older ones: {sighting.message}"
            return _assessment(pin, Truth.UNKNOWN, Progress.INSPECTING, message, inspect=True)
        reason = sighting.reason or Refusal.MODULE_INVALID
        return _assessment(pin, Truth.FALSE, reason, sighting.message, inspect=True)
    if verdict is not None and pin.found is not None:
        return _fixed(pin.fix(), verdict, reports, nodes)
    if not any_node_ready:
        message = f"pool {key} has no ready node to inspect the module on; its Ready condition says why"
        return _assessment(pin, Truth.UNKNOWN, Waiting.NO_READY_NODES, message, inspect=True)
    if sighting is not None and sighting.state is WorkloadState.PULLING:
        return _assessment(pin, Truth.UNKNOWN, Progress.PULLING, "the module is being fetched", inspect=True)
    return _assessment(pin, Truth.UNKNOWN, Progress.INSPECTING, "the module is being inspected", inspect=True)


def _assessment(
    pin: Pin,
    truth: Truth,
    reason: str,
    message: str,
    *,
    inspect: bool = False,
    banned: bool = False,
    would_refuse: bool = False,
) -> Assessment:
    return Assessment(
        pin.workload,
        pin.revision,
        pin.module,
        _module_valid(pin.module, reason, message),
        Finding("Admitted", truth, reason, message),
        inspect=inspect,
        banned=banned,
        would_refuse=would_refuse,
    )


def _module_valid(module: ModuleStatus | None, reason: str, message: str) -> Finding:
    if reason == Refusal.MODULE_INVALID:
        return Finding("ModuleValid", Truth.FALSE, reason, message)
    if module is not None:
        return Finding("ModuleValid", Truth.TRUE, Outcome.MODULE_VALID, module.digest)
    return Finding("ModuleValid", Truth.UNKNOWN, reason, message)


def _refuses(pin: Pin, entry: NodeWorkload) -> bool:
    """NB: of runs that are counted, one that still goes on there must not begin elsewhere."""
    goes_on = pin.workload.spec.runs_to_completion and entry.used_slots
    return entry.revision == pin.revision.name and entry.state is WorkloadState.REFUSED and not goes_on


def _of_the_module(refusals: Sequence[Report]) -> bool:
    return any(it.entry.reason in _OF_THE_MODULE or not it.entry.reason for it in refusals)


def _runs(pin: Pin, reports: Sequence[Report]) -> bool:
    """Whether some node does run it, which proves that it can be."""
    name = pin.revision.name
    return any(it.current and it.entry.revision == name and it.entry.state in _RAN for it in reports)


def _too_small(pin: Pin, nodes: Sequence[Member]) -> frozenset[str]:
    needs = pin.module.needs if pin.module is not None else None
    if needs is None:
        return frozenset()
    found = ((it.name, it.status.memory) for it in nodes if it.status is not None)
    return frozenset(
        name
        for name, memory in found
        if memory is not None and memory.slot_bytes < needs.memory_pages * WASM_PAGE_BYTES
    )
