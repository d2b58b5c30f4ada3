"""The operator of this repository does its work with the chart's rights, under the chart's policies.

It runs as a process here, with a token of its ServiceAccount and a real API server behind it. The tests make the
agents' pods, as a DaemonSet's controller would. Covered here: everything a pool is made of; replacing an outdated
agent; cleaning up; the lease; that nothing was forbidden; and its metrics under the dashboards' queries.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.chart import fetch
from tests.chart.conftest import SYSTEM, pool
from tests.chart.kube import Kubectl, Object
from tests.chart.prometheus import Prometheus
from tests.chart.queries import dashboard_queries, unanswered

pytestmark = pytest.mark.cluster

NAMESPACE = f"rights-{uuid4().hex[:8]}"


@dataclass(frozen=True)
class Operator:
    """The running operator, seen by an admin of its cluster."""

    admin: Kubectl
    log: Path
    address: str
    process: subprocess.Popen[bytes]

    def until(self, what: str, holds: Callable[[], object], seconds: float = 30) -> None:
        """Wait for it; an AssertionError with the operator's log if it takes too long."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}\n{self.log.read_text()}"
            time.sleep(0.3)

    def page(self, path: str) -> str:
        """One of its own pages; empty while it does not answer with 200."""
        status, body = fetch.get(f"http://{self.address}{path}")
        return body if status == 200 else ""

    def names(self, kind: str) -> set[str]:
        """Of the pool's objects of this kind."""
        found = self.admin.get(kind, "-n", NAMESPACE, "-l", "wasmpool.dev/pool=web")
        return {it["metadata"]["name"] for it in found["items"]}


@pytest.fixture(scope="module")
def operator(installed: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    installed("create", "namespace", NAMESPACE).require()
    with replica(installed, tmp_path_factory.mktemp("operator"), "first") as running:
        yield running
    for kind in ("instancepools", "pods", "daemonsets", "configmaps", "instancepoolnodes"):
        installed("delete", kind, "--all", "-n", NAMESPACE, "--force", "--grace-period=0")


@contextmanager
def replica(admin: Kubectl, directory: Path, name: str) -> Generator[Operator]:
    """One operator, with a token of the chart's ServiceAccount; ended after the block."""
    config = yaml.safe_load(admin.kubeconfig.read_text())
    token = admin.token_for("wasmpool-operator", SYSTEM)
    for user in config["users"]:
        user["user"] = {"token": token}
    (directory / "kubeconfig").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable, "-m", "wasmpool_operator.main", "run", "--agent-image", "wasmpool.dev/agent:dev",
        "--lease-namespace", SYSTEM, "--listen", address, "--log-level", "info",
    ]  # fmt: skip
    environment = os.environ | {"KUBECONFIG": str(directory / "kubeconfig"), "POD_NAME": name}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield Operator(admin, directory / "log", address, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def agent_pod(daemon_set: Object, node: str) -> Object:
    """The pod that a DaemonSet controller would make."""
    template = daemon_set["spec"]["template"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "name": daemon_set["metadata"]["name"],
        "uid": daemon_set["metadata"]["uid"],
        "controller": True,
    }
    metadata = template["metadata"] | {"name": f"{daemon_set['metadata']['name']}-{node}", "namespace": NAMESPACE}
    spec = template["spec"] | {"nodeName": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"ownerReferences": [owner]}, "spec": spec}


def template_seen(operator: Operator) -> None:
    """Say, as the controller would, that the DaemonSet's present template is known."""

    def seen() -> bool:
        generation = operator.admin.get("daemonset", "wasmpool-web", "-n", NAMESPACE)["metadata"]["generation"]
        status = {"observedGeneration": generation, "desiredNumberScheduled": 1}
        patch = json.dumps({"status": status})
        operator.admin(
            "patch", "daemonset", "wasmpool-web", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch
        ).require()
        return bool(generation > 1)

    operator.until("a new template of the DaemonSet", seen)


