"""From placements to the specs of InstancePoolNodes. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from wasmpool_api.codec import encode
from wasmpool_api.indexes import format_indexes
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import Assignment
from wasmpool_api.placement import NodeState
from wasmpool_operator.actions import PatchAssignments
from wasmpool_operator.pool.manifests import node_admission
from wasmpool_operator.pool.members import Member
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.reports import Place

if TYPE_CHECKING:
    from wasmpool_operator.ports import Manifest

MAX_ASSIGNMENTS = 1024

Sheet = Mapping[str, Sequence[Assignment]]
"""Assignments by node."""


class Sheets:
    """Collects the assignments of all workloads, node by node. `ports`: of http workloads, by uid."""

    def __init__(self, ports: Mapping[str, int] | None = None) -> None:
        self._nodes: dict[str, list[Assignment]] = defaultdict(list)
        self._holders: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._ports = ports or {}

    def nodes_of(self, uid: str) -> frozenset[str]:
        """Where the workload is to run, or may."""
        return frozenset(node for _, node in self._holders.get(uid, ()))

    def revisions_of(self, uid: str) -> frozenset[str]:
        """Those of the workload that some node is to run, or may."""
        return frozenset(revision for revision, _ in self._holders.get(uid, ()))

    def reserve(
        self, assessment: Assessment, revision: str, slots: Mapping[str, int], indexes: Mapping[str, frozenset[int]]
    ) -> None:
        """`indexes`: per node, for workloads whose completions are counted."""
        for node, count in slots.items():
            given = indexes.get(node, frozenset())
            self._add(node, assessment, revision, slots=count, indexes=format_indexes(given) if given else "")

    def idle(self, assessment: Assessment, nodes: Iterable[str], revision: str = "") -> None:
        """Without a slot: to borrow by its burst, or because a node that refused it must go on saying so."""
        for node in nodes:
            self._add(node, assessment, revision or assessment.revision.name, slots=0, indexes="")

    def inspect(self, assessment: Assessment, node: str) -> None:
        """Fetch and measure the module, holding no slot."""
        metadata = assessment.workload.metadata
        self._nodes[node].append(
            Assignment(
                uid=metadata.uid,
                namespace=metadata.namespace,
                name=metadata.name,
                revision=assessment.inspection.name,
                slots=0,
                priority=assessment.workload.spec.priority,
                inspect=True,
            )
        )

    def of(self, node: str) -> tuple[Assignment, ...]:
        """In an order that only its content decides; inspections give way where there are too many."""
        found = sorted(
            self._nodes.get(node, ()), key=lambda it: (it.namespace, it.name, it.uid, it.revision, it.inspect)
        )
        if len(found) > MAX_ASSIGNMENTS:
            holding = [it for it in found if not it.inspect]
            inspecting = [it for it in found if it.inspect]
            found = [*holding, *inspecting[: max(0, MAX_ASSIGNMENTS - len(holding))]]
        return tuple(found)

    def _add(self, node: str, assessment: Assessment, revision: str, *, slots: int, indexes: str) -> None:
        metadata, spec = assessment.workload.metadata, assessment.workload.spec
        self._holders[metadata.uid].add((revision, node))
        serves = spec.run.http is not None
        self._nodes[node].append(
            Assignment(
                uid=metadata.uid,
                namespace=metadata.namespace,
                name=metadata.name,
                revision=revision,
                slots=slots,
                burst=spec.burst if serves else 0,
                priority=spec.priority,
                port=self._ports.get(metadata.uid, 0) if serves else 0,
                indexes=indexes,
                outdated=serves and assessment.admitted and revision != assessment.revision.name,
            )
        )


def inspection_node(
    assessment: Assessment, places: Iterable[Place], members: Sequence[Member], states: Mapping[str, NodeState]
) -> str | None:
    """Where its module is inspected: where that was begun, if that node works, else any ready one, evenly spread.

    A module that an agent can't run is inspected by that agent: it knows that another one is waited for.
    """
    members = [it for it in members if it.name in assessment.refusing] or members
    ready = [it for it in members if states.get(it.name) is NodeState.READY]
    ready = ready or [it for it in members if states.get(it.name) is NodeState.DRAINING]
    if not ready:
        return None
    names = {it.name for it in ready}
    for place in places:
        assignment = place.assignment
        if assignment.inspect and assignment.revision == assessment.inspection.name and place.member.name in names:
            return place.member.name
    selector = assessment.workload.spec.placement.node_selector
    fitting = [it for it in ready if _has(it, selector)] or ready
    uid = assessment.workload.metadata.uid
    return min((it.name for it in fitting), key=lambda name: hashlib.sha256(f"{uid}/{name}".encode()).digest())


def patches(pool: InstancePool, members: Iterable[Member], sheets: Sheets) -> Iterator[PatchAssignments]:
    """One per node whose assignments, or whose limits, change; none where nothing does."""
    admission = node_admission(pool.spec)
    for member in members:
        node = member.pool_node
        if node is None:
            continue
        wanted = sheets.of(member.name)
        if wanted == node.spec.assignments and admission == node.spec.admission:
            continue
        encoded: list[Manifest] = [encode(assignment) for assignment in wanted]
        yield PatchAssignments(
            namespace=node.metadata.namespace,
            name=node.metadata.name,
            operations=(
                # NB: the plan was made on this generation; whoever wrote since then must not be overruled.
                {"op": "test", "path": "/metadata/generation", "value": node.metadata.generation},
                {"op": "test", "path": "/metadata/uid", "value": node.metadata.uid},
                {"op": "add", "path": "/spec/poolGeneration", "value": pool.metadata.generation},
                {"op": "add", "path": "/spec/admission", "value": encode(admission)},
                {"op": "add", "path": "/spec/assignments", "value": encoded},
            ),
        )


def _has(member: Member, selector: Mapping[str, str]) -> bool:
    labels = member.node.metadata.labels if member.node is not None else {}
    return all(labels.get(key) == value for key, value in selector.items())
