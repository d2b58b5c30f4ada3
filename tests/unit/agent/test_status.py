"""The node's status: what is in it, and when it is worth a write to the API server.

Covers: times of conditions; sums of slots; edges at once but at most once a second; live figures by 5 % or a minute;
and that what is encoded has every field that the API server requires.
"""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from wasmpool_agent.status import (
    EDGES_AT_ONCE,
    Counts,
    Finding,
    Written,
    build_status,
    conditions,
    is_passing,
    node_memory,
    node_slots,
    publish_in,
    written_now,
)
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import Backing
from wasmpool_api.instance_pool_node import AgentInfo, InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.reasons import Outcome, Progress, Waiting
from wasmpool_api.region import RegionShape

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
AGENT = AgentInfo(pod_uid="u", pod_name="p", version="1", wasmtime_version="2")


def _entry(used: int = 1, **fields: object) -> NodeWorkload:
    base = NodeWorkload(uid="w", revision="r", state=WorkloadState.RUNNING, reserved_slots=4, used_slots=used)
    return msgspec.structs.replace(base, **fields)


def _status(
    *, used: int = 1, capacity: int = 100, entry: NodeWorkload | None = None, generation: int = 3
) -> InstancePoolNodeStatus:
    return build_status(
        before=None,
        generation=generation,
        agent=AGENT,
        findings=[Finding("Ready", True, "AgentReady")],
        counts=Counts(capacity=capacity, used=used, quarantined=0, reserved=4),
        shape=None,
        workloads=[entry or _entry()],
        now=NOON,
    )


def test_a_conditions_time_changes_with_its_status_and_with_nothing_else() -> None:
    (first,) = conditions((), [Finding("Ready", False, "A", "x")], generation=1, now=NOON)
    later = NOON + timedelta(hours=1)
    (second,) = conditions((first,), [Finding("Ready", False, "B", "y")], generation=2, now=later)
    (third,) = conditions((second,), [Finding("Ready", True, "C")], generation=2, now=later)
    assert first.last_transition_time == second.last_transition_time == "2026-01-02T12:00:00Z"
    assert (second.reason, second.message, second.observed_generation) == ("B", "y", 2)
    assert third.last_transition_time == "2026-01-02T13:00:00Z"


def test_what_is_not_known_is_unknown_and_not_false() -> None:
    (found,) = conditions((), [Finding("RegionReserved", None, "Reserving")], generation=1, now=NOON)
    assert found.status == "Unknown"


def test_a_message_is_never_longer_than_the_schema_allows() -> None:
    (found,) = conditions((), [Finding("Ready", False, "A", "x" * 5000)], generation=1, now=NOON)
    assert len(found.message) == 1024
    assert found.message.endswith("...")


def test_slots_add_up() -> None:
    slots = node_slots(Counts(capacity=10, used=3, quarantined=2, reserved=5))
    assert slots.allocatable == slots.capacity - slots.quarantined == 8
    assert slots.free == slots.allocatable - slots.reserved == 3


@pytest.mark.parametrize(
    ("backing", "page_bytes", "text"),
    [
        (Backing.HUGE_PAGES_2MI, 2 * 2**20, "2Mi"),
        (Backing.HUGE_PAGES_1GI, 2**30, "1Gi"),
        (Backing.BASE_PAGES, 4096, "4Ki"),
    ],
)
def test_the_page_size_is_written_as_kubernetes_writes_it(backing: Backing, page_bytes: int, text: str) -> None:
    shape = RegionShape(backing, page_bytes, 2 * 2**20, 4, 8 * 2**20, guarded=False)
    assert node_memory(shape).page_size == text


def test_the_first_status_is_written_at_once_and_the_same_one_never_again() -> None:
    status = _status()
    assert publish_in(None, status, 0.0) == 0
    assert publish_in(Written(status, 0.0), status, 1e9) is None


