"""What the supervisor knows: its parts read it, and wake each other through it. Used on one event loop only."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wasmpool_agent.modules.registries import PoolCredentials
from wasmpool_agent.status import EDGE_SECONDS
from wasmpool_agent.supervisor.claims import Claim
from wasmpool_agent.supervisor.ports import Desired
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.reserving import Memory
from wasmpool_agent.supervisor.workers import Workers
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import AgentInfo, InstancePoolNodeStatus


@dataclass(frozen=True, slots=True)
class Clocks:
    """`monotonic`: seconds, for intervals; `now`: for timestamps that people read."""

    monotonic: Callable[[], float]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Settings:
    """`pool_file`: the same pool, for the children. `cache`: a directory that outlives this process, at best.

    `pool_credentials`: for registries, beside those that a workload brings. `edge_seconds`: between two writes of the
    status where it goes on changing. `serve_host`: what workloads' ports are bound to; empty for every address.
    `leave_seconds`: for how long requests are still taken once the agent is to end, for those who send them hear of it
    later.
    """

    pool: InstancePool
    pool_file: Path
    cache: Path
    agent: AgentInfo
    pool_credentials: PoolCredentials
    edge_seconds: float = EDGE_SECONDS
    serve_host: str = ""
    leave_seconds: float = 3.0


@dataclass(slots=True)
class State:
    """`found`: the status as it was before this agent's first; `confirmed`: the API server has been reached since.

    `predecessor_gone`: that status is of another pod. `announced`: claims that a written status lists.
    """

    claims: dict[ClaimKey, Claim] = field(default_factory=dict[ClaimKey, Claim])
    desired: Desired | None = None
    found: InstancePoolNodeStatus | None = None
    confirmed: bool = False
    predecessor_gone: bool = False
    announced: frozenset[ClaimKey] = frozenset()
    applied_generation: int = 0
    memory: Memory | None = None
    workers: Workers | None = None
    reserved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once `memory` and `workers` are there."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Something may have to be done."""
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    """The status may have changed."""

    def changed(self) -> None:
        """Whatever it is: both loops look again."""
        self.wake.set()
        self.dirty.set()

    def allocatable(self) -> int:
        """Slots that are not quarantined; 0 while there is no region."""
        if self.memory is None:
            return 0
        counts = self.memory.table.counts()
        return counts.total - counts.quarantined
