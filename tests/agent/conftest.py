"""The real agent (`wasmpool-agent serve`) as a process of its own, on a real API server whose operator is the test."""

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.agent.proxy import Proxy
from tests.agent.stage import Stage
from tests.cluster.client import Client
from tests.cluster.running import Running

REPOSITORY = Path(__file__).resolve().parents[2]
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def admin(api_server: Running) -> Iterator[Client]:
    """As a cluster admin, with the kinds installed."""
    with api_server.client() as client:
        for path in sorted((REPOSITORY / "crds" / "manifests").glob("*.yaml")):
            manifest = yaml.safe_load(path.read_text())
            client.apply(
                f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{manifest['metadata']['name']}", manifest
            )
        yield client


@pytest.fixture
def proxy(api_server: Running) -> Iterator[Proxy]:
    """The agent's only way to the API server; it can be cut."""
    with Proxy(api_server.server) as made:
        yield made


@pytest.fixture
def stage(admin: Client, api_server: Running, proxy: Proxy, tmp_path: Path) -> Iterator[Stage]:
    """A namespace, a pool's node in it, and no agent yet."""
    kubeconfig = tmp_path / "kubeconfig"
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = proxy.server
    kubeconfig.write_text(yaml.safe_dump(config))
    namespace = f"a{next(_NUMBERS)}-{os.getpid()}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = Stage(admin, namespace, tmp_path, kubeconfig, port)
    try:
        yield made
    finally:
        made.close()