def test_the_operator_makes_all_that_a_pool_is_made_of(operator: Operator) -> None:
    resources = {"hugepages-2Mi": "64Mi", "cpu": "2", "memory": "4Gi", "pods": "10"}
    operator.admin(
        "create", "-f", "-", stdin={
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "rights-node"},
            "status": {"capacity": resources, "allocatable": resources},
        },
    )  # fmt: skip
    operator.admin.create(pool("web", NAMESPACE))
    operator.until("DaemonSet", lambda: operator.names("daemonsets") == {"wasmpool-web"})
    assert operator.names("serviceaccounts") == {"wasmpool-web"}
    assert operator.names("rolebindings") == {"wasmpool-web"}
    assert len(operator.names("configmaps")) == 1
    operator.until("status", lambda: operator.admin.get("instancepool", "web", "-n", NAMESPACE).get("status"))


def test_it_makes_the_instancepoolnode_of_an_agent_that_has_a_node(operator: Operator) -> None:
    operator.admin.create(agent_pod(operator.admin.get("daemonset", "wasmpool-web", "-n", NAMESPACE), "rights-node"))
    operator.until("InstancePoolNode", lambda: operator.names("instancepoolnodes") == {"web.rights-node"})


def test_it_replaces_outdated_agents_and_removes_their_configuration(operator: Operator) -> None:
    before = operator.names("configmaps")
    patch = json.dumps({"spec": {"instanceLimits": {"count": 6}}})
    operator.admin("patch", "instancepool", "web", "-n", NAMESPACE, "--type=merge", "-p", patch).require()
    operator.until("a new ConfigMap", lambda: operator.names("configmaps") - before)
    template_seen(operator)

    def deleted() -> bool:
        pods = operator.admin.get("pods", "-n", NAMESPACE)["items"]
        return all("deletionTimestamp" in pod["metadata"] for pod in pods)

    operator.until("the outdated agent is deleted", deleted)
    operator.admin("delete", "pod", "--all", "-n", NAMESPACE, "--force", "--grace-period=0").require()
    operator.until("the old ConfigMap is gone", lambda: not (operator.names("configmaps") & before))


def test_it_holds_the_lease(operator: Operator) -> None:
    lease = operator.admin.get("lease", "wasmpool-operator", "-n", SYSTEM)
    assert lease["spec"]["holderIdentity"].startswith("first")


def test_it_was_forbidden_nothing(operator: Operator) -> None:
    log = operator.log.read_text()
    assert "forbidden" not in log.lower()
    assert "ValidatingAdmissionPolicy" not in log


def test_its_metrics_answer_the_dashboards_queries_about_pools_and_the_operator(operator: Operator) -> None:
    # What the agents serve is not here: only queries that need nothing of it. Without a ready node a pool has no slots,
    # and so no share of them.
    about_operator = ("wasmpool_pool_", "wasmpool_reconcile_", "wasmpool_queue_", "wasmpool_leader")
    queries = [
        query
        for query in dashboard_queries()
        if all(selector.startswith(about_operator) for selector in query.selectors())
        and "'Reserved share'" not in query.where
    ]
    assert len(queries) > 20
    with Prometheus.running({"operator": [operator.address]}) as server:
        server.wait_scraped()
        assert unanswered(server, queries) == []
        assert server.query("sum(wasmpool_leader)")[0]["value"][1] == "1"


def test_a_second_replica_is_ready_while_it_waits_and_leads_when_the_first_ends(
    operator: Operator, tmp_path: Path
) -> None:
    # NB: one that waits and is not Ready keeps a Deployment of two from ever being available, and with a
    # PodDisruptionBudget the leader's node from ever being drained.
    with replica(operator.admin, tmp_path, "second") as second:
        second.until("Ready", lambda: second.page("/readyz") == "ok")
        assert "wasmpool_leader 0.0" in second.page("/metrics")
        operator.process.terminate()
        second.until("it leads", lambda: "wasmpool_leader 1.0" in second.page("/metrics"))
        second.until("Ready", lambda: second.page("/readyz") == "ok")
        assert operator.process.wait(30) == 0
