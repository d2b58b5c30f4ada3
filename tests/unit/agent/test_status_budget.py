"""What gives way in a node's status that is too large.

Covers: what fits is left as it is; the sum of what does not; whose message is cut first, and how far; that no entry, no
count and no index is ever lost; what is tried in place of a status that was refused.
"""

import json

from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace

from wasmpool_agent.status_budget import (
    LEAST_MESSAGE_BYTES,
    MESSAGES_BYTES,
    STATUS_BYTES,
    reductions,
    within_budget,
)
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.wasm_workload import ModuleStatus

MOST = 1024
MODULE = ModuleStatus(digest="sha256:" + "a" * 64, image="i" * 1280, size_bytes=1)


def entry(number: int, message: str = "", state: WorkloadState = WorkloadState.BACK_OFF) -> NodeWorkload:
    return NodeWorkload(
        uid=f"uid-{number:032d}", revision=f"r{number:050d}", state=state, message=message, reserved_slots=number,
        completed="0-2,5",
    )  # fmt: skip


def identity(found: NodeWorkload) -> tuple[object, ...]:
    return found.uid, found.revision, found.reserved_slots, found.used_slots, found.completed, found.failed


def written(text: object) -> int:
    """As Go does it."""
    told = json.dumps(text, ensure_ascii=False)
    return len(told.encode()) + sum(told.count(it) for it in "<>&") * 5


def test_what_fits_is_left_as_it_is() -> None:
    entries = [entry(number, "m" * 1024) for number in range(100)]
    assert within_budget(entries) == tuple(entries)


def test_messages_of_what_somebody_must_mend_are_cut_last() -> None:
    entries = [
        entry(number, "m" * 1024, WorkloadState.REFUSED if number < 300 else WorkloadState.BACK_OFF)
        for number in range(MOST)
    ]
    found = within_budget(entries)
    assert all(it.message == "m" * 1024 for it in found[:300])
    lengths = {len(it.message) for it in found[300:]}
    assert len(lengths) == 1
    assert LEAST_MESSAGE_BYTES < lengths.pop() < 1024
    assert all(it.message.endswith("m...") for it in found[300:])


def test_a_permanent_reason_is_something_to_mend_wherever_the_workload_stands() -> None:
    entries = [
        replace(entry(number, "m" * 1024), reason="UnsupportedFeature" if number == 7 else "") for number in range(MOST)
    ]
    found = within_budget(entries)
    assert [index for index, it in enumerate(found) if it.message == "m" * 1024] == [7]


def test_nobody_is_silenced_by_those_who_come_first() -> None:
    entries = [
        entry(number, "m" * 1024, WorkloadState.FAILED if number else WorkloadState.BACK_OFF) for number in range(MOST)
    ]
    found = within_budget(entries)
    assert LEAST_MESSAGE_BYTES <= len(found[0].message) < 1024
    assert all(len(it.message) > LEAST_MESSAGE_BYTES for it in found[1:])


texts = some.text(some.sampled_from("m<&\n\x00é😀"), max_size=30).map(lambda it: it * 34)
states = some.sampled_from(list(WorkloadState))
modules = some.sampled_from([None, MODULE])


@settings(max_examples=25, deadline=None)
@given(some.lists(some.tuples(texts, states, modules), min_size=1, max_size=16), some.integers(1, 64))
def test_all_entries_stay_and_together_they_fit(
    kinds: list[tuple[str, WorkloadState, ModuleStatus | None]], times: int
) -> None:
    entries = [
        replace(entry(number, text, state), module=module) for number, (text, state, module) in enumerate(kinds * times)
    ]
    found = within_budget(entries)
    assert found == within_budget(entries)
    assert [identity(it) for it in found] == [identity(it) for it in entries]
    assert sum(written(encode(it)) for it in found) <= STATUS_BYTES + 40 * len(found)  # json's own spaces
    if found != tuple(entries):
        assert sum(written(it.message) for it in found) <= MESSAGES_BYTES + 3 * len(found)


def test_a_refused_status_loses_the_named_entries_extras_then_all_messages_then_all_that_can_be() -> None:
    full = replace(entry(0, "m" * 300, WorkloadState.INSPECTED), module=MODULE, digest="d", exit_code=3, restarts=9)
    other = replace(full, uid="other", reason="ModuleValid")
    status = InstancePoolNodeStatus(workloads=(full, other))
    first, second, third = reductions(status, {0})
    named, untouched = first.workloads
    assert (named.state, named.reason, named.module) == (WorkloadState.PENDING, "Inspecting", None)
    assert (named.digest, named.exit_code, named.restarts) == ("", None, 0)
    assert untouched == other
    assert [it.message for it in second.workloads] == ["", ""]
    assert second.workloads[1].module == MODULE
    assert [it.module for it in third.workloads] == [None, None]
    for reduced in (first, second, third):
        assert [identity(it) for it in reduced.workloads] == [identity(it) for it in status.workloads]


def test_a_status_of_which_nothing_can_be_cut_is_not_tried_again() -> None:
    assert list(reductions(InstancePoolNodeStatus(workloads=(entry(0),)), {0})) == []