@pytest.mark.parametrize(
    "changed",
    [
        _status(entry=_entry(state=WorkloadState.BACK_OFF)),
        _status(entry=_entry(reason="Other")),
        _status(entry=_entry(completed="0-3")),
        _status(entry=_entry(reserved_slots=5)),
        _status(entry=_entry(used=4)),
        msgspec.structs.replace(_status(), observed_generation=4),
    ],
    ids=["state", "reason", "completions", "reservation", "all run now", "generation"],
)
def test_an_edge_is_written_at_once_but_not_for_ever_more_than_once_a_second(changed: InstancePoolNodeStatus) -> None:
    spent = Written(_status(), at=10.0, credit=0.0)
    assert publish_in(spent, changed, 20.0) == 0
    assert publish_in(spent, changed, 10.25) == pytest.approx(0.75)
    assert publish_in(Written(_status(), at=10.0), changed, 10.0) == 0


@pytest.mark.parametrize("every", [0.05, 0.3, 1.0])
def test_writes_are_few_at_once_and_one_a_second_in_the_long_run(every: float) -> None:
    written, writes, now = None, 0, 0.0
    while now < 60:
        status = _status(entry=_entry(reason=str(now)))
        if publish_in(written, status, now) == 0:
            written = written_now(written, status, now)
            writes += 1
        now += every
    assert 59 <= writes <= 60 + EDGES_AT_ONCE


STARTING = _entry(state=WorkloadState.PENDING, reason=Progress.STARTING, reserved_slots=0, used_slots=0)


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        pytest.param(STARTING, True, id="begins"),
        pytest.param(msgspec.structs.replace(STARTING, reserved_slots=4), True, id="holds slots meanwhile"),
        pytest.param(_entry(state=WorkloadState.COMPILING, reason=Progress.COMPILING), True, id="is compiled"),
        pytest.param(_entry(state=WorkloadState.PULLING, reason=Waiting.MODULE_PULL_FAILED), False, id="pull fails"),
        pytest.param(_entry(state=WorkloadState.INSPECTED, reason=Outcome.MODULE_VALID), False, id="is inspected"),
        pytest.param(_entry(reason="Running"), False, id="runs"),
    ],
)  # fmt: skip
def test_what_is_on_its_way_may_be_skipped(changed: NodeWorkload, passes: bool) -> None:
    other = _entry(uid="other", reason="Running")
    before = msgspec.structs.replace(_status(), workloads=(other,))
    after = msgspec.structs.replace(_status(generation=4), workloads=(other, changed))
    assert is_passing(before, after) == passes
    assert not is_passing(before, after, {("w", "r")}), "somebody waits for it"
    inspected = _entry(revision="r0", state=WorkloadState.INSPECTED, reason=Outcome.MODULE_VALID)
    assert is_passing(msgspec.structs.replace(before, workloads=(other, inspected)), after) == passes
    worse = msgspec.structs.replace(after, workloads=(msgspec.structs.replace(other, reason="BackOff"), changed))
    assert not is_passing(before, worse), "nor with other news"


def test_live_figures_wait_for_a_minute() -> None:
    written = Written(_status(used=1), at=10.0)
    for changed in (_status(used=5), _status(entry=_entry(used=2)), _status(entry=_entry(restarts=7))):
        assert publish_in(written, changed, 15.0) == pytest.approx(55.0)
        assert publish_in(written, changed, 70.0) == 0


def test_use_that_moves_by_five_percent_of_capacity_is_written_at_once() -> None:
    written = Written(_status(used=1), at=10.0)
    assert publish_in(written, _status(used=6), 15.0) == 0
    assert publish_in(written, _status(used=5), 15.0) != 0


def test_in_a_small_pool_five_percent_is_one_slot() -> None:
    written = Written(_status(used=1, capacity=4), at=10.0)
    assert publish_in(written, _status(used=2, capacity=4), 15.0) == 0


def test_required_fields_are_there_even_where_they_are_zero() -> None:
    entry = NodeWorkload(uid="w", revision="r", state=WorkloadState.PENDING)
    encoded = encode(_status(used=0, entry=entry))
    assert encoded["slots"]["used"] == 0
    assert list(encoded["workloads"]) == [
        {"uid": "w", "revision": "r", "state": "Pending", "reservedSlots": 0, "usedSlots": 0}
    ]
    assert encoded["agent"]["podUID"] == "u"
