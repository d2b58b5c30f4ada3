"""One run of `place`: first everybody keeps what they hold, then those who want more grow."""

import heapq
from collections.abc import Mapping
from typing import Final

from wasmpool_api.placement.model import (
    Claim,
    NamespaceLimit,
    Node,
    NodeState,
    Placement,
    Request,
    cap,
    takes,
)
from wasmpool_api.placement.shortfall import Situation, shortfall_of
from wasmpool_api.reasons import Waiting
from wasmpool_api.wasm_workload import Spread

PATIENCE_SECONDS: Final = 300.0
MAX_CLAIMS_PER_NODE: Final = 1000
"""An InstancePoolNode takes 1024 assignments; the rest is left to inspections, which hold no slot."""


class Cycle:
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
                if node.state is NodeState.LOST or not takes(node, request):
                    continue
                slots = min(held, cap(request))
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
        situation = Situation(
            pool=self._pool,
            nodes=self._nodes.values(),
            placed=placed,
            free=free - grant,
            allowed=allowed - grant,
            limit=self._limits.get(request.namespace),
            namespace_used=self._namespace_used.get(request.namespace, 0),
            holder=self._holder,
        )
        shortfall = shortfall_of(request, situation)
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
            if node.state is not NodeState.READY or node.promised is None or not takes(node, request):
                continue
            mine = planned.get(name, 0)
            if not mine and self._claims[name] >= MAX_CLAIMS_PER_NODE:
                continue
            own_slack = max(0, self._promised(name, request.claim) - mine)
            room = min(node.slots - self._committed[name] + own_slack, cap(request) - mine)
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

    def _promised(self, name: str, claim: Claim) -> int:
        return (self._nodes[name].promised or {}).get(claim, 0)
