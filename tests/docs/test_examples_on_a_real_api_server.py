"""`kubectl apply -f examples/` as the README says it: the API server takes every file as it is."""

from pathlib import Path

import pytest

from tests.cluster.running import Running

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]


def test_api_server_takes_the_examples_as_they_are(api_server: Running) -> None:
    api_server.kubectl("apply", "-f", ROOT / "crds" / "manifests")
    api_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    said = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", ROOT / "examples").stdout
    assert sorted(line.split(" ")[0] for line in said.splitlines()) == [
        "configmap/guests",
        "instancepool.wasmpool.dev/small",
        "wasmworkload.wasmpool.dev/hello",
        "wasmworkload.wasmpool.dev/mandelbrot",
        "wasmworkload.wasmpool.dev/ticker",
        "wasmworkload.wasmpool.dev/too-big",
        "wasmworkload.wasmpool.dev/web",
    ]
    standalone = ROOT / "examples" / "standalone" / "pool.yaml"
    api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", standalone)
