"""The real operator as a process of its own, on a real API server without nodes."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.operator.api import Api
from tests.operator.stage import Stage, until

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = "wasmpool-system"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """Of a control plane without nodes: one that is given, or tests.cluster's."""
    given = os.environ.get("WASMPOOL_TEST_KUBECONFIG")
    return Path(given) if given else Path(request.getfixturevalue("api_server").kubeconfig)


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    """As a cluster admin, with the kinds installed."""
    api = Api(kubeconfig)
    for path in sorted((REPOSITORY / "crds" / "manifests").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest:
                api.apply(manifest)
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    for kind in ("InstancePool", "InstancePoolNode", "WasmWorkload"):
        until(lambda kind=kind: _served(api, kind), why=f"{kind} is served")
    return api


@pytest.fixture(scope="session")
def operator(api: Api, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["OperatorProcess"]:
    """One operator for all tests."""
    process = OperatorProcess(kubeconfig, tmp_path_factory.mktemp("operator") / "log")
    process.start()
    try:
        yield process
    finally:
        process.stop()
        # Whatever ended well in the tests has to have ended well inside, too.
        assert "reconcile failed" not in process.log.read_text()


@pytest.fixture
def stage(api: Api, operator: "OperatorProcess") -> Iterator[Stage]:
    """A namespace of the test's own."""
    name = f"t{next(_NUMBERS)}-{uuid.uuid4().hex[:6]}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}})
    stage = Stage(api, name)
    yield stage
    stage.close()


class OperatorProcess:
    """`python -m wasmpool_operator.main run`."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.log = log
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"

    def start(self) -> None:
        """Returns when it is ready."""
        command = [
            sys.executable, "-m", "wasmpool_operator.main", "run", "--agent-image", "wasmpool.dev/agent:dev",
            "--lease-namespace", SYSTEM, "--listen", self.listen, "--lease-seconds", "3",
        ]  # fmt: skip
        environment = os.environ | {"KUBECONFIG": str(self._kubeconfig), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until(self._ready, seconds=30, why=f"the operator is ready; its log is {self.log}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its own pages."""
        try:
            with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            # NB: one that waits for the lease of its killed predecessor is Ready too; here it has to lead.
            return "wasmpool_leader 1.0" in self.page("/metrics")[1] and self.page("/readyz")[0] == 200
        except OSError:
            time.sleep(0.1)
            return False


def _served(api: Api, kind: str) -> bool:
    try:
        api.list(kind)
    except Exception:  # noqa: BLE001 - the path is not there yet
        return False
    return True
