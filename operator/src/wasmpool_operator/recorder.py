"""Writes Events, and not too many of them. What can't be written is lost: nothing depends on an Event."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wasmpool_api.meta import GROUP
from wasmpool_operator.events import Note, Regarding, event
from wasmpool_operator.ports import Cluster, ClusterError
from wasmpool_operator.resources import EVENTS

CONTROLLER: Final = f"{GROUP}/operator"
BURST: Final = 25
"""Events of one object at once; afterwards one per `REFILL_SECONDS`. As in Kubernetes' own components."""
REFILL_SECONDS: Final = 300.0
SERIES_SECONDS: Final = 600.0
"""What is told again within this time is one more of the same Event, and no other one."""
REMEMBERED: Final = 4096
"""Objects, and Events."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Told:
    name: str
    count: int
    at: datetime


@dataclass(slots=True)
class _Budget:
    left: float
    at: datetime


class Recorder:
    """Belongs to one process. `instance`: its name. `clock` gives the time in UTC."""

    def __init__(self, cluster: Cluster, instance: str, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._instance = instance[:128]
        self._clock = clock
        self._told: dict[tuple[str, Note], _Told] = {}
        self._budgets: dict[str, _Budget] = {}

    async def record(self, about: Regarding, notes: Sequence[Note]) -> None:
        """Tells all of them, as far as the object's budget goes."""
        for note in notes:
            now = self._clock()
            if not self._may(about.uid, now):
                _log.debug("no Event for %s %s/%s: %s", about.kind, about.namespace, about.name, note.reason)
                continue
            try:
                await self._tell(about, note, now)
            except ClusterError as error:
                _log.warning("an Event is lost, %s of %s/%s: %s", note.reason, about.namespace, about.name, error)

    async def _tell(self, about: Regarding, note: Note, now: datetime) -> None:
        known = self._told.get((about.uid, note))
        if known is not None and (now - known.at).total_seconds() <= SERIES_SECONDS:
            known.count, known.at = known.count + 1, now
            series = {"count": known.count, "lastObservedTime": _micro_time(now)}
            change = [{"op": "add", "path": "/series", "value": series}]
            if await self._cluster.patch_json(EVENTS, about.namespace, known.name, change) is not None:
                return
        # As client-go names them: two operators never meet at one name.
        name = f"{about.name[:230]}.{int(now.timestamp() * 1e6):x}{len(self._told) % 256:02x}"
        told = event(note, about, name=name, controller=CONTROLLER, instance=self._instance, at=_micro_time(now))
        await self._cluster.create(told)
        self._told.pop((about.uid, note), None)
        self._told[about.uid, note] = _Told(name, 1, now)
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]

    def _may(self, uid: str, now: datetime) -> bool:
        budget = self._budgets.pop(uid, None) or _Budget(float(BURST), now)
        refill = max(0.0, (now - budget.at).total_seconds()) / REFILL_SECONDS
        budget.left, budget.at = min(float(BURST), budget.left + refill), now
        self._budgets[uid] = budget  # the last one that was asked for comes last
        while len(self._budgets) > REMEMBERED:
            del self._budgets[next(iter(self._budgets))]
        if budget.left < 1.0:
            return False
        budget.left -= 1.0
        return True


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
