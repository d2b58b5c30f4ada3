"""What people are told of in Events: the difference between two statuses of the same object. Pure.

Both come from the API server: the one that was written last, and the one that is written now. So an operator that was
restarted repeats nothing, and one that missed something in between tells of where it has come to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wasmpool_api.instance_pool import InstancePool, InstancePoolStatus
from wasmpool_api.meta import API_VERSION, Condition
from wasmpool_api.reasons import NodeReason, Progress, Refusal, RegionReason, RolloutReason, Waiting
from wasmpool_api.wasm_workload import WasmWorkload, WasmWorkloadStatus
from wasmpool_operator.conditions import condition_of
from wasmpool_operator.ports import Manifest

NORMAL: Final = "Normal"
WARNING: Final = "Warning"
NOTE_MAX_LENGTH: Final = 1024
_ON_ITS_WAY: Final = frozenset(
    {*Progress, NodeReason.AGENT_PENDING, NodeReason.AGENT_NOT_READY, RegionReason.RESERVING, RolloutReason.UP_TO_DATE}
)
"""Reasons that every start goes through."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to tell. `action`: what the operator was about, as events.k8s.io asks for it."""

    type: str
    reason: str
    action: str
    text: str


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that a note is about."""

    kind: str
    namespace: str
    name: str
    uid: str

    def reference(self) -> dict[str, Any]:
        """As a corev1.ObjectReference."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


def regarding(found: InstancePool | WasmWorkload) -> Regarding:
    """The object itself."""
    return Regarding(found.kind, found.metadata.namespace, found.metadata.name, found.metadata.uid)


def workload_notes(before: WasmWorkloadStatus, after: WasmWorkloadStatus) -> tuple[Note, ...]:
    """What a workload's people want to know, in the order in which it comes about."""
    return tuple(_workload_notes(before, after))


def pool_notes(before: InstancePoolStatus, after: InstancePoolStatus) -> tuple[Note, ...]:
    """The same of a pool."""
    return tuple(_pool_notes(before, after))


def event(note: Note, about: Regarding, *, name: str, controller: str, instance: str, at: str) -> Manifest:
    """The Event. `at`: RFC 3339 with microseconds."""
    text = note.text if len(note.text) <= NOTE_MAX_LENGTH else note.text[: NOTE_MAX_LENGTH - 3] + "..."
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": about.namespace},
        "eventTime": at,
        "type": note.type,
        "reason": note.reason,
        "action": note.action,
        "note": text,
        "regarding": about.reference(),
        "reportingController": controller,
        "reportingInstance": instance,
    }


def _workload_notes(before: WasmWorkloadStatus, after: WasmWorkloadStatus) -> Iterator[Note]:
    then = _Changes(before.conditions, after.conditions)
    if found := then.became("Admitted", "True"):
        yield Note(NORMAL, "Admitted", "Judging", found.message or "the pool's limits admit its module")
    if found := then.turned("Admitted", "False"):
        yield Note(WARNING, "Refused", "Judging", f"{found.reason}: {found.message}")
    if (found := then.turned("Admitted", "Unknown")) and found.reason in set(Waiting):
        yield Note(WARNING, found.reason, "Judging", found.message)
    if found := then.became("SlotsReserved", "True"):
        yield Note(NORMAL, "SlotsReserved", "Reserving", found.message)
    short = then.turned("SlotsReserved", "False")
    if short and short.reason not in set(Refusal) - {Refusal.EXCEEDS_POOL_CAPACITY}:
        yield Note(WARNING, short.reason, "Reserving", short.message)
    yield from _roll_out(before, after, then)
    ready = then.turned("Ready", "False")
    known = {*_ON_ITS_WAY, *Waiting, *Refusal} - {Waiting.MODULE_PULL_FAILED, Waiting.COMPILE_FAILED}
    if ready and ready.reason not in known:
        yield Note(WARNING, ready.reason, "Running", ready.message)
    running = then.became("Ready", "True")
    finished = then.became("Finished", "True")
    if running and not finished and running.reason != RolloutReason.SCALED_TO_ZERO:
        yield Note(NORMAL, running.reason, "Running", running.message)
    failed = _failed(after) - _failed(before)
    if failed > 0 and not finished:
        told = condition_of(after.conditions, "Finished")
        message = f"{failed} more failed: {told.message}" if told is not None else f"{failed} more failed"
        yield Note(WARNING, "RunFailed", "Running", message)
    if finished:
        yield Note(NORMAL if not _failed(after) else WARNING, finished.reason, "Running", finished.message)


