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

from collections.abc import Iterable, Mapping, Sequence

from wasmpool_api.placement.cycle import MAX_CLAIMS_PER_NODE, PATIENCE_SECONDS, Cycle
from wasmpool_api.placement.model import Claim, NamespaceLimit, Node, NodeState, Placement, Request, Shortfall

__all__ = [
    "MAX_CLAIMS_PER_NODE",
    "PATIENCE_SECONDS",
    "Claim",
    "NamespaceLimit",
    "Node",
    "NodeState",
    "Placement",
    "Request",
    "Shortfall",
    "place",
]


def place(
    pool: str,
    nodes: Sequence[Node],
    requests: Iterable[Request],
    limits: Mapping[str, NamespaceLimit] | None = None,
) -> dict[Claim, Placement]:
    """Places every request; the result has one entry for each. The order of the arguments does not matter."""
    cycle = Cycle(pool, {node.name: node for node in sorted(nodes, key=lambda node: node.name)}, limits or {})
    order = sorted(requests, key=lambda request: (-request.priority, request.created, request.claim))
    for request in order:
        cycle.keep(request)
    return {request.claim: cycle.grow(request) for request in order}
