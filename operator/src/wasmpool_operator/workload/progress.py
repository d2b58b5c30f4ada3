"""Whether a roll-out gets on, and when a finished workload has been kept for long enough. Pure; time is handed in.

What is remembered is in the workload's status, so that neither a restart of the operator nor a version that runs for a
moment, again and again, begins the time anew.
"""

from datetime import datetime

from wasmpool_api.reasons import RolloutReason
from wasmpool_api.wasm_workload import Rollout, WasmWorkload
from wasmpool_operator.conditions import Finding, Truth, condition_of, rfc3339, seconds_since


def rollout_of(
    workload: WasmWorkload, target: str, older: frozenset[str], *, reserved: int, ready: int, now: datetime
) -> Rollout | None:
    """How far the revision `target` has come in the place of `older` ones; None where there is nothing to replace.

    `reserved` and `ready`: its slots and running instances now. Kept is the most that there has been of each.
    """
    if not older or workload.spec.runs_to_completion:
        return None
    before = workload.status.rollout
    if before is None or before.revision != target:
        return Rollout(revision=target, reserved=reserved, ready=ready, progressed_at=rfc3339(now))
    if reserved <= before.reserved and ready <= before.ready:
        return before
    return Rollout(
        revision=target,
        reserved=max(reserved, before.reserved),
        ready=max(ready, before.ready),
        progressed_at=rfc3339(now),
    )


def seconds_left(workload: WasmWorkload, rollout: Rollout, now: datetime) -> float:
    """Until the roll-out counts as stalled; 0 where it does."""
    return max(0.0, workload.spec.progress_deadline - seconds_since(rollout.progressed_at, now))


def stalled(
    workload: WasmWorkload, rollout: Rollout, older: frozenset[str], now: datetime, trouble: str
) -> Finding | None:
    """What Stalled says of a roll-out that has made no progress for too long; None while it may yet."""
    if seconds_left(workload, rollout, now):
        return None
    message = (
        f"{rollout.revision} got {rollout.reserved} of {workload.spec.instances} slots and ran in {rollout.ready} of "
        f"them, and no more for progressDeadline {workload.spec.progress_deadline}; {', '.join(sorted(older))} goes on"
    )
    message += f"; {trouble}" if trouble else ""
    return Finding("Stalled", Truth.TRUE, RolloutReason.PROGRESS_DEADLINE_EXCEEDED, message)


def seconds_to_live(workload: WasmWorkload, now: datetime) -> float | None:
    """Until a finished workload is to be deleted; None where it is not finished, or is to stay."""
    ttl = workload.spec.ttl_seconds_after_finished
    finished = condition_of(workload.status.conditions, "Finished")
    if ttl is None or finished is None or finished.status != Truth.TRUE:
        return None
    if finished.observed_generation != workload.metadata.generation or not finished.last_transition_time:
        return None  # it was given more to do since
    return max(0.0, ttl - seconds_since(finished.last_transition_time, now))
