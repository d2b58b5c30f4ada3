"""How many slots each revision of a workload may hold while a new one replaces the old. Pure arithmetic.

As with a Deployment: at most `maxSurge` slots more than `instances`, at most `maxUnavailable` fewer ready than
`instances`, and what is ready already is given up only for what has become ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wasmpool_api.wasm_workload import RollingUpdate

Slots = Mapping[str, Mapping[str, int]]
"""By revision and node."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """In slots. Invariant: surge + unavailable > 0, or nothing could ever be replaced."""

    desired: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        """That all revisions together may hold."""
        return self.desired + self.surge

    @property
    def least(self) -> int:
        """Instances that have to stay ready, if so many are."""
        return max(0, self.desired - self.unavailable)


def allowance(desired: int, strategy: RollingUpdate) -> Allowance:
    """The strategy's percentages, of so many instances."""
    surge = strategy.max_surge.of_rounded_up(desired)
    unavailable = strategy.max_unavailable.of_rounded_down(desired)
    return Allowance(desired, surge, unavailable if surge or unavailable else 1)


def shares(allowed: Allowance, target: str, current: str, held: Slots, running: Slots) -> dict[str, int]:
    """Slots that each revision in `held`, and `target`, is to hold.

    `held`: slots in the present specs. `running`: instances that do their work. `current`: the revision that is kept
    longest of the older ones.

    Invariants: the sum is at most `allowed.most`, even with what the older ones hold until they have let go of it,
    unless that was more before; what is running of it is `allowed.least` or more, or else nothing running is given up.
    """
    ready = {revision: _both(held[revision], running.get(revision, {})) for revision in held}
    total = {revision: sum(nodes.values()) for revision, nodes in held.items()}
    older = sorted(held.keys() - {target}, key=lambda revision: (revision != current, revision))
    new_held, new_ready = total.get(target, 0), ready.get(target, 0)
    needed = max(0, allowed.least - new_ready)
    kept = dict.fromkeys(older, 0)
    for revision in older:
        kept[revision] = min(ready[revision], needed)
        needed -= kept[revision]
    for revision in older:
        # Not ready, but nobody knows for how long: an agent may be restarting, and go on with what it ran.
        more = min(total[revision] - ready[revision], needed)
        kept[revision] += more
        needed -= more
    room = allowed.most - sum(total[revision] for revision in older)
    stays = min(new_held, allowed.most - sum(kept.values()))
    return kept | {target: min(allowed.desired, max(stays, room))}


def _both(held: Mapping[str, int], running: Mapping[str, int]) -> int:
    # NB: an agent that has not seen a scale-down yet still reports the old number.
    return sum(min(slots, running.get(name, 0)) for name, slots in held.items())
