"""Which node reserves how many slots for which workload: a pure function over a snapshot of one pool.

    place(pool, nodes, requests, limits) -> {claim: Placement}

A *claim* is one revision of a workload. Requests are served by priority, then age, then uid, in two passes: first
everybody keeps what they hold (so nothing moves without a need), then those who want more grow into free slots.

Promised once. A node's `promised` are the slots that its agent may be using for a claim, whatever the present spec
says: removing an assignment frees nothing until the agent has confirmed it. Growth only ever goes into
`slots - sum(promised)`, so no slot is promised to two claims at a time.

Waiting. A request that does not fit now does not stop smaller ones behind it, at first. Once it has waited for
`PATIENCE_SECONDS` the free slots that it could use are held for it for as long again; then the others get a turn, and
so on. So a large one does not starve where slots come free, and does not block the rest for ever where none do.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.wasm_workload import Spread

PATIENCE_SECONDS: Final = 300.0
MAX_CLAIMS_PER_NODE: Final = 1000
"""An InstancePoolNode takes 1024 assignments; the rest is left to inspections, which hold no slot."""


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


def place(
    pool: str,
    nodes: Sequence[Node],
    requests: Iterable[Request],
    limits: Mapping[str, NamespaceLimit] | None = None,
) -> dict[Claim, Placement]:
    """Places every request; the result has one entry for each. The order of the arguments does not matter."""
    cycle = _Cycle(pool, {node.name: node for node in sorted(nodes, key=lambda node: node.name)}, limits or {})
    order = sorted(requests, key=lambda request: (-request.priority, request.created, request.claim))
    for request in order:
        cycle.keep(request)
    return {request.claim: cycle.grow(request) for request in order}


class _Cycle:
    """The state of one run of `place`."""

    def __init__(self, pool: str, nodes: Mapping[str, Node], limits: Mapping[str, NamespaceLimit]) -> None:
        self._pool = pool
        self._nodes = nodes
        self._limits = limits
        self._planned: dict[Claim, dict[str, int]] = {}
        self._claims: dict[str, int] = dict.fromkeys(nodes, 0)
        self._namespace_used: dict[str, int] = {}
        self._keepable = {name: node.slots for name, node in nodes.items()}
        # Invariant: slots of a node that some claim has or may have, each claim counted once, at its larger figure.
        self._committed = {name: sum((node.promised or {}).values()) for name, node in nodes.items()}
        self._holder: Request | None = None

    def keep(self, request: Request) -> None:
        """First pass: what it holds, less what it must give up."""
        kept: dict[str, int] = {}
        for name, held in sorted(request.held.items()):
            node = self._nodes.get(name)
            if node is None or held <= 0:
                continue
            slots = held
            if request.movable:
                if node.state is NodeState.LOST or not _takes(node, request):
                    continue
                slots = min(held, _cap(request))
                if node.state is not NodeState.UNREADY:  # NB: the slots of an unready node are hearsay
                    slots = min(slots, max(0, self._keepable[name]))
            if slots > 0:
                kept[name] = slots
                self._keepable[name] -= slots
                self._claims[name] += 1
        self._trim(request, kept)
        self._planned[request.claim] = kept
        for name, slots in kept.items():
            # A claim in a spec is promised; this only matters where a snapshot was put together by hand.
            self._committed[name] += max(0, slots - self._promised(name, request.claim))
        used = self._namespace_used.get(request.namespace, 0)
        self._namespace_used[request.namespace] = used + sum(kept.values())

    def grow(self, request: Request) -> Placement:
        """Second pass: what is missing, into slots that nobody has."""
        planned = self._planned[request.claim]
        moving = self._on_draining(request, planned)
        missing = request.wanted - (sum(planned.values()) - moving)
        if missing <= 0:
            return Placement(planned)
        rooms = self._rooms(request, planned)
        free = sum(rooms.values())
        allowed = self._allowance(request, moving)
        grant = min(missing, free, allowed)
        if not planned and grant < min(request.minimum, request.wanted):
            grant = 0
        if grant > 0:
            for name, slots in self._choose(request, planned, rooms, grant).items():
                self._give(request, planned, name, slots)
        placed = sum(planned.values())
        if placed >= request.wanted:
            return Placement(planned)
        shortfall = self._shortfall(request, placed, free - grant, allowed - grant)
        if shortfall.reason is Waiting.WAITING_FOR_CAPACITY and not planned:
            self._hold_for(request, rooms)
        return Placement(planned, shortfall)

    def _trim(self, request: Request, kept: dict[str, int]) -> None:
        """Takes from `kept` what is more than wanted."""
        draining = {name for name in kept if request.movable and self._nodes[name].state is NodeState.DRAINING}
        running_elsewhere = sum(
            min(slots, request.running.get(name, 0))
            for name, slots in kept.items()
            if name not in draining and self._nodes[name].state is NodeState.READY
        )
        stable = {name: slots for name, slots in kept.items() if name not in draining}
        self._take(request, kept, stable, sum(stable.values()) - request.wanted)
        moving = {name: kept[name] for name in draining}
        needed = max(0, request.wanted - running_elsewhere)
        self._take(request, kept, moving, sum(moving.values()) - needed)

    def _take(self, request: Request, kept: dict[str, int], among: dict[str, int], surplus: int) -> None:
        heap = [self._take_order(request, name, slots) for name, slots in among.items()]
        heapq.heapify(heap)
        for _ in range(max(0, surplus)):
            *_, name = heap[0]
            kept[name] -= 1
            if kept[name]:
                heapq.heapreplace(heap, self._take_order(request, name, kept[name]))
            else:
                del kept[name]
                heapq.heappop(heap)

    def _take_order(self, request: Request, name: str, slots: int) -> tuple[bool, bool, int, str]:
        # Off nodes that don't work first, then instances that don't run yet, then what leaves the better shape.
        working = self._nodes[name].state is NodeState.READY
        running = request.running.get(name, 0) >= slots
        return working, running, (-slots if request.spread is Spread.SPREAD else slots), name

    def _on_draining(self, request: Request, planned: Mapping[str, int]) -> int:
        if not request.movable:
            return 0
        return sum(slots for name, slots in planned.items() if self._nodes[name].state is NodeState.DRAINING)

    def _allowance(self, request: Request, moving: int) -> int:
        limit = self._limits.get(request.namespace)
        if limit is None:
            return request.wanted
        # What moves is for a short while counted twice; a namespace at its limit must be able to leave a node.
        return max(0, limit.slots - self._namespace_used.get(request.namespace, 0) + moving)

    def _rooms(self, request: Request, planned: Mapping[str, int]) -> dict[str, int]:
        rooms: dict[str, int] = {}
        for name, node in self._nodes.items():
            if node.state is not NodeState.READY or node.promised is None or not _takes(node, request):
                continue
            mine = planned.get(name, 0)
            if not mine and self._claims[name] >= MAX_CLAIMS_PER_NODE:
                continue
            own_slack = max(0, self._promised(name, request.claim) - mine)
            room = min(node.slots - self._committed[name] + own_slack, _cap(request) - mine)
            if room > 0:
                rooms[name] = room
        return rooms

    def _choose(
        self, request: Request, planned: Mapping[str, int], rooms: Mapping[str, int], grant: int
    ) -> dict[str, int]:
        """`grant` slots over nodes with `rooms`; grant <= sum(rooms)."""
        given: dict[str, int] = {}
        empty = {name: self._nodes[name].slots - self._committed[name] for name in rooms}
        if request.spread is Spread.PACK:
            # Where it is already, then where least is left: whole nodes stay free for others.
            for name in sorted(rooms, key=lambda name: (-planned.get(name, 0), empty[name], name)):
                if grant <= 0:
                    break
                given[name] = min(rooms[name], grant)
                grant -= given[name]
            return given
        heap = [(planned.get(name, 0), -empty[name], name) for name in rooms]
        heapq.heapify(heap)
        for _ in range(grant):
            count, room, name = heap[0]
            given[name] = given.get(name, 0) + 1
            if given[name] < rooms[name]:
                heapq.heapreplace(heap, (count + 1, room + 1, name))
            else:
                heapq.heappop(heap)
        return given

    def _give(self, request: Request, planned: dict[str, int], name: str, slots: int) -> None:
        before = planned.get(name, 0)
        if not before:
            self._claims[name] += 1
        planned[name] = before + slots
        promised = self._promised(name, request.claim)
        self._committed[name] += max(promised, planned[name]) - max(promised, before)
        self._namespace_used[request.namespace] = self._namespace_used.get(request.namespace, 0) + slots

    def _hold_for(self, request: Request, rooms: Mapping[str, int]) -> None:
        if self._holder is None and int(request.waited_seconds // PATIENCE_SECONDS) % 2 == 1:
            self._holder = request
            for name, room in rooms.items():
                self._committed[name] += room

    def _shortfall(self, request: Request, placed: int, free: int, allowed: int) -> Shortfall:
        def because(reason: Refusal | Waiting, message: str) -> Shortfall:
            return Shortfall(reason, request.wanted, placed, free, message)

        wanted = _slots(request.wanted)
        if not self._nodes or all(node.state is NodeState.LOST for node in self._nodes.values()):
            return because(Waiting.NO_READY_NODES, f"{wanted} wanted, pool {self._pool} has no node")
        fitting = [
            node
            for node in self._nodes.values()
            if _matches(node, request) and node.name not in request.refusing and node.state is not NodeState.LOST
        ]
        ever = sum(min(node.capacity, _cap(request)) for node in fitting)
        if (request.minimum if request.in_turns else request.wanted) > ever:
            where = f"{_nodes(len(fitting))} of pool {self._pool}"
            if request.node_selector:
                pairs = ",".join(f"{key}={value}" for key, value in sorted(request.node_selector.items()))
                where += f" with {pairs}"
            if request.refusing:
                where += f" that {'does' if len(fitting) == 1 else 'do'} not refuse it"
            each = f", maxPerNode {request.max_per_node}" if request.max_per_node is not None else ""
            return because(
                Refusal.EXCEEDS_POOL_CAPACITY,
                f"{wanted} wanted, {where} can hold {ever} for it{each}; {placed} reserved",
            )
        missing = request.wanted - placed
        limit = self._limits.get(request.namespace)
        if limit is not None and allowed < missing and allowed <= free:
            used = self._namespace_used.get(request.namespace, 0)
            return because(
                Waiting.SHARE_EXCEEDED,
                f"{missing} more of {wanted} wanted, namespace {request.namespace} holds {used} and may hold "
                f"{limit.slots} ({limit.rule})",
            )
        ready = sum(node.state is NodeState.READY for node in fitting)
        if not ready:
            return because(Waiting.NO_READY_NODES, f"{wanted} wanted, none of {_nodes(len(fitting))} is ready")
        message = f"{missing} more of {wanted} wanted, {max(0, free)} free on {_nodes(ready)} of pool {self._pool}"
        small = len(request.too_small.intersection(node.name for node in fitting))
        if small:
            message += f"; the slots of {_nodes(small)} are too small for it, until the agents there are replaced"
        if not placed and request.minimum > 1:
            message += f", at least {min(request.minimum, request.wanted)} must fit at once"
        if self._holder is not None:
            message += f"; free slots are kept for {self._holder.namespace}/{self._holder.name}, which waited longer"
        return because(Waiting.WAITING_FOR_CAPACITY, message)

    def _promised(self, name: str, claim: Claim) -> int:
        return (self._nodes[name].promised or {}).get(claim, 0)


def _matches(node: Node, request: Request) -> bool:
    return all(node.labels.get(key) == value for key, value in request.node_selector.items())


def _takes(node: Node, request: Request) -> bool:
    return _matches(node, request) and node.name not in request.refusing | request.too_small


def _cap(request: Request) -> int:
    return request.max_per_node if request.max_per_node is not None else request.wanted


def _slots(count: int) -> str:
    return f"{count} slot" if count == 1 else f"{count} slots"


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
