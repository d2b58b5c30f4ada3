"""Runs that are counted: which indexes are done, which are out on a node, which are left. Pure.

Nothing is run twice without leave: an index of a `Never` workload that was out on a node whose agent is gone counts as
failed, for nobody can tell how far it came. An OnFailure index goes out again, and counts as failed only when an agent
says so, after its backoffLimit.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from wasmpool_api.indexes import IndexesError
from wasmpool_api.wasm_workload import OnNodeLost, RestartPolicy, WasmWorkload
from wasmpool_operator.pool.members import Member
from wasmpool_operator.workload.ranges import NONE, Ranges
from wasmpool_operator.workload.reports import Place, Report


@dataclass(frozen=True, slots=True)
class Completions:
    """`done`: indexes that need no further run, `failed` of them failed. `out`: per revision and node, those assigned.

    Invariant: every index from 0 to instances - 1 is in exactly one of `done`, one set of `out`, and `left`.
    """

    total: int
    done: Ranges = NONE
    failed: int = 0
    out: Mapping[tuple[str, str], Ranges] = field(default_factory=dict[tuple[str, str], Ranges])

    @property
    def open(self) -> Ranges:
        """Indexes that are not done."""
        return Ranges.below(self.total) - self.done

    @property
    def left(self) -> Ranges:
        """Indexes that wait for a slot."""
        return self.open - Ranges.union(self.out.values())

    @property
    def succeeded(self) -> int:
        """Runs that ended well."""
        return len(self.done) - self.failed

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be run."""
        return not self.open

    @property
    def text(self) -> str:
        """For status.completions."""
        return str(self.done)


def completions_of(
    workload: WasmWorkload,
    reports: Sequence[Report],
    places: Iterable[Place],
    gone_nodes: Collection[str],
    gone_places: Iterable[Place] = (),
) -> Completions:
    """Counts on from what status remembers.

    `gone_nodes`: names of nodes that leave the pool for good, or whose assignments are taken from the workload.
    `gone_places`: assignments that ended without having been taken back.
    """
    total = workload.spec.instances
    never = workload.spec.restart_policy is RestartPolicy.NEVER
    rerun = workload.spec.on_node_lost is OnNodeLost.REPLACE if never else True
    moves = workload.spec.on_node_lost is not OnNodeLost.WAIT if not never else rerun
    everything = Ranges.below(total)
    done = Ranges.union(_indexes(it) for it in (workload.status.completions, *(it.entry.completed for it in reports)))
    failed = workload.status.instances.failed if workload.status.instances is not None else 0
    # Only what was not counted before: a status is read again and again until its assignment is gone.
    new = Ranges.union(_indexes(it.entry.failed) for it in reports) - done
    done |= new
    failed += len(new)
    if never and not rerun:
        new = (Ranges.union(_indexes(it.assignment.indexes) for it in gone_places) - done) & everything
        done |= new
        failed += len(new)
    out: dict[tuple[str, str], Ranges] = {}
    for place in places:
        member, assignment = place.member, place.assignment
        indexes = (_indexes(assignment.indexes) - done) & everything
        if not indexes:
            continue
        if member.name in gone_nodes or (never and predecessor_gone(member)):
            if not rerun:
                done |= indexes
                failed += len(indexes)
                continue
            if member.name in gone_nodes:
                continue
        if member.lost and moves:
            continue
        key = assignment.revision, member.name
        out[key] = out.get(key, NONE) | indexes
    return Completions(total=total, done=done, failed=failed, out=out)


def predecessor_gone(member: Member) -> bool:
    """Whether the agent that was told the present assignments has been followed by another pod's."""
    told = member.pool_node.status.agent if member.pool_node is not None else None
    return told is not None and member.pod is not None and told.pod_uid != member.pod.metadata.uid


def deal(completions: Completions, revision: str, slots: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Which indexes each node runs, given how many it may: first what it has, then the lowest that are left."""
    left = iter(completions.left)
    result: dict[str, frozenset[int]] = {}
    for node in sorted(slots):
        has = tuple(islice(completions.out.get((revision, node), NONE), slots[node]))
        more = islice(left, slots[node] - len(has))
        result[node] = frozenset(has).union(more)
    return result


def _indexes(text: str) -> Ranges:
    # NB: an agent's word. What can't be read counts as nothing, so that one bad node can't stop the whole pool.
    try:
        return Ranges.parse(text)
    except IndexesError:
        return NONE
