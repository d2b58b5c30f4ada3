"""One node without an operator: what is assigned, given manifests and the node's status.

Covers: inspection before reservation; ports, and who answers while a revision goes; the pinned revision; indexes dealt
out and never twice; waiting and never; pools and namespaces that do not fit; and, over any order of ends, that every
index runs and the slots are never overdrawn.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from wasmpool_agent.standalone_plan import Plan, plan
from wasmpool_agent.standalone_serving import Ledger
from wasmpool_agent.status import Counts, node_slots
from wasmpool_api.codec import decode
from wasmpool_api.indexes import format_indexes, parse_indexes
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNodeStatus, NodeWorkload, WorkloadState
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import revision_of
from wasmpool_api.wasm_workload import ModuleStatus, WasmWorkload

DIGEST = "sha256:" + "0" * 64


def _pool(**tenancy: object) -> InstancePool:
    return decode(
        InstancePool,
        {
            "metadata": {"name": "small", "namespace": "default"},
            "spec": {"instanceLimits": {"count": 4}, "tenancy": tenancy},
        },
    )


def _workload(
    name: str, instances: int = 1, *, policy: str = "Never", namespace: str = "default", **spec: object
) -> WasmWorkload:
    return decode(
        WasmWorkload,
        {
            "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}.{name}"},
            "spec": {
                "poolRef": {"name": "small", "namespace": "default"},
                "module": {"configMap": {"name": "guests", "key": "a"}},
                "run": {"command": {"restartPolicy": policy}},
                "instances": instances,
                **spec,
            },
        },
    )


def _status(*entries: NodeWorkload) -> InstancePoolNodeStatus:
    reserved = sum(entry.reserved_slots for entry in entries)
    return InstancePoolNodeStatus(
        slots=node_slots(Counts(capacity=4, used=0, quarantined=0, reserved=reserved)), workloads=entries
    )


def _inspected(*workloads: WasmWorkload) -> Ledger:
    return Ledger(modules={revision_of(it).name: ModuleStatus(digest=DIGEST) for it in workloads})


def _slots(found: Plan) -> dict[str, int]:
    return {it.name: it.slots for it in found.assignments}


def test_a_workload_is_inspected_before_it_holds_a_slot() -> None:
    workload = _workload("a")
    (assigned,) = plan(_pool(), [workload], _status(), Ledger()).assignments
    assert (assigned.inspect, assigned.slots, assigned.revision) == (True, 0, revision_of(workload).name)


def test_what_was_inspected_runs_with_its_digest_pinned() -> None:
    workload, ledger = _workload("a", 2), Ledger()
    entry = NodeWorkload(
        uid="default.a",
        revision=revision_of(workload).name,
        state=WorkloadState.INSPECTED,
        module=ModuleStatus(digest=DIGEST),
    )
    ledger.learn(_status(entry))
    found = plan(_pool(), [workload], _status(entry), ledger)
    (assigned,) = found.assignments
    assert (assigned.inspect, assigned.slots, assigned.indexes) == (False, 2, "0-1")
    assert found.revisions[assigned.revision].digest == DIGEST


def test_nothing_is_reserved_while_there_is_no_region() -> None:
    workload = _workload("a")
    assert plan(_pool(), [workload], InstancePoolNodeStatus(), _inspected(workload)).assignments == ()


def test_what_does_not_fit_now_waits_and_what_never_fits_is_told_so() -> None:
    workloads = [_workload("a", 3), _workload("b", 2), _workload("c", 5)]
    found = plan(_pool(), workloads, _status(), _inspected(*workloads))
    assert _slots(found) == {"a": 3}
    reports = {it.name: it for it in found.reports}
    assert reports["b"].reason == Waiting.WAITING_FOR_CAPACITY
    assert not reports["b"].settled
    assert reports["c"].reason == Refusal.EXCEEDS_POOL_CAPACITY
    assert reports["c"].settled


def test_priority_comes_before_the_name() -> None:
    workloads = [_workload("a", 3), _workload("b", 3, priority=1)]
    assert _slots(plan(_pool(), workloads, _status(), _inspected(*workloads))) == {"b": 3}


def test_a_namespaces_share_is_held() -> None:
    workload = _workload("a", 3, policy="Always")
    found = plan(_pool(maxShare="50%"), [workload], _status(), _inspected(workload))
    assert _slots(found) == {"a": 2}


def test_another_pools_workload_is_left_alone_and_told() -> None:
    workload = _workload("a", poolRef={"name": "large"})
    found = plan(_pool(), [workload], _status(), Ledger())
    assert found.assignments == ()
    assert found.reports[0].reason == Waiting.POOL_NOT_FOUND
    assert "default/large" in found.reports[0].message


def test_another_namespaces_workload_needs_the_pools_leave() -> None:
    workload = _workload("a", namespace="other")
    (report,) = plan(_pool(), [workload], _status(), Ledger()).reports
    assert report.reason == Refusal.NAMESPACE_NOT_ALLOWED
    allowed = plan(_pool(allowedNamespaces={"from": "All"}), [workload], _status(), Ledger())
    assert len(allowed.assignments) == 1


def test_one_that_the_agent_refused_holds_no_slot_and_goes_on_saying_why() -> None:
    workload = _workload("a", 2)
    ledger = _inspected(workload)
    revision = revision_of(workload, DIGEST)
    entry = NodeWorkload(
        uid="default.a", revision=revision.name, state=WorkloadState.REFUSED, reason="UnsupportedFeature", message="x"
    )
    ledger.learn(_status(entry))
    found = plan(_pool(), [workload], _status(entry), ledger)
    assert [(it.slots, it.revision) for it in found.assignments] == [(0, revision.name)]
    assert (found.reports[0].reason, found.reports[0].settled) == ("UnsupportedFeature", True)


def test_the_same_plan_follows_from_the_same_state() -> None:
    workloads = [_workload("a", 3), _workload("b", 4, policy="Always")]
    ledger = _inspected(*workloads)
    assert plan(_pool(), workloads, _status(), ledger) == plan(_pool(), workloads, _status(), ledger)


@settings(max_examples=50, deadline=None)
@given(totals=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data())
def test_every_index_runs_once_and_no_more_slots_are_given_than_there_are(
    totals: list[int], data: st.DataObject
) -> None:
    workloads = [_workload(f"w{at}", total, minInstances=1) for at, total in enumerate(totals)]
    ledger = _inspected(*workloads)
    status = _status()
    began: dict[str, list[int]] = {it.metadata.name: [] for it in workloads}
    done: dict[str, set[int]] = {it.metadata.name: set() for it in workloads}
    for _ in range(sum(totals) + 5):
        found = plan(_pool(), workloads, status, ledger)
        assert sum(it.slots for it in found.assignments) <= 4
        entries: list[NodeWorkload] = []
        for assigned in found.assignments:
            indexes = parse_indexes(assigned.indexes)
            assert len(indexes) == assigned.slots
            began[assigned.name] += [it for it in sorted(indexes) if it not in began[assigned.name]]
            open_now = sorted(indexes - done[assigned.name])
            ended = data.draw(st.integers(1, len(open_now))) if open_now else 0
            done[assigned.name] |= set(open_now[:ended])
            entries.append(
                NodeWorkload(
                    uid=assigned.uid,
                    revision=assigned.revision,
                    state=WorkloadState.RUNNING,
                    reserved_slots=assigned.slots,
                    completed=format_indexes(indexes & done[assigned.name]),
                )
            )
        status = _status(*entries)
        ledger.learn(status)
        if all(report.settled for report in found.reports):
            break
    assert [len(done[f"w{at}"]) for at in range(len(totals))] == totals
    assert all(len(set(order)) == len(order) for order in began.values())


def _web(name: str, instances: int = 1, **spec: object) -> WasmWorkload:
    return _workload(name, instances, run={"http": {}}, **spec)


def _answers(revision: str, uid: str, slots: int) -> NodeWorkload:
    return NodeWorkload(uid=uid, revision=revision, state=WorkloadState.RUNNING, reserved_slots=slots)


def test_workloads_that_answer_requests_get_the_lowest_free_ports_and_keep_them() -> None:
    first, second, third = _web("a"), _web("b"), _web("c")
    ledger = _inspected(first, second, third)
    ports = {it.name: it.port for it in plan(_pool(), [first, second], _status(), ledger).assignments}
    assert ports == {"a": 20000, "b": 20001}
    ports = {it.name: it.port for it in plan(_pool(), [third, second], _status(), ledger).assignments}
    assert ports == {"c": 20000, "b": 20001}


def test_the_old_revision_answers_until_the_new_one_does() -> None:
    old, new = _web("a"), _web("a", limits={"memoryPages": 2})
    ledger = _inspected(old, new)
    (before,) = plan(_pool(), [old], _status(), ledger).assignments
    serving = _status(_answers(before.revision, before.uid, 1))
    ledger.learn(serving)
    assert not any(it.outdated for it in plan(_pool(), [old], serving, ledger).assignments)
    both = plan(_pool(), [new], serving, ledger).assignments
    assert {it.revision: it.outdated for it in both} == {
        before.revision: True,
        **{it.revision: False for it in both if it.revision != before.revision},
    }
    assert [it.port for it in both] == [before.port] * 2
    after = next(it for it in both if not it.outdated)
    done = _status(_answers(before.revision, before.uid, 1), _answers(after.revision, after.uid, 1))
    ledger.learn(done)
    assert [it.revision for it in plan(_pool(), [new], done, ledger).assignments] == [after.revision]


def test_a_workload_that_only_borrows_is_assigned_without_a_slot() -> None:
    borrower = _web("a", 0, burst=2)
    (assigned,) = plan(_pool(), [borrower], _status(), _inspected(borrower)).assignments
    assert (assigned.slots, assigned.burst, assigned.port) == (0, 2, 20000)
