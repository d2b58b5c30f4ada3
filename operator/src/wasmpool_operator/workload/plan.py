"""All workloads of one pool: assessed, placed, and written down. Pure: a snapshot in, actions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from wasmpool_api.instance_pool import InstancePool, PoolWorkloads
from wasmpool_api.instance_pool_node import InstancePoolNode
from wasmpool_api.placement import Claim, NodeState, Placement, Request, place
from wasmpool_operator.actions import Action
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import ObjectName, Observed
from wasmpool_operator.serving.fronts import Fronts, fronts_of
from wasmpool_operator.serving.names import Names
from wasmpool_operator.serving.plan import ServingPlan, alive, plan_serving
from wasmpool_operator.workload import revisions, tenancy
from wasmpool_operator.workload.assess import Assessment, assess
from wasmpool_operator.workload.assignments import Sheets, inspection_node, patches
from wasmpool_operator.workload.borrowing import borrowers
from wasmpool_operator.workload.completions import Completions, completions_of, deal
from wasmpool_operator.workload.demand import completion_requests, service_requests
from wasmpool_operator.workload.rechecks import expired, recheck, recheck_names
from wasmpool_operator.workload.reports import Index, index_of, index_of_vanished
from wasmpool_operator.workload.snapshot import limits, movements, node_of, possible
from wasmpool_operator.workload.standing import Standing
from wasmpool_operator.workload.status import counts, status_action


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """What to do about a pool's workloads.

    `records`: statuses that must be written before any assignment changes, because an assignment's end makes an agent
    forget what they remember. `moving` and `pinned`: see `pool.plan.replacement_deletions`. `to_look_up`: names that
    have to be known before all of this can be done.
    """

    revisions: Sequence[Action] = ()
    records: Sequence[Action] = ()
    assignments: Sequence[Action] = ()
    statuses: Sequence[Action] = ()
    garbage: Sequence[Action] = ()
    expired: Sequence[Action] = ()
    serving: ServingPlan = field(default_factory=ServingPlan)
    to_look_up: frozenset[ObjectName] = frozenset()
    counts: PoolWorkloads = field(default_factory=lambda: PoolWorkloads(admitted=0, waiting=0, refused=0))
    moving: frozenset[str] = frozenset()
    pinned: frozenset[str] = frozenset()
    recheck_seconds: float | None = None


def plan_workloads(
    observed: Observed,
    members: Sequence[Member],
    *,
    replacing: frozenset[str] = frozenset(),
    gone_nodes: frozenset[str] = frozenset(),
) -> WorkloadPlan:
    """`replacing`: nodes whose agent is about to be replaced. `gone_nodes`: InstancePoolNodes that are about to go."""
    pool, pasts = observed.pool, revisions.pasts_of(observed.revisions)
    index, vanished = index_of(members), index_of_vanished(observed.vanished)
    states = {member.name: member.state(draining=member.name in replacing) for member in members}
    leaving = frozenset(
        it.name for it in members if it.pool_node is not None and it.pool_node.metadata.name in gone_nodes
    )
    staying = [member for member in members if member.name not in leaving]
    any_ready = any(states[it.name] in {NodeState.READY, NodeState.DRAINING} for it in staying)
    assessments = [
        assess(
            workload,
            pool,
            observed.key,
            not_allowed=_not_allowed(observed, workload.metadata.namespace),
            any_node_ready=any_ready,
            reports=index.reports.get(workload.metadata.uid, ()),
            places=index.places.get(workload.metadata.uid, ()),
            nodes=possible(workload, staying, states),
            pasts=pasts.get(workload.metadata.uid, ()),
        )
        for workload in observed.workloads
    ]
    counted = {
        it.workload.metadata.uid: completions_of(
            it.workload,
            (*index.reports.get(it.workload.metadata.uid, ()), *vanished.reports.get(it.workload.metadata.uid, ())),
            index.places.get(it.workload.metadata.uid, ()),
            leaving | _withdrawn(it, index),
            vanished.places.get(it.workload.metadata.uid, ()),
        )
        for it in assessments
        if it.workload.spec.runs_to_completion
    }
    names = Names(observed)
    fronts = fronts_of(observed, names, {it.workload.metadata.uid for it in assessments if it.admitted})
    if pool is None or not alive(pool):
        return _without_pool(observed, members, assessments, counted, index, fronts, names)
    assessments = [_fronted(it, fronts) for it in assessments]
    requests = {it.workload.metadata.uid: _requests(it, index, counted, observed) for it in assessments}
    nodes = [node_of(pool, member, states[member.name], observed) for member in staying]
    placements = place(
        pool.metadata.name,
        nodes,
        [request for found in requests.values() for request in found],
        limits(observed, pool, nodes, assessments),
    )
    sheets = _sheets(fronts, assessments, requests, placements, counted, index, staying, states)
    serving = plan_serving(observed, fronts, names, members, sheets, index)
    standings = [
        _standing(it, requests[it.workload.metadata.uid], placements, counted, index, serving, sheets)
        for it in assessments
    ]
    found = _assembled(observed, pool, members, staying, standings, sheets, requests, placements, states, replacing)
    rechecks = [it for it in (found.recheck_seconds, recheck_names(assessments)) if it is not None]
    return replace(
        found, serving=serving, to_look_up=frozenset(names.to_look_up), recheck_seconds=min(rechecks, default=None)
    )


def _requests(
    assessment: Assessment, index: Index, counted: Mapping[str, Completions], observed: Observed
) -> list[Request]:
    uid = assessment.workload.metadata.uid
    held = index.held(uid)
    if uid in counted:
        return completion_requests(assessment, counted[uid], held, observed.now)
    serves = assessment.workload.spec.run.http is not None
    running = {revision: index.running(uid, revision, serves=serves) for revision in {*held, assessment.revision.name}}
    return service_requests(assessment, held, running, observed.now)


def _withdrawn(assessment: Assessment, index: Index) -> frozenset[str]:
    """Nodes whose slots are taken from a workload that may not go on; one whose agent refused it never ran it."""
    uid = assessment.workload.metadata.uid
    if not assessment.banned and not (assessment.refused and assessment.revision.name in index.held(uid)):
        return frozenset()
    return frozenset(place.member.name for place in index.places.get(uid, ())) - assessment.refusing


def _fronted(assessment: Assessment, fronts: Fronts) -> Assessment:
    """One that can't be reached may not run either: nobody would get an answer of it."""
    front = fronts.by_uid.get(assessment.workload.metadata.uid)
    if front is None or front.hindrance is None or not assessment.admitted:
        return assessment
    return replace(assessment, admission=front.hindrance)


