"""What a placement is made of: nodes, what is asked for on them, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.wasm_workload import Spread


class Claim(NamedTuple):
    """One revision of one workload."""

    uid: str
    revision: str


class NodeState(StrEnum):
    """What may be done with a node.

    READY takes new slots. DRAINING keeps what it has until it runs elsewhere. UNREADY keeps what it has and takes
    nothing. LOST keeps only what can't be run twice; the rest is placed anew.
    """

    READY = "Ready"
    DRAINING = "Draining"
    UNREADY = "Unready"
    LOST = "Lost"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the pool.

    `slots`: allocatable now. `capacity`: what it could hold when all is well, for telling "never" from "not now".
    `promised`: per claim, what its agent may be using; None where that is not known, and then nothing is added.
    """

    name: str
    slots: int
    capacity: int
    state: NodeState = NodeState.READY
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    promised: Mapping[Claim, int] | None = field(default_factory=dict[Claim, int])


@dataclass(frozen=True, slots=True)
class Request:
    """What one claim wants.

    `minimum`: nothing is placed before this many fit at once. `held`: slots per node in the present assignments.
    `running`: instances per node that run now. `movable` is False where an instance must not be started a second time
    (then `held` is only ever reduced by `wanted`). `in_turns`: `wanted` counts runs that may follow each other, so that
    it may exceed what the pool can ever hold, as long as `minimum` does not. `waited_seconds`: since it began to wait.
    `refusing`: nodes that won't run it; `too_small`: nodes whose slots have to become larger first. Neither gets a slot
    of it, nor keeps one that can be moved.
    """

    claim: Claim
    namespace: str
    name: str
    wanted: int
    minimum: int = 1
    priority: int = 0
    created: str = ""
    spread: Spread = Spread.SPREAD
    node_selector: Mapping[str, str] = field(default_factory=dict[str, str])
    max_per_node: int | None = None
    refusing: frozenset[str] = frozenset()
    too_small: frozenset[str] = frozenset()
    held: Mapping[str, int] = field(default_factory=dict[str, int])
    running: Mapping[str, int] = field(default_factory=dict[str, int])
    movable: bool = True
    in_turns: bool = False
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class NamespaceLimit:
    """The most slots that a namespace may hold, and the field that says so."""

    slots: int
    rule: str


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why fewer slots than wanted were placed. `free`: slots that it could use at once, if that were enough."""

    reason: Refusal | Waiting
    wanted: int
    placed: int
    free: int
    message: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Slots per node, none of them zero, and what is missing."""

    slots: Mapping[str, int]
    shortfall: Shortfall | None = None

    @property
    def total(self) -> int:
        """Slots over all nodes."""
        return sum(self.slots.values())


def matches(node: Node, request: Request) -> bool:
    """Whether the workload asks for nodes like this one."""
    return all(node.labels.get(key) == value for key, value in request.node_selector.items())


def takes(node: Node, request: Request) -> bool:
    """Whether new slots of it may be on this node, as far as the two go."""
    return matches(node, request) and node.name not in request.refusing | request.too_small


def cap(request: Request) -> int:
    """The most slots that it may have on one node."""
    return request.max_per_node if request.max_per_node is not None else request.wanted
