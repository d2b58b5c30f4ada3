"""From `apply` to the first answer behind a Service, on the real cluster: of a WasmWorkload, and of a pod.

    .venv/bin/python -m tests.bench.first_response [--quick] [--json FILE] [--rounds N]

As root: boots the cluster of `python -m tests.cluster`, or uses the one that is up, and installs the chart. Three
subjects take turns: a workload whose module no node has seen, one whose module is cached and compiled, and a plain pod
of `wasmtime serve` whose image is on the node. The clock runs from the request that creates the object until something
on the node has had status 200 from the Service's address; whoever asks goes on asking every 2 ms.
"""

import argparse
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

from demo.access import RELEASE, ROOT, SYSTEM_NAMESPACE
from tests.bench.report import Report
from tests.bench.web_guests import web_guest
from tests.bench.web_servers import wasmtime_binary
from tests.cluster import images, lifecycle
from tests.cluster.client import ApiError, Client
from tests.cluster.paths import default_state_dir
from tests.cluster.running import Running
from tests.e2e.kube import NODE_CACHES, Kube, pool

SECONDS: Final = "s to the first answer"
COLD, CACHED, POD = "workload, module never seen", "workload, module cached", "pod of wasmtime serve"
CASE: Final = "apply to first response"
PORT: Final = 8080
PATIENCE_SECONDS: Final = 60.0
ASKER: Final = """
import http.client, sys, time
for line in sys.stdin:
    host, port, patience = line.split()
    end = time.monotonic() + float(patience)
    found = 0.0
    while not found and time.monotonic() < end:
        connection = http.client.HTTPConnection(host, int(port), timeout=0.5)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            if answer.status == 200 and answer.read():
                found = time.monotonic()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0 if found else 0.002)
    print(found, flush=True)
"""