def _sheets(
    fronts: Fronts,
    assessments: Sequence[Assessment],
    requests: Mapping[str, Sequence[Request]],
    placements: Mapping[Claim, Placement],
    counted: Mapping[str, Completions],
    index: Index,
    members: Sequence[Member],
    states: Mapping[str, NodeState],
) -> Sheets:
    sheets = Sheets(fronts.ports)
    for it in assessments:
        uid = it.workload.metadata.uid
        taken: set[str] = set()
        for request in requests[uid]:
            slots = placements[request.claim].slots
            indexes = deal(counted[uid], request.claim.revision, slots) if uid in counted else {}
            sheets.reserve(it, request.claim.revision, slots, indexes)
            if request.claim.revision == it.revision.name:
                taken.update(slots)
        sheets.idle(it, sorted(it.refusing - taken))
        if it.admitted or not it.refusing:
            others = [member for member in members if member.name not in it.refusing]
            found = borrowers(it, index.places.get(uid, ()), index.reports.get(uid, ()), others, states)
            for revision, nodes in found.items():
                sheets.idle(it, [name for name in nodes if name not in taken], revision)
        over = uid in counted and counted[uid].finished and counted[uid].total
        if it.inspect and not over:
            node = inspection_node(it, index.places.get(uid, ()), members, states)
            if node is not None:
                sheets.inspect(it, node)
    return sheets


