"""A pool on a real node: its region is taken from the node's huge pages, and given back.

Covers: Ready with the capacity it announces; HugePages_Free; the sums in status; a pool larger than the node, whose pod
stays Pending, with both numbers; impossible limits, refused by the API server; deletion, which leaves nothing.
"""

import time

import pytest

from tests.e2e.kube import PAGE_BYTES, Kube, KubectlError, Object, condition, huge_pages_free, pool
from wasmpool_api.quantities import Quantity

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

MADE_FOR_A_POOL = "daemonsets,serviceaccounts,rolebindings,configmaps,instancepoolnodes,controllerrevisions,pods"


def wait_for_free_pages(wanted: int, seconds: float = 60) -> None:
    """Returns when HugePages_Free is `wanted`."""
    deadline = time.monotonic() + seconds
    while (seen := huge_pages_free()) != wanted:
        assert time.monotonic() < deadline, f"HugePages_Free is {seen} after {seconds:.0f} s, {wanted} wanted"
        time.sleep(0.2)


def test_region_comes_out_of_the_nodes_huge_pages_and_goes_back(kube: Kube, namespace: str) -> None:
    before = huge_pages_free()
    kube.apply(pool("small", namespace, count=16))
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    assert huge_pages_free() == before - 16

    kube.kubectl("delete", "ipool", "small", "-n", namespace, "--wait=true", "--timeout=90s")
    wait_for_free_pages(before)
    kube.until_gone(MADE_FOR_A_POOL, namespace, "wasmpool.dev/pool=small")


def test_status_says_what_the_region_holds(kube: Kube, namespace: str) -> None:
    kube.apply(pool("small", namespace, count=4, memory_pages=64))
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    status = kube.get("ipool", "small", namespace)["status"]
    assert status["nodes"] == {"desired": 1, "ready": 1, "updated": 1}
    assert status["slots"] == {"capacity": 4, "allocatable": 4, "reserved": 0, "used": 0, "free": 4}
    assert status["memory"]["slotBytes"] == 2 * PAGE_BYTES
    assert status["memory"]["regionBytes"] == status["memory"]["regionBytesPerNode"] == 8 * PAGE_BYTES
    assert condition({"status": status}, "RegionsReserved")["reason"] == "HugePagesReserved"

    (node,) = kube.all_of("ipnode", namespace)
    assert node["status"]["slots"]["capacity"] == 4
    assert node["status"]["memory"]["pageSize"] == "2Mi"


def test_pool_larger_than_the_node_says_both_numbers_while_its_pod_is_pending(
    kube: Kube, namespace: str, node_huge_pages: int
) -> None:
    wanted = node_huge_pages + 1
    before = huge_pages_free()
    kube.apply(pool("large", namespace, count=wanted))
    seen = kube.until_condition(
        "ipool", "large", namespace, "RegionsReserved", "False", "InsufficientHugePages", seconds=60
    )
    assert f"needs {Quantity(wanted * PAGE_BYTES)} ({wanted} pages)" in seen["message"], seen
    assert f"{Quantity(node_huge_pages * PAGE_BYTES)} of hugepages-2Mi allocatable" in seen["message"], seen
    (pod,) = kube.all_of("pods", namespace, "wasmpool.dev/pool=large")
    assert pod["status"]["phase"] == "Pending"
    assert huge_pages_free() == before


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"instanceLimits": {"count": 0}}, "count"),
        ({"moduleLimits": {"memoryPages": 70000}}, "memoryPages"),
        (
            {"instanceLimits": {"count": 4, "addressSpaceSize": "1Mi"}, "moduleLimits": {"memoryPages": 160}},
            "addressSpaceSize",
        ),
    ],
)
def test_impossible_limits_are_refused_by_the_api_server(
    kube: Kube, namespace: str, spec: dict[str, Object], field: str
) -> None:
    manifest = pool("impossible", namespace, count=4)
    manifest["spec"] |= spec
    with pytest.raises(KubectlError, match=field):
        kube.apply(manifest)
