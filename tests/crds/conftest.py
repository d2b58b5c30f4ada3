"""The API server that the definitions are tested on, and the definitions in it."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster import binaries
from tests.cluster.running import Running
from tests.crds.api import Api
from tests.crds.schemas import MANIFESTS


@pytest.fixture(scope="session")
def kubectl(api_server: Running) -> tuple[str, ...]:
    """The command, as a cluster admin of a control plane without nodes."""
    return (str(binaries.one("kubectl")), "--kubeconfig", str(api_server.kubeconfig))


@pytest.fixture(scope="session")
def api(kubectl: tuple[str, ...]) -> Iterator[Api]:
    """The API server, with the three definitions established."""
    apply = [part for path in MANIFESTS for part in ("-f", str(path))]
    subprocess.run([*kubectl, "apply", "--server-side", "--force-conflicts", *apply], check=True, timeout=60)
    subprocess.run([*kubectl, "wait", "--for=condition=Established", "--timeout=30s", *apply], check=True, timeout=60)
    proxy = subprocess.Popen([*kubectl, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None
        started = proxy.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", started)
        assert port is not None, started
        yield Api(int(port[1]))
    finally:
        proxy.terminate()
        proxy.communicate(timeout=10)