class Bench:
    """A namespace with a pool, and somebody on the node who asks."""

    def __init__(self, client: Client, namespace: str, shared: Path, asker: "subprocess.Popen[str]"):
        self._client = client
        self._namespace = namespace
        self._shared = shared
        self._asker = asker
        self._guest = web_guest("c").read_bytes()
        self._number = 0

    def cold(self) -> float:
        """Seconds, of a module with other bytes than any before it."""
        self._number += 1
        return self._workload(f"cold-{self._number}", self._other_module())

    def cached(self) -> float:
        """Seconds, of a module that this node has compiled for another workload."""
        self._number += 1
        return self._workload(f"cached-{self._number}", self._guest)

    def pod(self) -> float:
        """Seconds, of a pod behind a Service that is made at the same time."""
        self._number += 1
        name = f"pod-{self._number}"
        labels = {"app": name}
        container = {
            "name": "serve",
            "image": images.AGENT.reference,
            "imagePullPolicy": "Never",
            "command": ["/shared/wasmtime", "serve", "--addr", f"0.0.0.0:{PORT}", "/shared/guest.wasm"],
            "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own
            "volumeMounts": [{"name": "shared", "mountPath": "/shared", "readOnly": True}],
        }
        spec = {
            "containers": [container],
            "volumes": [{"name": "shared", "hostPath": {"path": str(self._shared)}}],
            "terminationGracePeriodSeconds": 0,
        }
        began = time.monotonic()
        service = self._client.create(
            self._path("services"),
            {"metadata": {"name": name}, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        )
        self._client.create(self._path("pods"), {"metadata": {"name": name, "labels": labels}, "spec": spec})
        seconds = self._asked(service["spec"]["clusterIP"]) - began
        self._client.delete(f"{self._path('pods')}/{name}")
        self._client.delete(f"{self._path('services')}/{name}")
        return seconds

    def _workload(self, name: str, module: bytes) -> float:
        data = {"web.wasm": base64.b64encode(module).decode()}
        self._client.create(self._path("configmaps"), {"metadata": {"name": name}, "binaryData": data})
        workloads = f"/apis/wasmpool.dev/v1alpha1/namespaces/{self._namespace}/wasmworkloads"
        wanted: dict[str, Any] = {
            "apiVersion": "wasmpool.dev/v1alpha1",
            "kind": "WasmWorkload",
            "metadata": {"name": name},
            "spec": {
                "poolRef": {"name": "small"},
                "module": {"configMap": {"name": name, "key": "web.wasm"}},
                "run": {"http": {"port": PORT}},
                "instances": 1,
            },
        }
        began = time.monotonic()
        self._client.create(workloads, wanted)
        while True:
            with contextlib.suppress(ApiError):
                service = self._client.get(f"{self._path('services')}/{name}")
                break
            time.sleep(0.005)
        seconds = self._asked(service["spec"]["clusterIP"]) - began
        self._client.delete(f"{workloads}/{name}")
        return seconds

    def _asked(self, address: str) -> float:
        asked, told = self._asker.stdin, self._asker.stdout
        assert asked is not None
        assert told is not None
        asked.write(f"{address} {PORT} {PATIENCE_SECONDS}\n")
        asked.flush()
        found = float(told.readline())
        if not found:
            raise TimeoutError(f"{address}:{PORT} did not answer in {PATIENCE_SECONDS:g} s")
        return found

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/{plural}"

    def _other_module(self) -> bytes:
        """With a custom section that says something else each time."""
        content = b"\x04made" + uuid.uuid4().bytes
        return self._guest + bytes([0, len(content)]) + content


@contextlib.contextmanager
def bench(running: Running, shared: Path) -> Generator[Bench]:
    """wasmpool installed, a Ready pool of 8 slots, and a module that its node has compiled."""
    tags = (f"{image.name}.image.tag={images.install(running, image)}" for image in images.IMAGES)
    chart = str(ROOT / "charts" / "wasmpool")
    set_tags = [part for tag in tags for part in ("--set-string", tag)]
    running.helm("upgrade", "--install", RELEASE, chart, "-n", SYSTEM_NAMESPACE, "--create-namespace", *set_tags)
    running.kubectl("rollout", "status", "deployment", "-n", SYSTEM_NAMESPACE, "--timeout=120s", timeout=150)

    def run(arguments: Sequence[str], *, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return running.kubectl(*arguments, stdin=stdin, check=False)

    kube = Kube(run)
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", namespace)
    (shared / "guest.wasm").write_bytes(web_guest("c").read_bytes())
    wasmtime_binary(shared)
    node = lifecycle.namespace(running, running.node_names[0])
    command = node.enter([sys.executable, "-c", ASKER], kinds="n")
    asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        kube.apply(pool("small", namespace, count=8))
        kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
        with running.client() as client:
            made = Bench(client, namespace, shared, asker)
            made.cached()
            yield made
    finally:
        asker.kill()
        asker.wait()
        kube.kubectl("delete", "wasm,ipool,pods", "--all", "-n", namespace, "--timeout=90s")
        kube.until_gone("pods", namespace, "app.kubernetes.io/name=wasmpool-agent", seconds=90)
        kube.kubectl("delete", "namespace", namespace, "--wait=false")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m tests.bench.first_response`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.first_response", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=11)
    parsed = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("this needs root, for a node")
    state_dir, report = default_state_dir(), Report()
    own = lifecycle.find(state_dir) is None
    running = lifecycle.up(state_dir, nodes=1)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="wasmpool-bench-", dir=NODE_CACHES) as shared,
            bench(running, Path(shared)) as made,
        ):
            Path(shared).chmod(0o755)
            subjects = {COLD: made.cold, CACHED: made.cached, POD: made.pod}
            runs: dict[str, list[float]] = {name: [] for name in subjects}
            for number in range(2 if parsed.quick else parsed.rounds):
                for name in list(subjects) if number % 2 == 0 else list(subjects)[::-1]:
                    runs[name].append(subjects[name]())
                    time.sleep(3.0)  # what was deleted has gone, and kube-proxy has nothing left to do
            for name, figures in runs.items():
                report.add(CASE, name, SECONDS, figures)
    finally:
        if own:
            lifecycle.down(state_dir)
    sys.stdout.write(report.table(SECONDS, [POD]))
    if parsed.json is not None:
        report.write(parsed.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
