"""In words: why fewer slots than wanted were placed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wasmpool_api.placement.model import NamespaceLimit, Node, NodeState, Request, Shortfall, cap, matches
from wasmpool_api.reasons import Refusal, Waiting


@dataclass(frozen=True, slots=True)
class Situation:
    """A pool after a request was placed as far as it goes.

    `placed`: slots of the request. `free`: more that it could use. `allowed`: more that its namespace may hold, by
    `limit` if there is one. `namespace_used`: slots that it holds. `holder`: for whom free slots are kept.
    """

    pool: str
    nodes: Collection[Node]
    placed: int
    free: int
    allowed: int
    limit: NamespaceLimit | None
    namespace_used: int
    holder: Request | None


def shortfall_of(request: Request, now: Situation) -> Shortfall:
    """Why the request has fewer slots than it wants. The first reason that waiting would not cure, if there is one."""

    def because(reason: Refusal | Waiting, message: str) -> Shortfall:
        return Shortfall(reason, request.wanted, now.placed, now.free, message)

    wanted, missing = _slots(request.wanted), request.wanted - now.placed
    if all(node.state is NodeState.LOST for node in now.nodes):
        return because(Waiting.NO_READY_NODES, f"{wanted} wanted, pool {now.pool} has no node")
    fitting = [
        node
        for node in now.nodes
        if matches(node, request) and node.name not in request.refusing and node.state is not NodeState.LOST
    ]
    ever = sum(min(node.capacity, cap(request)) for node in fitting)
    if (request.minimum if request.in_turns else request.wanted) > ever:
        each = f", maxPerNode {request.max_per_node}" if request.max_per_node is not None else ""
        return because(
            Refusal.EXCEEDS_POOL_CAPACITY,
            f"{wanted} wanted, {_where(request, now, fitting)} can hold {ever} for it{each}; {now.placed} reserved",
        )
    if now.limit is not None and now.allowed < missing and now.allowed <= now.free:
        return because(
            Waiting.SHARE_EXCEEDED,
            f"{missing} more of {wanted} wanted, namespace {request.namespace} holds {now.namespace_used} and may hold "
            f"{now.limit.slots} ({now.limit.rule})",
        )
    ready = sum(node.state is NodeState.READY for node in fitting)
    if not ready:
        return because(Waiting.NO_READY_NODES, f"{wanted} wanted, none of {_nodes(len(fitting))} is ready")
    message = f"{missing} more of {wanted} wanted, {max(0, now.free)} free on {_nodes(ready)} of pool {now.pool}"
    small = len(request.too_small.intersection(node.name for node in fitting))
    if small:
        message += f"; the slots of {_nodes(small)} are too small for it, until the agents there are replaced"
    if not now.placed and request.minimum > 1:
        message += f", at least {min(request.minimum, request.wanted)} must fit at once"
    if now.holder is not None:
        message += f"; free slots are kept for {now.holder.namespace}/{now.holder.name}, which waited longer"
    return because(Waiting.WAITING_FOR_CAPACITY, message)


def _where(request: Request, now: Situation, fitting: Sequence[Node]) -> str:
    where = f"{_nodes(len(fitting))} of pool {now.pool}"
    if request.node_selector:
        pairs = ",".join(f"{key}={value}" for key, value in sorted(request.node_selector.items()))
        where += f" with {pairs}"
    if request.refusing:
        where += f" that {'does' if len(fitting) == 1 else 'do'} not refuse it"
    return where


def _slots(count: int) -> str:
    return f"{count} slot" if count == 1 else f"{count} slots"


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
