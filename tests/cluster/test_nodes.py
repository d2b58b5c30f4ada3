"""Two real nodes: huge pages of each, the API seen from a pod, the network between pods, logs, and failures."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import lifecycle, parts, probing
from tests.cluster.console import ClusterError
from tests.cluster.running import Running

pytestmark = pytest.mark.node
SHARE = 16
"""Huge pages of each node."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, can_have_nodes: None) -> Iterator[Running]:
    """Two nodes of the module's own, with an image that asks questions on both."""
    directory = tmp_path_factory.mktemp("two")
    made = lifecycle.up(directory / "state", nodes=2, huge_pages=2 * SHARE, owned=True)
    try:
        probing.load(made, directory)
        _until(lambda: made.kubectl("get", "serviceaccount", "default", check=False).returncode == 0)
        yield made
    finally:
        left = lifecycle.down(made.state_dir)
        assert not left, left


@pytest.fixture(autouse=True)
def _no_pods_left(two: Running) -> Iterator[None]:
    yield
    two.kubectl("delete", "pods,services", "--selector=app", "--wait=true", "--timeout=60s")


def test_each_node_has_its_share_of_the_huge_pages(two: Running) -> None:
    with two.client() as client:
        nodes = client.get("/api/v1/nodes")["items"]
    shown = {node["metadata"]["name"]: node["status"]["allocatable"]["hugepages-2Mi"] for node in nodes}
    assert shown == {"node-1": f"{SHARE * 2}Mi", "node-2": f"{SHARE * 2}Mi"}


def test_a_pod_gets_the_huge_pages_of_its_limit_and_not_one_more(two: Running) -> None:
    said = probing.answers(two, probing.pod("within", "pages=8", "pages=9", huge_pages=8))
    assert "pages=8: touched" in said
    assert "pages=9: error: cannot allocate memory" in said


def test_a_pod_that_wants_more_huge_pages_than_a_node_has_waits(two: Running) -> None:
    name = probing.create(two, probing.pod("too-large", "pages=1", huge_pages=SHARE + 1))
    _until(lambda: "Insufficient hugepages-2Mi" in _scheduled(two, name).get("message", ""))


def test_a_pod_reaches_the_api_server_as_its_service_account(two: Running) -> None:
    for node in two.node_names:
        said = probing.answers(two, probing.pod(f"asks-on-{node}", "api=/api/v1/namespaces/default/pods", node=node))
        assert ": 403 " in said
        assert "system:serviceaccount:default:default" in said


def test_pods_on_different_nodes_reach_each_other_and_services(two: Running) -> None:
    server = probing.create(two, probing.pod("server", "serve", node="node-1"))
    url = f"http://{probing.address(two, server)}:8080/pod"
    two.kubectl("expose", "pod", server, "--port=80", "--target-port=8080")
    cluster_ip = two.kubectl("get", "service", server, "-o", "jsonpath={.spec.clusterIP}").stdout
    said = probing.answers(two, probing.pod("client", f"get={url}", f"get=http://{cluster_ip}/service", node="node-2"))
    assert "200 hello, /pod" in said
    assert "200 hello, /service" in said


def test_this_machine_reaches_a_pod_by_a_port_of_its_own(two: Running) -> None:
    server = probing.create(two, probing.pod("reached", "serve", node="node-2"))
    port = parts.reach(two, probing.address(two, server), 8080)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/from-outside", timeout=10) as answer:
        assert answer.read() == b"hello, /from-outside"


def test_exec_runs_a_program_in_a_pod(two: Running) -> None:
    name = probing.create(two, probing.pod("stays", "serve"))
    probing.wait_for(two, name, "condition=Ready")
    done = two.kubectl("exec", name, "--", "/probe", "get=http://127.0.0.1:8080/exec")
    assert "200 hello, /exec" in done.stdout


def test_a_killed_kubelet_is_noticed_and_its_containers_live_on(two: Running) -> None:
    name = probing.create(two, probing.pod("survivor", "serve", node="node-2", restart="Always"))
    probing.wait_for(two, name, "condition=Ready")
    before = _container(two, name)
    parts.kill(two, "node-2/kubelet")
    with pytest.raises(ClusterError, match="does not run"):
        parts.kill(two, "node-2/kubelet")
    _until(lambda: not _is_ready(two, "node-2"), seconds=60)
    parts.start(two, "node-2/kubelet")
    _until(lambda: _is_ready(two, "node-2"), seconds=60)
    after = _container(two, name)
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_a_node_whose_power_was_cut_comes_back(two: Running) -> None:
    name = probing.create(two, probing.pod("rebooted", "serve", node="node-2", restart="Always"))
    probing.wait_for(two, name, "condition=Ready")
    parts.power_off(two, "node-2")
    _until(lambda: not _is_ready(two, "node-2"), seconds=60)
    parts.power_on(two, "node-2")
    _until(lambda: _is_ready(two, "node-2"), seconds=60)
    # NB: not Ready: until the kubelet has looked, the pod's status is that of before
    _until(lambda: _container(two, name)["restartCount"] > 0, seconds=60)
    assert lifecycle.broken(two) == []


def test_an_api_server_that_was_killed_starts_again_with_all_that_it_knew(two: Running) -> None:
    two.kubectl("create", "configmap", "kept")
    parts.kill(two, "control-plane/kube-apiserver")
    assert two.kubectl("get", "configmap", "kept", check=False).returncode != 0
    parts.start(two, "control-plane/kube-apiserver")
    _until(lambda: two.kubectl("get", "configmap", "kept", check=False).returncode == 0, seconds=60)


def test_a_part_that_is_not_there_is_refused_by_name(two: Running) -> None:
    with pytest.raises(ClusterError, match=r"node-7/kubelet: no such part; there are .*node-2/kubelet"):
        parts.kill(two, "node-7/kubelet")
    with pytest.raises(ClusterError, match="node-7: no such node; there are node-1, node-2"):
        parts.power_off(two, "node-7")


def _scheduled(found: Running, name: str) -> dict[str, Any]:
    with found.client() as client:
        conditions: list[dict[str, Any]] = client.get(f"/api/v1/namespaces/default/pods/{name}")["status"].get(
            "conditions", []
        )
    empty: dict[str, Any] = {}
    return next((one for one in conditions if one["type"] == "PodScheduled"), empty)


def _container(found: Running, name: str) -> dict[str, Any]:
    with found.client() as client:
        statuses: list[dict[str, Any]] = client.get(f"/api/v1/namespaces/default/pods/{name}")["status"][
            "containerStatuses"
        ]
    return statuses[0]


def _is_ready(found: Running, node: str) -> bool:
    with found.client() as client:
        conditions = client.get(f"/api/v1/nodes/{node}")["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so within {seconds:.0f} s"
        time.sleep(0.2)
