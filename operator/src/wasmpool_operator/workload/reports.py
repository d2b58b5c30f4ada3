"""What the pool's agents say about each workload. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wasmpool_api.instance_pool_node import Assignment, InstancePoolNode, NodeWorkload, WorkloadState
from wasmpool_operator.pool.members import Member


@dataclass(frozen=True, slots=True)
class Report:
    """One entry of one node. `current`: written by the agent pod that is there now, and that is ready."""

    member: Member
    entry: NodeWorkload
    current: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One assignment in the present spec of a node."""

    member: Member
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Index:
    """Reports and assignments by the workload's uid."""

    reports: Mapping[str, tuple[Report, ...]]
    places: Mapping[str, tuple[Place, ...]]

    def running(self, uid: str, revision: str, *, serves: bool) -> dict[str, int]:
        """Instances that run now, per node. `serves`: see `running_instances`."""
        return {
            report.member.name: running_instances(report.entry, serves=serves)
            for report in self.reports.get(uid, ())
            if report.current and report.entry.revision == revision
        }

    def held(self, uid: str) -> dict[str, dict[str, int]]:
        """Slots in the present specs, per revision and node."""
        result: dict[str, dict[str, int]] = {}
        for place in self.places.get(uid, ()):
            if place.assignment.slots:
                nodes = result.setdefault(place.assignment.revision, {})
                nodes[place.member.name] = nodes.get(place.member.name, 0) + place.assignment.slots
        return result


def index_of(members: Iterable[Member]) -> Index:
    """All that is known, in the order of the nodes' names."""
    reports: dict[str, list[Report]] = defaultdict(list)
    places: dict[str, list[Place]] = defaultdict(list)
    for member in members:
        if member.pool_node is None:
            continue
        for entry in member.pool_node.status.workloads:
            reports[entry.uid].append(Report(member, entry, current=member.ready and member.fresh))
        for assignment in member.pool_node.spec.assignments:
            places[assignment.uid].append(Place(member, assignment))
    return Index(
        reports={uid: tuple(found) for uid, found in reports.items()},
        places={uid: tuple(found) for uid, found in places.items()},
    )


def index_of_vanished(pool_nodes: Iterable[InstancePoolNode]) -> Index:
    """The last words of InstancePoolNodes that are no more, and what they were told."""
    return index_of(
        Member(it.spec.node_name, None, None, it, ready=False, updated=False, lost=True, reason="") for it in pool_nodes
    )


def running_instances(entry: NodeWorkload, *, serves: bool) -> int:
    """How many of its slots do their work. An agent may publish `usedSlots` late, never the state.

    `serves`: an http workload, of which every slot does its work that can take a request, used or not.
    """
    if entry.state is not WorkloadState.RUNNING:
        return 0
    if serves:
        return entry.reserved_slots
    return min(entry.used_slots or entry.reserved_slots, entry.reserved_slots or entry.used_slots)
