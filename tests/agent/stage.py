"""What the operator would do for one node, done by a test, and what the agent makes of it."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import wasmtime

from tests.cluster.client import ApiError, Client
from wasmpool_api.codec import decode, encode
from wasmpool_api.instance_pool_node import Assignment
from wasmpool_api.revisions import Revision

Object = dict[str, Any]

COMMAND = Path(sys.executable).with_name("wasmpool-agent")
NODE = "node-1"
POOL = "small"
GROUP = "/apis/wasmpool.dev/v1alpha1/namespaces"


class Stage:
    """A namespace with one InstancePoolNode, and at most one agent at a time."""

    def __init__(self, client: Client, namespace: str, directory: Path, kubeconfig: Path, port: int) -> None:
        self.client = client
        self.namespace = namespace
        self._directory = directory
        self.kubeconfig = kubeconfig
        self._port = port
        self.output = directory / "stdout"
        self.errors = directory / "stderr"
        self.cache = directory / "cache"
        self.process: subprocess.Popen[bytes] | None = None
        client.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        client.create(
            f"{GROUP}/{namespace}/instancepoolnodes",
            {
                "apiVersion": "wasmpool.dev/v1alpha1",
                "kind": "InstancePoolNode",
                "metadata": {"name": f"{POOL}.{NODE}"},
                "spec": {
                    "poolName": POOL,
                    "nodeName": NODE,
                    "nodeUID": "node-uid",
                    "poolGeneration": 1,
                    "assignments": [],
                },
            },
        )
        self._write_pool()

    @property
    def journal(self) -> Path:
        """Where the agent of this pool writes down what it begins."""
        return self.cache / f"{self.namespace}.{POOL}" / "runs"

    def _write_pool(self) -> None:
        pool: Object = {
            "apiVersion": "wasmpool.dev/v1alpha1",
            "kind": "InstancePool",
            "metadata": {"name": POOL, "namespace": self.namespace, "uid": "pool-uid"},
            "spec": {
                "allocation": {"backing": "BasePages"},
                "instanceLimits": {"count": 4, "addressSpaceSize": "2Gi"},
                "moduleLimits": {"memoryPages": 32},
                "runtime": {"workers": 1},
            },
        }
        (self._directory / "pool.yaml").write_text(json.dumps(pool))

    # ---------------------------------------------------------------------------------------------------- the agent
    def start(self, pod_uid: str = "pod-1") -> None:
        """Another one than before, if `pod_uid` is another; otherwise the same container, restarted."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "NODE_NAME": NODE,
            "POD_NAME": f"wasmpool-small-{pod_uid}",
            "POD_NAMESPACE": self.namespace,
            "POD_UID": pod_uid,
        }
        command = [str(COMMAND), "serve", "--pool", str(self._directory / "pool.yaml")]
        command += ["--listen", f"127.0.0.1:{self._port}", "--cache-dir", str(self.cache)]
        with self.output.open("ab") as stdout, self.errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Gives the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def close(self) -> None:
        """Whatever still runs is killed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the agent's own HTTP server; 0 where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as response:
                return int(response.status), response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def lines(self, workload: str) -> list[Object]:
        """What its instances have printed, of all agents so far."""
        text = self.output.read_text()
        records: list[Object] = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [it for it in records if it["workload"] == workload]

    # ------------------------------------------------------------------------------------------------- the operator
    def module(self, key: str, content: str | bytes, config_map: str = "guests") -> bytes:
        """A ConfigMap with one module, as WAT or as it is."""
        data = content if isinstance(content, bytes) else bytes(wasmtime.wat2wasm(content))
        self.client.apply(
            f"/api/v1/namespaces/{self.namespace}/configmaps/{config_map}",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": config_map},
                "binaryData": {key: base64.b64encode(data).decode()},
            },
        )
        return data

    def revision(
        self, name: str, key: str, *, digest: str = "", config_map: str = "guests", **command: object
    ) -> Revision:
        """Made, and named by its content."""
        revision = decode(
            Revision,
            {
                "workloadUid": f"uid-{name}",
                "workloadNamespace": self.namespace,
                "workloadName": name,
                "module": {"configMap": {"name": config_map, "key": key}},
                "run": {"command": command},
                "digest": digest,
            },
        )
        body = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": revision.name},
            "revision": 1,
            "data": revision.to_data(),
        }
        try:
            self.client.create(f"/apis/apps/v1/namespaces/{self.namespace}/controllerrevisions", body)
        except ApiError as error:
            if error.code != 409:
                raise
        return revision

    def assign(self, *assignments: Assignment) -> int:
        """Replaces them all; gives the new generation."""
        body = {"spec": {"assignments": [encode(it) for it in assignments]}}
        stored = self.client.merge(self._path, body)
        return int(stored["metadata"]["generation"])

    def node(self) -> Object:
        """The InstancePoolNode."""
        return self.client.get(self._path)

    def status(self) -> Object:
        """Of the node; {} before the agent's first."""
        found: Object = self.node().get("status", {})
        return found

    def entry(self, revision: Revision) -> Object:
        """The revision's line in the status; {} where there is none."""
        entries: Iterable[Object] = self.status().get("workloads", [])
        return next((it for it in entries if it["revision"] == revision.name), {})

    def until(self, wanted: Callable[[], object], seconds: float = 20) -> None:
        """Waits for it; AssertionError with status and log otherwise."""
        end = time.monotonic() + seconds
        while not wanted():
            ended = self.process is not None and self.process.poll() is not None
            if time.monotonic() > end or ended:
                status = json.dumps(self.status(), indent=1)
                raise AssertionError(f"did not happen: {status}\n{self.errors.read_text()[-8000:]}")
            time.sleep(0.05)

    def until_state(self, revision: Revision, state: str, reason: str = "", seconds: float = 20) -> Object:
        """The revision's line once it is there."""
        self.until(
            lambda: (
                self.entry(revision).get("state") == state and self.entry(revision).get("reason", "").startswith(reason)
            ),
            seconds,
        )
        return self.entry(revision)

    @property
    def _path(self) -> str:
        return f"{GROUP}/{self.namespace}/instancepoolnodes/{POOL}.{NODE}"


def assignment(revision: Revision, *, slots: int = 0, indexes: str = "", inspect: bool = False) -> Assignment:
    """Of the revision's workload."""
    return Assignment(
        uid=revision.workload_uid,
        namespace=revision.workload_namespace,
        name=revision.workload_name,
        revision=revision.name,
        slots=slots,
        indexes=indexes,
        inspect=inspect,
    )


def condition(status: Object, kind: str) -> Object:
    """{} where there is none."""
    return next((it for it in status.get("conditions", []) if it["type"] == kind), {})