def _standing(
    assessment: Assessment,
    requests: Sequence[Request],
    placements: Mapping[Claim, Placement],
    counted: Mapping[str, Completions],
    index: Index,
    serving: ServingPlan,
    sheets: Sheets,
) -> Standing:
    uid = assessment.workload.metadata.uid
    slots = {request.claim.revision: placements[request.claim].slots for request in requests}
    target = Claim(uid, assessment.revision.name)
    return Standing(
        assessment=assessment,
        slots={revision: nodes for revision, nodes in slots.items() if nodes},
        shortfall=placements[target].shortfall if target in placements else None,
        reports=tuple(index.reports.get(uid, ())),
        completions=counted.get(uid),
        address=serving.addresses.get(uid, ""),
        assigned=sheets.revisions_of(uid),
    )


def _assembled(
    observed: Observed,
    pool: InstancePool,
    members: Sequence[Member],
    staying: Sequence[Member],
    standings: Sequence[Standing],
    sheets: Sheets,
    requests: Mapping[str, Sequence[Request]],
    placements: Mapping[Claim, Placement],
    states: Mapping[str, NodeState],
    replacing: frozenset[str],
) -> WorkloadPlan:
    records: list[Action] = []
    statuses: list[Action] = []
    for standing in standings:
        action = status_action(standing, observed.now)
        if action is not None:
            (records if standing.must_be_recorded else statuses).append(action)
    referenced = _referenced(observed.pool_nodes, standings, sheets, members)
    live = {it.assessment.workload.metadata.uid for it in standings}
    referenced |= revisions.history(revisions.pasts_of(observed.revisions), live, referenced)
    moving, pinned = movements(requests, placements, states, replacing)
    return WorkloadPlan(
        revisions=tuple(
            revisions.missing(
                pool,
                [
                    *((it.assessment.revision, it.assessment.module) for it in standings if it.assessment.admitted),
                    *((it.assessment.inspection, None) for it in standings if it.assessment.inspect),
                ],
                observed.revisions,
            )
        ),
        records=records,
        assignments=tuple(patches(pool, staying, sheets)),
        statuses=statuses,
        garbage=tuple(revisions.unreferenced(pool, referenced, observed.revisions)),
        counts=counts(standings),
        moving=moving,
        pinned=pinned,
        expired=tuple(expired(standings, observed.now)),
        recheck_seconds=recheck(members, placements, standings, observed.now),
    )


def _without_pool(
    observed: Observed,
    members: Sequence[Member],
    assessments: Sequence[Assessment],
    counted: Mapping[str, Completions],
    index: Index,
    fronts: Fronts,
    names: Names,
) -> WorkloadPlan:
    """Without a pool (or with one that is going) nothing is assigned; every workload is told so."""
    serving = plan_serving(observed, fronts, names, members, Sheets(), index)
    standings = [
        Standing(
            assessment=it,
            slots=index.held(it.workload.metadata.uid),
            shortfall=None,
            reports=tuple(index.reports.get(it.workload.metadata.uid, ())),
            completions=counted.get(it.workload.metadata.uid),
            address=serving.addresses.get(it.workload.metadata.uid, ""),
        )
        for it in assessments
    ]
    actions = [status_action(standing, observed.now) for standing in standings]
    return WorkloadPlan(
        statuses=[action for action in actions if action is not None],
        serving=serving,
        to_look_up=frozenset(names.to_look_up),
        counts=counts(standings),
    )


def _not_allowed(observed: Observed, namespace: str) -> str | None:
    if observed.pool is None:
        return None
    return tenancy.not_allowed(observed.pool, namespace, observed.namespace_labels.get(namespace))


def _referenced(
    nodes: Sequence[InstancePoolNode], standings: Sequence[Standing], sheets: Sheets, members: Sequence[Member]
) -> frozenset[str]:
    """Names of revisions that somebody still needs: a workload, a spec old or new, or an agent that has not let go."""
    names: set[str] = set()
    for standing in standings:
        status = standing.assessment.workload.status
        names.update({standing.assessment.revision.name, status.current_revision, status.updated_revision})
    for node in nodes:
        names.update(assignment.revision for assignment in node.spec.assignments)
        names.update(entry.revision for entry in node.status.workloads)
    for member in members:
        names.update(assignment.revision for assignment in sheets.of(member.name))
    return frozenset(names)
