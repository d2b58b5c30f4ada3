"""A worker process as the supervisor knows it, and who is told what workers say."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.channel import ChannelClosed
from wasmpool_agent.protocol import (
    Drop,
    Exited,
    GiveWay,
    ModuleFailed,
    Serve,
    ServeFailed,
    Serving,
    Shutdown,
    SiteStats,
    Start,
    Started,
    Starved,
    Stop,
    SupervisorChannel,
    Trapped,
    Withdraw,
    Withdrawn,
)
from wasmpool_agent.supervisor.promises import ClaimKey

SiteMessage = Serving | ServeFailed | Trapped | Starved | Withdrawn
WorkerMessage = Start | Stop | Drop | Serve | GiveWay | Withdraw | Shutdown


class Listener(Protocol):
    """Who is told what workers say. Called from the event loop; must not block."""

    def workers_changed(self) -> None:
        """One became ready, or died, or loaded a module."""
        ...

    def instance_started(self, started: Started) -> None:
        """Its guest begins."""
        ...

    def instance_exited(self, exited: Exited) -> None:
        """The last word about it."""
        ...

    def instances_lost(self, instances: frozenset[int]) -> None:
        """Their worker died; their slots have been wiped."""
        ...

    def module_failed(self, failed: ModuleFailed) -> None:
        """A worker can't load it."""
        ...

    def site_said(self, worker: "Worker", message: SiteMessage) -> None:
        """What a worker says of what it serves."""
        ...

    def sites_counted(self, worker: "Worker", counts: SiteStats) -> None:
        """What it has served since it began."""
        ...

    def worker_died(self, wiped_slots: int) -> None:
        """Without having been told to."""
        ...

    def allocations_counted(self, added: AllocationCounts) -> None:
        """What a worker has done since it told us last."""
        ...


@dataclass(slots=True)
class Home:
    """A revision that a worker was told to serve. `answering`: it has said that it does."""

    told: Serve
    answering: bool = False
    withdrawing: bool = False


@dataclass(slots=True)
class Worker:
    """One worker process that has said Ready. Invariant: `loaded` and `loading` are disjoint."""

    id: int
    channel: SupervisorChannel
    pid: int
    loaded: set[str] = field(default_factory=set[str])
    serving: dict[ClaimKey, Home] = field(default_factory=dict[ClaimKey, Home])
    loading: set[str] = field(default_factory=set[str])
    instances: set[int] = field(default_factory=set[int])
    mappings: int = 0
    counted: AllocationCounts = field(default_factory=AllocationCounts)
    """Since its start, as it said last."""

    def post(self, message: WorkerMessage, fds: tuple[int, ...] = ()) -> None:
        """To the worker. One that has gone is its keeper's concern. `fds` stay the caller's."""
        with suppress(ChannelClosed):
            self.channel.post(message, fds)
