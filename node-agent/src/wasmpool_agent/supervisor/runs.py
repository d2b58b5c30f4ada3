"""Which instances of one workload to start and to stop, and when. No I/O and no clock: time is an argument.

A *position* is what an instance fills: an index, where completions are counted, else a number from 0 to slots - 1.

    position     wanted -> live (starting, running, stopping) -> wanted again after a pause, or done

Invariants, whatever the order of calls:
    live instances are never more than `slots`, and never two at one position
    a position that is done is never started again
    a Never position is started at most once, unless its instance got no slot and so never began
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from wasmpool_agent.protocol import Result
from wasmpool_agent.supervisor.backoff import RESTARTS, RESTARTS_FORGIVEN_AFTER_SECONDS, Backoff
from wasmpool_api.wasm_workload import RestartPolicy

NO_SLOT_PAUSE_SECONDS = 0.2


class Live(StrEnum):
    """Where an instance stands."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Ended:
    """How an instance ended. `lost`: its worker died under it."""

    result: Result
    seconds: float = 0.0
    exit_code: int | None = None
    message: str = ""
    lost: bool = False

    def describe(self) -> str:
        """For a person."""
        if self.lost:
            return "lost: the process that ran it died"
        if self.exit_code is not None and self.result in {Result.SUCCESS, Result.ERROR}:
            return f"exit code {self.exit_code}" + (f": {self.message}" if self.message else "")
        return f"{self.result.value}: {self.message}" if self.message else self.result.value


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `start`: positions; `stop`: instances; `wake_at`: when to ask again, if nothing happens."""

    start: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    wake_at: float | None = None


@dataclass(slots=True)
class _Pause:
    failures: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _Instance:
    position: int
    live: Live = Live.STARTING


@dataclass(slots=True)
class Runs:
    """The instances of one claim. `completed` and `failed`: positions that are done.

    `backoff_limit`: with OnFailure, how often a position is run again before it has failed.
    """

    policy: RestartPolicy
    backoff_limit: int = 6
    completed: set[int] = field(default_factory=set[int])
    failed: set[int] = field(default_factory=set[int])
    backoff: Backoff = RESTARTS
    slots: int = 0
    indexes: frozenset[int] = frozenset()
    restarts: int = 0
    last: Ended | None = None
    last_position: int = 0
    _instances: dict[int, _Instance] = field(default_factory=dict[int, _Instance])
    _pauses: dict[int, _Pause] = field(default_factory=dict[int, _Pause])

    @property
    def counted(self) -> bool:
        """Whether positions are indexes that get done."""
        return self.policy is not RestartPolicy.ALWAYS

    @property
    def used(self) -> int:
        """Instances that hold, or may hold, a slot."""
        return len(self._instances)

    @property
    def running(self) -> int:
        """Instances whose guest runs."""
        return sum(1 for it in self._instances.values() if it.live is not Live.STARTING)

    @property
    def finished(self) -> bool:
        """Whether every index that was given is done. Never for those that run for ever."""
        return self.counted and not self._open() and not self._instances

    def assign(self, slots: int, indexes: frozenset[int]) -> None:
        """`slots`: how many may be live at once. `indexes`: for counted ones, which to do."""
        self.slots = slots
        self.indexes = indexes

    def plan(self, now: float) -> Plan:
        """What follows from the present state. Has no effect; say what came of it with `begun` and `ended`."""
        wanted = self._wanted()
        taken = {it.position for it in self._instances.values()}
        live = len(self._instances)
        # NB: a counted run goes on to its end even where fewer slots are left than there are runs: stopping one of them
        # would fail it. Its slot stays reserved meanwhile, see `used`.
        stop = [
            number
            for number, it in self._instances.items()
            if it.position not in wanted and it.live is not Live.STOPPING
        ]
        start: list[int] = []
        waits: list[float] = []
        for position in sorted(wanted - taken):
            if live + len(start) >= self.slots:
                break
            until = self._pauses.get(position, _Pause()).until
            if until <= now:
                start.append(position)
            else:
                waits.append(until)
        return Plan(tuple(start), tuple(stop), min(waits, default=None))

    def begun(self, position: int, instance: int) -> None:
        """A Start was sent."""
        self._instances[instance] = _Instance(position)

    def running_now(self, instance: int) -> None:
        """Its guest runs."""
        found = self._instances.get(instance)
        if found is not None and found.live is Live.STARTING:
            found.live = Live.RUNNING

    def stopping(self, instance: int) -> None:
        """A Stop was sent."""
        if instance in self._instances:
            self._instances[instance].live = Live.STOPPING

    def ended(self, instance: int, ended: Ended, now: float) -> int | None:
        """The instance is gone. Gives its position, or None for one that is not known."""
        found = self._instances.pop(instance, None)
        if found is None:
            return None
        position, pause = found.position, self._pauses.setdefault(found.position, _Pause())
        if ended.result is Result.NO_SLOT:
            pause.until = now + NO_SLOT_PAUSE_SECONDS
            return position
        if ended.result is Result.STOPPED and found.live is Live.STOPPING and self.policy is not RestartPolicy.NEVER:
            pause.until = now
            return position
        self.last, self.last_position = ended, position
        tried_enough = self.counted and not ended.lost and pause.failures >= self.backoff_limit
        if self.counted and ended.result is Result.SUCCESS:
            self.completed.add(position)
        elif self.policy is RestartPolicy.NEVER or tried_enough:
            self.failed.add(position)
        else:
            self.restarts += 1
            if ended.seconds >= RESTARTS_FORGIVEN_AFTER_SECONDS and not self.counted:
                pause.failures = 0
            pause.failures += not (self.counted and ended.lost)
            pause.until = now + self.backoff.seconds(max(1, pause.failures))
        return position

    def put_off(self, positions: Iterable[int], until: float) -> None:
        """They could not be started, for a reason that is not theirs."""
        for position in positions:
            self._pauses.setdefault(position, _Pause()).until = until

    def paused_until(self, now: float) -> float | None:
        """When the first of the positions that wait may start again; None if none waits."""
        live = {it.position for it in self._instances.values()}
        untils = (self._pauses[it].until for it in self._wanted() - live if it in self._pauses)
        return min((it for it in untils if it > now), default=None)

    @property
    def pause_seconds(self) -> float:
        """Between the end that was seen last and the next try at that position."""
        return self.backoff.seconds(self._pauses.get(self.last_position, _Pause()).failures)

    def _open(self) -> frozenset[int]:
        return self.indexes - self.completed - self.failed

    def _wanted(self) -> frozenset[int]:
        return self._open() if self.counted else frozenset(range(self.slots))
