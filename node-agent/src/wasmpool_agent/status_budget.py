"""What of a node's status gives way where the API server would not take it all. Pure.

An object has to fit into one request to etcd, 1.5 MiB: 1,024 assignments take up to 0.6 MiB of it, and what the agent
says of them gets `STATUS_BYTES`. An entry is never left out: to the operator, one that is missing holds no slots.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.reasons import PERMANENT, Progress

STATUS_BYTES: Final = 832 * 1024
"""Of all entries together, as the API server writes them down."""
MESSAGES_BYTES: Final = 512 * 1024
"""Of their messages."""
LEAST_MESSAGE_BYTES: Final = 64
"""What every message has, however many longer and weightier ones there are."""
REFUSED_MESSAGE_LENGTH: Final = 256

_PLAIN_ENTRY_BYTES: Final = 640
_MODULE_BYTES: Final = 4096
_CHARACTER_BYTES: Final = 6
"""The most of one: Go writes <, > and & as \\u003c, as it writes control characters."""
_NO_ROOM: Final = "the module is inspected; what it needs waits for room in this node's status"


def within_budget(entries: Sequence[NodeWorkload]) -> tuple[NodeWorkload, ...]:
    """The same entries in their order, and what they say cut to what fits. Depends on nothing but them.

    Of modules that were inspected the last ones wait. Of messages, those of what somebody has to mend come first: of
    the others, and then of those, the longest are cut, to the same length.
    """
    if sum(map(_most_bytes, entries)) <= STATUS_BYTES:
        return tuple(entries)
    bare = [_bytes_of(msgspec.structs.replace(it, message="")) for it in entries]
    entries = _modules_that_fit(entries, bare, STATUS_BYTES - LEAST_MESSAGE_BYTES * len(entries))
    left = min(MESSAGES_BYTES, STATUS_BYTES - sum(bare))
    sizes = [_text_bytes(it.message) for it in entries]
    weighty = [_is_weighty(it) for it in entries]
    light = [size for size, first in zip(sizes, weighty, strict=True) if not first]
    heavy = [size for size, first in zip(sizes, weighty, strict=True) if first]
    heavy_most = _level(heavy, left - sum(min(size, LEAST_MESSAGE_BYTES) for size in light))
    light_most = _level(light, left - sum(min(size, heavy_most) for size in heavy))
    return tuple(
        _saying(it, _cut(it.message, heavy_most if first else light_most))
        for it, first in zip(entries, weighty, strict=True)
    )


def reductions(status: InstancePoolNodeStatus, refused: Iterable[int]) -> Iterator[InstancePoolNodeStatus]:
    """What to write in place of a status that was refused, less each time. `refused`: the entries that were named."""
    named, tried = frozenset(refused), status.workloads
    for less in (
        [_without_extras(it) if index in named else it for index, it in enumerate(tried)],
        [_bare(it) if index in named else _saying(it, "") for index, it in enumerate(tried)],
        [_bare(it) for it in tried],
    ):
        workloads = tuple(less)
        if workloads != tried:
            yield msgspec.structs.replace(status, workloads=workloads)
        tried = workloads


def _without_extras(entry: NodeWorkload) -> NodeWorkload:
    cut = msgspec.structs.replace(_without_module(entry), digest="", exit_code=None, component_host=None, restarts=0)
    return _saying(cut, _cut(cut.message, REFUSED_MESSAGE_LENGTH))


def _bare(entry: NodeWorkload) -> NodeWorkload:
    """Whose it is, where it stands, what it holds and what is done: all that anybody acts on."""
    return msgspec.structs.replace(_without_extras(entry), reason="", message="")


def _without_module(entry: NodeWorkload) -> NodeWorkload:
    if entry.state is not WorkloadState.INSPECTED:
        return msgspec.structs.replace(entry, module=None)
    return msgspec.structs.replace(
        entry, module=None, state=WorkloadState.PENDING, reason=Progress.INSPECTING, message=_NO_ROOM
    )


def _modules_that_fit(entries: Sequence[NodeWorkload], bare: list[int], most: int) -> list[NodeWorkload]:
    """`bare`: bytes of each without its message; those of what is taken away are taken from it."""
    result = list(entries)
    total = sum(bare)
    for index in reversed(range(len(result))):
        if total <= most:
            break
        if result[index].module is not None:
            result[index] = _without_module(result[index])
            total -= bare[index]
            bare[index] = _bytes_of(msgspec.structs.replace(result[index], message=""))
            total += bare[index]
    return result


def _is_weighty(entry: NodeWorkload) -> bool:
    return entry.state in {WorkloadState.REFUSED, WorkloadState.FAILED} or entry.reason in PERMANENT


def _level(sizes: Sequence[int], budget: int) -> int:
    """The largest number so that sizes, none of them larger, sum up to `budget` or less; 0 where none is."""
    left = max(0, budget)
    for index, size in enumerate(sorted(sizes)):
        each = left // (len(sizes) - index)
        if size > each:
            return each
        left -= size
    return max(sizes, default=0)


def _saying(entry: NodeWorkload, message: str) -> NodeWorkload:
    return entry if message == entry.message else msgspec.structs.replace(entry, message=message)


def _cut(message: str, most: int) -> str:
    """Ends with "..." where it was longer than `most` bytes."""
    if _text_bytes(message) <= most:
        return message
    left = most - 3
    if left < 0:
        return ""
    kept = 0
    for character in message:
        left -= _text_bytes(character)
        if left < 0:
            break
        kept += 1
    return message[:kept] + "..."


def _text_bytes(text: str) -> int:
    """As the API server writes it down, or more; without the quotes."""
    written = len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) - 2
    return written + sum(text.count(it) for it in "<>&\x7f") * (_CHARACTER_BYTES - 1)


def _bytes_of(entry: NodeWorkload) -> int:
    return len(msgspec.json.encode(encode(entry))) + 1


def _most_bytes(entry: NodeWorkload) -> int:
    """More than it can be, and found quickly: the status is made twenty times a second where much happens."""
    module = _MODULE_BYTES if entry.module is not None else 0
    texts = len(entry.message) * _CHARACTER_BYTES + len(entry.completed) + len(entry.failed)
    return _PLAIN_ENTRY_BYTES + module + texts
