"""Http workloads that reserve nothing and serve with borrowed slots alone: on which nodes. Pure.

They hold nothing, so placement has no say in it; but every node that serves keeps the module compiled and a listener
open, so it is a few nodes, and the same ones for as long as they work.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.placement import NodeState
from wasmpool_operator.pool.members import Member
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.reports import Place, Report

MAX_NODES: Final = 10


def borrows_only(assessment: Assessment) -> bool:
    """Whether it is served without a slot of its own."""
    spec = assessment.workload.spec
    return spec.run.http is not None and not spec.instances and spec.burst > 0


def borrowers(
    assessment: Assessment,
    places: Sequence[Place],
    reports: Sequence[Report],
    members: Sequence[Member],
    states: Mapping[str, NodeState],
) -> dict[str, list[str]]:
    """Nodes by revision. An older revision stays on a node until the present one serves there, or may not."""
    if not borrows_only(assessment) or assessment.banned:
        return {}
    target = assessment.revision.name
    older = {
        (it.assignment.revision, it.member.name)
        for it in places
        if not it.assignment.inspect and it.assignment.revision != target
    }
    if not assessment.admitted:
        goes_on = older if assessment.refused else older | _at(places, target)
        return _by_revision(goes_on)
    running = {
        it.member.name
        for it in reports
        if it.current and it.entry.revision == target and it.entry.state is WorkloadState.RUNNING
    }
    chosen = _chosen(assessment, {it.member.name for it in places if not it.assignment.inspect}, members, states)
    wanted = {(target, name) for name in chosen}
    return _by_revision(wanted | {(revision, name) for revision, name in older if name in chosen - running})


def _chosen(
    assessment: Assessment, present: set[str], members: Sequence[Member], states: Mapping[str, NodeState]
) -> set[str]:
    spec, uid = assessment.workload.spec, assessment.workload.metadata.uid
    fitting = [
        it.name
        for it in members
        if states.get(it.name) is NodeState.READY
        and it.node is not None
        and all(it.node.metadata.labels.get(key) == value for key, value in spec.placement.node_selector.items())
    ]
    fitting.sort(key=lambda name: (name not in present, hashlib.sha256(f"{uid}/{name}".encode()).digest()))
    return set(fitting[:MAX_NODES])


def _at(places: Sequence[Place], revision: str) -> set[tuple[str, str]]:
    return {
        (revision, it.member.name) for it in places if it.assignment.revision == revision and not it.assignment.inspect
    }


def _by_revision(found: set[tuple[str, str]]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for revision, name in sorted(found):
        result.setdefault(revision, []).append(name)
    return result
