"""Which assignments are accepted, given the slots that there are. Pure.

The operator counts capacity; this is the second count, on the node itself, for the moment in which the two differ: a
slot has been quarantined, or an instance whose assignment was removed has not ended yet.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wasmpool_api.instance_pool_node import Assignment


class ClaimKey(NamedTuple):
    """One revision of one workload."""

    uid: str
    revision: str


def key_of(assignment: Assignment) -> ClaimKey:
    """The claim that the assignment is for."""
    return ClaimKey(assignment.uid, assignment.revision)


def accept(
    assignments: Iterable[Assignment],
    allocatable: int,
    accepted_before: Mapping[ClaimKey, int],
    still_held: Mapping[ClaimKey, int],
) -> dict[ClaimKey, int]:
    """Slots that each claim may use; their sum, with what others still hold, is never more than `allocatable`.

    `accepted_before`: nobody who behaves loses a slot to a newcomer. `still_held`: instances of claims, also of those
    that are no longer assigned.
    """
    wanted = {key_of(it): it.slots for it in assignments if not it.inspect}
    priority = {key_of(it): (-it.priority, it.namespace, it.name, it.revision) for it in assignments}
    left = allocatable - sum(held for key, held in still_held.items() if key not in wanted)
    # An instance that is being stopped after a scale-down holds its slot too.
    result = dict.fromkeys(wanted, 0)
    order = sorted(wanted, key=lambda key: (0 if accepted_before.get(key) else 1, priority[key]))
    for key in order:
        kept = min(wanted[key], accepted_before.get(key, 0))
        surplus = max(0, still_held.get(key, 0) - wanted[key])
        result[key] = max(0, min(kept, left))
        left -= result[key] + surplus
    for key in order:
        more = max(0, min(wanted[key] - result[key], left))
        result[key] += more
        left -= more
    return result
