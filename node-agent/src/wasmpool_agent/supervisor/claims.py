"""One assignment: how far it has come, and how that looks in the node's status. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.runs import Ended, Runs
from wasmpool_api.indexes import IndexesError, format_indexes, parse_indexes
from wasmpool_api.instance_pool_node import Assignment, NodeWorkload, WorkloadState
from wasmpool_api.reasons import Outcome, Progress, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import ComponentHost, ModuleStatus

MOST_INDEXES: Final = 1_000_000


class Step(StrEnum):
    """How far the preparation has come."""

    WAITING = "Waiting"
    PULLING = "Pulling"
    INSPECTED = "Inspected"
    COMPILING = "Compiling"
    PREPARED = "Prepared"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a Start or a Serve needs. `artifact`: key of the compiled code; `queue_seconds`: None for a command.

    `files`: a sealed memfd with the guest's files, or None; the preparer owns it.
    """

    revision: Revision
    artifact: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    entrypoint: str
    deadline_seconds: float | None
    limits: StoreLimits
    queue_seconds: float | None = None
    allowed_hosts: tuple[str, ...] = ()
    files: int | None = None
    component_host: ComponentHost | None = None


@dataclass(slots=True)
class Service:
    """One revision that answers requests. `homes`: workers that were told to; `answering`: those that do.

    `last`: how a request, or the making of an instance, failed last. `used`: slots that it holds, in all workers.
    """

    used: Callable[[], int]
    homes: int = 0
    answering: int = 0
    failures: int = 0
    last: Ended | None = None
    blocked: str = ""
    """Why no worker could be told to serve: the port, for one."""


@dataclass(slots=True)
class Claim:
    """`accepted`: the slots that it may use. `assigned` is False once the assignment is gone and instances still end.

    `load_failures`: how often workers have refused its compiled code. `from_registry`: whether looking at its module
    again is a question to somebody else's server.
    """

    assignment: Assignment
    workload_id: int
    step: Step = Step.WAITING
    reason: str = ""
    message: str = ""
    module: ModuleStatus | None = None
    prepared: Prepared | None = None
    runs: Runs | None = None
    service: Service | None = None
    accepted: int = 0
    assigned: bool = True
    load_failures: int = 0
    from_registry: bool = False
    _indexes: tuple[str, frozenset[int]] = ("", frozenset())

    @property
    def key(self) -> ClaimKey:
        """Of the claim."""
        return ClaimKey(self.assignment.uid, self.assignment.revision)

    @property
    def label(self) -> str:
        """For messages: namespace/name."""
        return f"{self.assignment.namespace}/{self.assignment.name}"

    @property
    def indexes(self) -> frozenset[int]:
        """Those that are assigned; none where they can't be read, which the API's schema does not let happen."""
        text, parsed = self._indexes
        if text != self.assignment.indexes:
            text = self.assignment.indexes
            try:
                parsed = parse_indexes(text, MOST_INDEXES)
            except IndexesError:
                parsed = frozenset[int]()
            self._indexes = (text, parsed)
        return parsed

    @property
    def used(self) -> int:
        """Slots that its instances hold, or may hold."""
        if self.service is not None:
            return self.service.used()
        return self.runs.used if self.runs is not None else 0

    @property
    def held(self) -> bool:
        """Whether something of it still lives in a worker."""
        return bool(self.used or (self.service is not None and self.service.homes))

    @property
    def reserved(self) -> int:
        """Slots that nobody else may have now."""
        return max(self.accepted if self.assigned else 0, self.used)

    def entry(self, now: float) -> NodeWorkload:
        """Its line in the status."""
        state, reason, message = self._state(now)
        runs = self.runs
        last = runs.last if runs is not None else None
        restarts = self.service.failures if self.service is not None else runs.restarts if runs is not None else 0
        return NodeWorkload(
            uid=self.assignment.uid,
            revision=self.assignment.revision,
            state=state,
            reason=reason,
            message=message,
            reserved_slots=self.reserved,
            used_slots=self.used,
            restarts=restarts,
            digest=self.module.digest if self.module is not None else "",
            # NB: of those that are assigned, which an index stays until the operator has counted it: all that there
            # ever were could be more than a status may hold.
            completed=format_indexes(runs.completed & self.indexes) if runs is not None and runs.counted else "",
            failed=format_indexes(runs.failed & self.indexes) if runs is not None and runs.counted else "",
            exit_code=_signed(last.exit_code) if last is not None else None,
            component_host=self.prepared.component_host if self.prepared is not None else None,
            module=self.module if self.assignment.inspect else None,
        )

    def _state(self, now: float) -> tuple[WorkloadState, str, str]:
        match self.step:
            case Step.REFUSED:
                return WorkloadState.REFUSED, self.reason, self.message
            case Step.WAITING:
                return WorkloadState.PENDING, self.reason or Progress.STARTING, self.message
            case Step.PULLING:
                return WorkloadState.PULLING, self.reason or Progress.PULLING, self.message
            case Step.INSPECTED:
                return WorkloadState.INSPECTED, self.reason or Outcome.MODULE_VALID, self.message
            case Step.COMPILING:
                return WorkloadState.COMPILING, self.reason or Progress.COMPILING, self.message
            case Step.PREPARED:
                return self._running_state(now)

    def _serving_state(self, service: Service) -> tuple[WorkloadState, str, str]:
        if service.answering:
            return WorkloadState.RUNNING, Outcome.RUNNING, service.last.describe() if service.last is not None else ""
        if service.blocked:
            return WorkloadState.BACK_OFF, Outcome.BACK_OFF, service.blocked
        if service.last is not None:
            return WorkloadState.BACK_OFF, Outcome.BACK_OFF, service.last.describe()
        return WorkloadState.PENDING, Progress.STARTING, ""

    def _running_state(self, now: float) -> tuple[WorkloadState, str, str]:
        if self.service is not None:
            return self._serving_state(self.service)
        runs = self.runs
        if runs is None:
            return WorkloadState.PENDING, Progress.STARTING, ""
        last = runs.last.describe() if runs.last is not None else ""
        if runs.counted and last:
            last = f"index {runs.last_position}: {last}"
        if runs.finished and (runs.completed or runs.failed):
            if not runs.failed:
                return WorkloadState.SUCCEEDED, Outcome.SUCCEEDED, last
            lost = runs.last is not None and runs.last.lost
            return WorkloadState.FAILED, Outcome.LOST if lost else Outcome.FAILED, last
        paused = runs.paused_until(now)
        if runs.running:
            return WorkloadState.RUNNING, Outcome.RUNNING, last if paused is not None else ""
        if paused is not None and runs.last is not None:
            return WorkloadState.BACK_OFF, Outcome.BACK_OFF, f"{last}; waits {runs.pause_seconds:g} s for its next try"
        if self.accepted < self.assignment.slots:
            return (
                WorkloadState.PENDING,
                Waiting.WAITING_FOR_CAPACITY,
                f"{self.assignment.slots} slots are assigned, {self.accepted} of this node's can be had now",
            )
        return WorkloadState.PENDING, Progress.STARTING, ""


def _signed(exit_code: int | None) -> int | None:
    """Guests leave with 32 bits; the API has them signed: -1 is -1, and not 4294967295, which it would refuse."""
    return None if exit_code is None else (exit_code + 2**31) % 2**32 - 2**31
