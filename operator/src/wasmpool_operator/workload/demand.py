"""From an assessment to requests for slots, one per revision that holds or wants some. Pure."""

from collections.abc import Mapping
from datetime import datetime

from wasmpool_api.placement import Claim, Request
from wasmpool_api.reasons import Waiting
from wasmpool_operator.conditions import condition_of, seconds_since
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.completions import Completions
from wasmpool_operator.workload.rollout import allowance, shares

Held = Mapping[str, Mapping[str, int]]
"""Slots by revision and node, as the present specs have them."""


def service_requests(
    assessment: Assessment, held: Held, running: Mapping[str, Mapping[str, int]], now: datetime
) -> list[Request]:
    """For instances that run for ever. `running`: instances by revision and node.

    A new revision replaces the old one as `rollout.shares` says. Until the new one is admitted the old one goes on.
    """
    workload = assessment.workload
    desired = workload.spec.instances
    target = assessment.revision.name
    others = sorted(revision for revision in held if revision != target)
    current = workload.status.current_revision
    if assessment.banned:
        return [_request(assessment, revision, 0, held, running, now) for revision in sorted(held)]
    if not assessment.admitted:
        # A refusal of the version that runs stops it; one of a newer version leaves the older alone.
        stays = current if current != target or not assessment.refused else ""
        if not assessment.refused and target in held:
            stays = target
        return [
            _request(assessment, revision, desired if revision == stays else 0, held, running, now)
            for revision in sorted(held)
        ]
    if not any(sum(held[revision].values()) for revision in others):
        return [
            _request(assessment, target, desired, held, running, now, minimum=workload.spec.min_instances_or_default)
        ]
    allowed = allowance(desired, workload.spec.strategy.rolling_update)
    wanted = shares(allowed, target, current, held, running)
    return [_request(assessment, revision, wanted[revision], held, running, now) for revision in (target, *others)]


def completion_requests(assessment: Assessment, completions: Completions, held: Held, now: datetime) -> list[Request]:
    """For runs that are counted: one slot for each index that is not done. An index that is out stays where it is."""
    target = assessment.revision.name
    spec = assessment.workload.spec
    if assessment.banned or (assessment.refused and target in held):
        return [_request(assessment, revision, 0, held, {}, now) for revision in sorted(held)]
    out: dict[str, dict[str, int]] = {}
    for (revision, node), indexes in completions.out.items():
        if revision == target and node in assessment.refusing:
            continue  # they go out again once the assignment is taken back
        out.setdefault(revision, {})[node] = len(indexes)
    wanted = {revision: sum(nodes.values()) for revision, nodes in out.items()}
    if assessment.admitted:
        wanted[target] = wanted.get(target, 0) + len(completions.left)
    return [
        _request(
            assessment, revision, count, out, {}, now,
            minimum=min(spec.min_instances_or_default, count) if revision == target and not completions.done else 1,
            movable=False,
        )
        for revision, count in sorted(wanted.items())
    ]  # fmt: skip


def _request(
    assessment: Assessment,
    revision: str,
    wanted: int,
    held: Held,
    running: Mapping[str, Mapping[str, int]],
    now: datetime,
    *,
    minimum: int = 1,
    movable: bool = True,
) -> Request:
    metadata, spec = assessment.workload.metadata, assessment.workload.spec
    waiting = condition_of(assessment.workload.status.conditions, "SlotsReserved")
    waits = waiting is not None and waiting.reason == Waiting.WAITING_FOR_CAPACITY
    return Request(
        claim=Claim(metadata.uid, revision),
        namespace=metadata.namespace,
        name=metadata.name,
        wanted=wanted,
        minimum=minimum,
        priority=spec.priority,
        created=metadata.creation_timestamp or "",
        spread=spec.placement.spread,
        node_selector=spec.placement.node_selector,
        max_per_node=spec.placement.max_per_node,
        refusing=assessment.refusing if revision == assessment.revision.name else frozenset(),
        too_small=assessment.too_small if revision == assessment.revision.name else frozenset(),
        held=held.get(revision, {}),
        running=running.get(revision, {}),
        movable=movable,
        in_turns=spec.runs_to_completion,
        waited_seconds=seconds_since(waiting.last_transition_time, now) if waiting is not None and waits else 0.0,
    )
