"""Where the chart's tests get their programs and their API server from."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.kube import CHART, Helm, Kubectl, Object
from tests.cluster import binaries, standing_alone

SYSTEM = "wasmpool-system"
CACHES = "/srv/wasmpool"
"""Where pools may have their caches on nodes."""


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm without a cluster."""
    return Helm(binaries.one("helm"))


@pytest.fixture(scope="session")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl as a cluster admin of a control plane without nodes.

    NB: not the session's shared one: a release owns the kinds of the whole cluster, and others have put theirs there.
    """
    given = os.environ.get("WASMPOOL_TEST_KUBECONFIG")
    if given:
        yield Kubectl(binaries.one("kubectl"), Path(given))
        return
    state = tmp_path_factory.mktemp("chart-control-plane")
    try:
        running = standing_alone.up(state, controllers=False, owned=True)
        yield Kubectl(binaries.one("kubectl"), running.kubeconfig)
    finally:
        standing_alone.down(state)


@pytest.fixture(scope="session")
def cluster_helm(helm: Helm, admin: Kubectl) -> Helm:
    """Helm as a cluster admin."""
    return Helm(helm.program, admin.kubeconfig)


@pytest.fixture(scope="module")
def installed(cluster_helm: Helm, admin: Kubectl) -> Iterator[Kubectl]:
    """The chart with a directory for caches, policies enforced; taken away after the file's tests, the kinds too."""
    caches = ("--set", f"agent.cacheHostPaths={{{CACHES}}}")
    cluster_helm("install", "wasmpool", CHART, "-n", SYSTEM, "--create-namespace", *caches).require()
    try:
        until_enforced(admin)
        yield admin
    finally:
        cluster_helm("uninstall", "wasmpool", "-n", SYSTEM)
        admin("delete", "crd", "-l", "app.kubernetes.io/part-of=wasmpool", "--wait=true").require()


def until_enforced(admin: Kubectl, seconds: float = 30) -> None:
    """Policies hold a moment after they are made: wait for the one that the least is needed for to refuse."""
    deadline = time.monotonic() + seconds
    while True:
        probe = admin("create", "-f", "-", "--dry-run=server", stdin=pool("operator", SYSTEM))
        if "is not allowed in namespace" in probe.err:
            return
        assert time.monotonic() < deadline, f"policies were not enforced within {seconds:.0f} s: {probe.err}{probe.out}"
        time.sleep(0.2)


def pool(name: str, namespace: str) -> Object:
    """The smallest InstancePool."""
    return {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"instanceLimits": {"count": 4, "addressSpaceSize": "2Gi"}, "moduleLimits": {"memoryPages": 16}},
    }


def pool_node(pool_name: str, node: str, namespace: str) -> Object:
    """The InstancePoolNode of a pool on a node."""
    return {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePoolNode",
        "metadata": {"name": f"{pool_name}.{node}", "namespace": namespace},
        "spec": {"poolName": pool_name, "nodeName": node, "nodeUID": f"uid-of-{node}", "poolGeneration": 1},
    }
