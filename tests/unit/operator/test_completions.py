"""Counted runs: every index is done, out on one node, or left, and nothing is run twice without leave."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import agent_info, member, pool_node, workload
from wasmpool_api.instance_pool_node import Assignment
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.pool.members import Member
from wasmpool_operator.workload.completions import Completions, completions_of, deal
from wasmpool_operator.workload.ranges import Ranges
from wasmpool_operator.workload.reports import index_of


def on(
    node: str, indexes: str, *, completed: str = "", failed: str = "", pod_uid: str = "pod-1", lost: bool = False
) -> Member:
    assignment = Assignment(uid="uid-job", namespace="team", name="job", revision="r", slots=1, indexes=indexes)
    entry = {"uid": "uid-job", "revision": "r", "state": "Running", "completed": completed, "failed": failed}
    status = {"observedGeneration": 1, "agent": agent_info(), "workloads": [entry]}
    return member(pool_node(node, assignments=(assignment,), status=status), pod_uid=pod_uid, lost=lost, ready=not lost)


def job(
    instances: int, policy: str = "Never", *, status: dict[str, object] | None = None, **spec: object
) -> WasmWorkload:
    return workload(instances=instances, run={"command": {"restartPolicy": policy}}, status=status, **spec)


def counted(found: WasmWorkload, *members: Member, gone: tuple[str, ...] = ()) -> Completions:
    index = index_of(members)
    uid = found.metadata.uid
    return completions_of(found, index.reports.get(uid, ()), index.places.get(uid, ()), gone)


def test_completed_and_failed_runs_are_done_and_the_rest_is_out_or_left() -> None:
    found = counted(job(5), on("n1", "0-2", completed="0", failed="2"))
    assert (found.text, found.succeeded, found.failed) == ("0,2", 1, 1)
    assert found.out == {("r", "n1"): Ranges.of({1})}
    assert list(found.left) == [3, 4]


def test_what_status_remembers_is_not_counted_again() -> None:
    status = {
        "completions": "0,2",
        "instances": {"desired": 5, "reserved": 0, "ready": 0, "succeeded": 1, "failed": 1},
    }
    found = counted(job(5, status=status), on("n1", "0-2", completed="0", failed="2"))
    assert (found.text, found.succeeded, found.failed) == ("0,2", 1, 1)


def test_an_index_of_an_on_failure_workload_that_an_agent_gave_up_is_done_and_failed() -> None:
    found = counted(job(2, "OnFailure"), on("n1", "0-1", failed="0"))
    assert (found.text, found.failed) == ("0", 1)
    assert found.out == {("r", "n1"): Ranges.of({1})}


def test_a_never_index_that_was_out_on_a_node_that_is_gone_has_failed() -> None:
    found = counted(job(2), on("n1", "0"), gone=("n1",))
    assert (found.text, found.failed, list(found.left)) == ("0", 1, [1])


def test_a_never_index_that_an_earlier_agent_pod_had_has_failed() -> None:
    found = counted(job(2), on("n1", "0", pod_uid="pod-2"))
    assert (found.text, found.failed) == ("0", 1)


def test_a_never_index_stays_out_on_a_lost_node_until_the_node_is_gone() -> None:
    assert counted(job(1), on("n1", "0", lost=True)).out == {("r", "n1"): Ranges.of({0})}


@pytest.mark.parametrize(("policy", "choice"), [("OnFailure", None), ("Never", "Replace")])
def test_an_index_that_may_run_again_is_left_over_when_its_node_is_lost(policy: str, choice: str | None) -> None:
    spec = {"onNodeLost": choice} if choice else {}
    found = counted(job(1, policy, **spec), on("n1", "0", lost=True))
    assert (found.out, list(found.left), found.failed) == ({}, [0], 0)


def test_indexes_that_nobody_can_read_count_as_none() -> None:
    assert counted(job(2), on("n1", "0-1", completed="9-0,x")).text == ""


@given(
    total=st.integers(0, 12),
    done=st.frozensets(st.integers(0, 14)),
    held=st.dictionaries(st.sampled_from("abc"), st.frozensets(st.integers(0, 11)), max_size=3),
    slots=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), max_size=4),
)
def test_no_index_is_dealt_twice_and_none_that_is_done(
    total: int, done: frozenset[int], held: dict[str, frozenset[int]], slots: dict[str, int]
) -> None:
    out: dict[tuple[str, str], Ranges] = {}
    taken = set(done)
    for name, indexes in sorted(held.items()):
        out["r", name] = Ranges.of(it for it in indexes if it < total and it not in taken)
        taken.update(out["r", name])
    found = Completions(total=total, done=Ranges.of(done), out=out)
    dealt = deal(found, "r", slots)
    every = [index for indexes in dealt.values() for index in indexes]
    assert len(every) == len(set(every))
    assert not set(every) & done
    assert all(index < total for index in every)
    for name, indexes in dealt.items():
        assert len(indexes) <= slots[name]
        assert set(sorted(out.get(("r", name), Ranges()))[: slots[name]]) <= indexes


def test_a_million_indexes_cost_no_more_than_their_ranges() -> None:
    workload = job(1_000_000, "OnFailure", status={"completions": "0-399998,400000-899999"})
    tracemalloc.start()
    try:
        found = counted(workload, on("n1", "399999,900000-900003", completed="900001"))
        dealt = deal(found, "r", {"n1": 4, "n2": 2})
        assert (len(found.left), found.finished) == (99_996, False)
        assert found.text == "0-399998,400000-899999,900001"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dealt == {"n1": {399_999, 900_000, 900_002, 900_003}, "n2": {900_004, 900_005}}
    assert peak < 200_000