def _roll_out(before: WasmWorkloadStatus, after: WasmWorkloadStatus, then: "_Changes") -> Iterator[Note]:
    was, now = before.rollout, after.rollout
    if now is not None and (was is None or was.revision != now.revision) and now.revision != before.current_revision:
        yield Note(NORMAL, "RollingOut", "RollingOut", f"{now.revision} is to replace {after.current_revision}")
    found = then.turned("Stalled", "True")
    if found and found.reason == RolloutReason.PROGRESS_DEADLINE_EXCEEDED:
        yield Note(WARNING, found.reason, "RollingOut", found.message)
    if before.current_revision and after.current_revision != before.current_revision and now is None:
        text = f"{after.current_revision} has replaced {before.current_revision}"
        yield Note(NORMAL, "RolledOut", "RollingOut", text)


def _pool_notes(before: InstancePoolStatus, after: InstancePoolStatus) -> Iterator[Note]:
    then = _Changes(before.conditions, after.conditions)
    if found := then.became("Ready", "True"):
        yield Note(NORMAL, "PoolReady", "Watching", found.message)
    ready = then.turned("Ready", "False")
    if ready and (ready.reason not in _ON_ITS_WAY or then.was("Ready") == "True"):
        yield Note(WARNING, "PoolNotReady", "Watching", f"{ready.reason}: {ready.message}")
    if found := then.turned("Stalled", "True"):
        yield Note(WARNING, found.reason, "Watching", found.message)
    degraded = then.turned("Degraded", "True")
    if degraded and degraded.reason == RegionReason.FELL_BACK_TO_BASE_PAGES:
        yield Note(WARNING, degraded.reason, "Watching", degraded.message)
    counts = before.nodes, after.nodes
    if counts[0] is None or counts[1] is None:
        return
    known = {it.node_name for it in before.unready_nodes}
    # NB: only so many are listed; one that moves up in the list is no news, unless nodes have been lost.
    if counts[1].ready < counts[0].ready:
        for node in after.unready_nodes:
            if node.node_name not in known:
                text = f"{node.node_name}: {node.reason}" + (f": {node.message}" if node.message else "")
                yield Note(WARNING, "NodeLost", "Watching", text)
    elif counts[1].ready > counts[0].ready:
        back = sorted(known - {it.node_name for it in after.unready_nodes})
        if back:
            yield Note(NORMAL, "NodeReady", "Watching", ", ".join(back))


class _Changes:
    """What conditions say now that they did not say before."""

    def __init__(self, before: Sequence[Condition], after: Sequence[Condition]) -> None:
        self._before: Mapping[str, Condition] = {it.type: it for it in before}
        self._after: Mapping[str, Condition] = {it.type: it for it in after}

    def was(self, kind: str) -> str:
        """Its status then; empty where there was none."""
        found = self._before.get(kind)
        return found.status if found is not None else ""

    def became(self, kind: str, status: str) -> Condition | None:
        """The condition, if it has that status and had another one."""
        found = self._after.get(kind)
        return found if found is not None and found.status == status != self.was(kind) else None

    def turned(self, kind: str, status: str) -> Condition | None:
        """The condition, if it has that status and had another one, or another reason for it."""
        found, old = self._after.get(kind), self._before.get(kind)
        if found is None or found.status != status:
            return None
        return None if old is not None and (old.status, old.reason) == (status, found.reason) else found


def _failed(status: WasmWorkloadStatus) -> int:
    return status.instances.failed if status.instances is not None else 0
