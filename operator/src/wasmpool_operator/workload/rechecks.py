"""What time alone changes, and when to look again for it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from wasmpool_api.placement import PATIENCE_SECONDS, Claim, Placement
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_operator.actions import Action, Delete
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import TAKEN_SECONDS
from wasmpool_operator.resources import WASM_WORKLOADS
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.progress import seconds_left, seconds_to_live
from wasmpool_operator.workload.standing import Standing, rolling_out


def recheck_names(assessments: Sequence[Assessment]) -> float | None:
    """Others' objects are not watched: whether one that is in the way has gone is seen by looking."""
    blocked = any(it.admission.reason in {Refusal.SERVICE_CONFLICT, Waiting.NO_FREE_PORT} for it in assessments)
    return TAKEN_SECONDS if blocked else None


def expired(standings: Sequence[Standing], now: datetime) -> Iterator[Action]:
    """Finished workloads whose time is up. NB: of what the API server has: the end was written down before."""
    for standing in standings:
        workload, completions = standing.assessment.workload, standing.completions
        if completions is None or not completions.finished or not completions.total:
            continue
        if seconds_to_live(workload, now) == 0:
            metadata = workload.metadata
            why = f"finished ttlSecondsAfterFinished {workload.spec.ttl_seconds_after_finished} ago"
            yield Delete(WASM_WORKLOADS, metadata.namespace, metadata.name, metadata.uid, why)


def recheck(
    members: Sequence[Member], placements: Mapping[Claim, Placement], standings: Sequence[Standing], now: datetime
) -> float | None:
    """What time alone changes: who counts as lost, for whom free slots are held, what has stalled or has to go."""
    seconds: list[float] = []
    if any(not member.ready and not member.lost for member in members):
        seconds.append(15.0)
    short = [it.shortfall for it in placements.values() if it.shortfall is not None]
    if any(it.reason is Waiting.WAITING_FOR_CAPACITY for it in short):
        seconds.append(PATIENCE_SECONDS / 5)
    for standing in standings:
        workload = standing.assessment.workload
        rollout = rolling_out(standing, now)
        left = seconds_left(workload, rollout, now) if rollout is not None else None
        seconds.extend(it + 1.0 for it in (left, seconds_to_live(workload, now)) if it)  # NB: times are whole seconds
    return min(seconds) if seconds else None
