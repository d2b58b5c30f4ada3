"""What is wrong with a node: the reason and the numbers, from the pod, the Node and what the agent says."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.unit.operator.builders import agent_info, node, pod, pool, pool_node
from wasmpool_api.codec import decode
from wasmpool_api.region import region_shape
from wasmpool_operator.pool.members import Member, members_of
from wasmpool_operator.views import Node, Pod

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:00:00Z"}]
NOT_READY = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T11:58:00Z"}]


def said(kind: str, truth: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": truth,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def only(pods: list[Pod], nodes: list[Node], *, status: dict[str, Any] | None = None, elsewhere: int = 0) -> Member:
    found = pool()
    (member,) = members_of(
        pool="web",
        shape=region_shape(found.spec),
        template="t",
        nodes={it.metadata.name: it for it in nodes},
        pods=pods,
        pool_nodes=[pool_node(status=status)],
        huge_pages_elsewhere={"n1": elsewhere},
        absent_since={},
        now=NOW,
    )
    return member


def pending() -> Pod:

    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    return decode(
        Pod, {"metadata": {"name": "p", "uid": "u"}, "spec": {"affinity": affinity}, "status": {"phase": "Pending"}}
    )


def test_a_pending_pod_of_a_node_with_too_few_huge_pages() -> None:
    member = only([pending()], [node("n1", **{"hugepages-2Mi": "4Mi"})])
    assert (member.reason, member.message) == (
        "InsufficientHugePages",
        "node n1: 4Mi of hugepages-2Mi allocatable, pool web needs 8Mi (4 pages)",
    )


def test_pages_of_other_pools_are_not_free() -> None:
    member = only([pending()], [node("n1", **{"hugepages-2Mi": "10Mi"})], elsewhere=4 * 2**20)
    assert "10Mi of hugepages-2Mi allocatable, 4Mi of it taken by other pods" in member.message


@pytest.mark.parametrize("allocatable", [{}, {"hugepages-2Mi": "0"}])
def test_a_node_without_huge_pages(allocatable: dict[str, str]) -> None:
    assert only([pending()], [node("n1", **allocatable)]).reason == "HugePagesNotConfigured"


def test_a_ready_pod_counts_only_with_the_word_of_its_own_agent() -> None:
    status = {"agent": agent_info("pod-1"), "conditions": [said("Ready", "True", "AgentReady")]}
    assert only([pod(conditions=READY)], [node()], status=status).ready
    other = only([pod(uid="pod-2", conditions=READY)], [node()], status=status)
    assert (other.ready, other.message) == (False, "agent pod agent-n1 has not reported yet")


def test_what_the_agent_says_of_its_region_is_the_reason() -> None:
    conditions = [
        said("RegionReserved", "False", "ReserveFailed", "mmap: ENOMEM"),
        said("Ready", "False", "AgentNotReady"),
    ]
    member = only([pod(phase="Running")], [node()], status={"agent": agent_info(), "conditions": conditions})
    assert (member.reason, member.message) == ("ReserveFailed", "mmap: ENOMEM")


def test_a_crash_loop_shows_how_the_agent_last_ended() -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    ended = {"terminated": {"reason": "Error", "exitCode": 3, "message": "config refused"}}
    agent = {"name": "agent", "restartCount": 4, "state": state, "lastState": ended}
    member = only([pod(phase="Running", containerStatuses=[agent])], [node()])
    assert member.reason == "CrashLoopBackOff"
    assert member.message == ("agent pod agent-n1: back-off 10s; it last ended with Error, exit code 3: config refused")


def test_an_agent_that_was_not_ready_for_a_minute_is_lost() -> None:
    assert only([pod(conditions=NOT_READY)], [node()]).lost


def test_of_two_pods_the_one_that_is_not_ending_counts() -> None:
    status = {"agent": agent_info("new"), "conditions": [said("Ready", "True", "AgentReady")]}

    old = pod(uid="old", conditions=READY)
    old = msgspec.structs.replace(
        old, metadata=msgspec.structs.replace(old.metadata, deletion_timestamp="2026-01-01T00:00:00Z")
    )
    assert only([old, pod(uid="new", conditions=READY)], [node()], status=status).ready
