"""kubectl as the end-to-end tests use it, and the manifests that they apply."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final, Protocol

API_VERSION: Final = "wasmpool.dev/v1alpha1"
NODE_CACHES: Final = "/var/tmp"  # noqa: S108 - on nodes that are made for the tests
PAGE_BYTES: Final = 2 * 1024 * 1024
"""One huge page; the tests' slots have the same size (32 pages of 64 KiB)."""

Object = dict[str, Any]


class Run(Protocol):
    """Runs kubectl with these arguments."""

    def __call__(self, arguments: Sequence[str], *, stdin: str | None = None) -> CompletedProcess[str]: ...


class KubectlError(Exception):
    """kubectl left with another exit code than 0; the message is what it wrote to stderr."""


class Kube:
    """A cluster through its kubectl."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """stdout. Raises KubectlError."""
        done = self._run(arguments, stdin=stdin)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Server-side apply of all of them. Raises KubectlError."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """The object, or {} where there is none."""
        where = ("-n", namespace) if namespace else ()
        out = self.kubectl("get", kind, name, *where, "--ignore-not-found", "-o", "json")
        loaded: Object = json.loads(out) if out.strip() else {}
        return loaded

    def all_of(self, kinds: str, namespace: str, selector: str = "") -> list[Object]:
        """Objects of comma-separated kinds; of the whole cluster with an empty namespace."""
        chosen = ("-l", selector) if selector else ()
        where = ("-n", namespace) if namespace else ()
        loaded: Object = json.loads(self.kubectl("get", kinds, *where, *chosen, "-o", "json"))
        items: list[Object] = loaded["items"]
        return items

    def until(
        self, kind: str, name: str, namespace: str, wanted: Callable[[Object], bool], *, seconds: float = 60
    ) -> Object:
        """The object as soon as `wanted` holds for it. AssertionError with its status after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name, namespace)
            if found and wanted(found):
                return found
            if time.monotonic() > deadline:
                status = json.dumps(found.get("status", "there is no such object"), indent=1)
                raise AssertionError(f"{kind} {namespace}/{name} did not get there within {seconds:.0f} s: {status}")
            time.sleep(0.4)

    def until_condition(
        self, kind: str, name: str, namespace: str, type_: str, status: str, reason: str = "", *, seconds: float = 60
    ) -> Object:
        """The condition as soon as it has that status (and that reason, if given)."""

        def holds(found: Object) -> bool:
            seen = condition(found, type_)
            return seen.get("status") == status and (not reason or seen.get("reason") == reason)

        return condition(self.until(kind, name, namespace, holds, seconds=seconds), type_)

    def until_gone(self, kinds: str, namespace: str, selector: str, *, seconds: float = 60) -> None:
        """Returns when nothing of these kinds is left. AssertionError with their names after `seconds`."""
        deadline = time.monotonic() + seconds
        while left := self.all_of(kinds, namespace, selector):
            if time.monotonic() > deadline:
                raise AssertionError(f"still there after {seconds:.0f} s: {[_name(item) for item in left]}")
            time.sleep(0.4)

    def guest_lines(self, pool: str, namespace: str, workload: str) -> list[Object]:
        """What a workload's instances printed, from the log of the pool's agents."""
        out = self.kubectl(
            "logs", "-n", namespace, "-l", f"wasmpool.dev/pool={pool}", "-c", "agent", "--tail=-1", "--prefix=false"
        )
        records: list[Object] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return [record for record in records if record.get("workload") == workload and "stream" in record]


def condition(found: Object, type_: str) -> Object:
    """The condition of that type, or {}."""
    conditions: list[Object] = found.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == type_), Object())


def pool(name: str, namespace: str, *, count: int, memory_pages: int = 32, **spec: object) -> Object:
    """An InstancePool of compact slots of 2 MiB, one per huge page unless `memory_pages` says otherwise."""
    return {
        "apiVersion": API_VERSION,
        "kind": "InstancePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "instanceLimits": {"count": count, "addressSpaceSize": "2Gi"},
            "moduleLimits": {"memoryPages": memory_pages},
            "runtime": {"workers": 1},
            **spec,
        },
    }


def workload(
    name: str,
    namespace: str,
    *,
    pool: str,
    key: str,
    config_map: str = "guests",
    pool_namespace: str = "",
    instances: int = 1,
    **command: object,
) -> Object:
    """A WasmWorkload that runs a key of a ConfigMap as a command; Never, unless `command` says otherwise."""
    return {
        "apiVersion": API_VERSION,
        "kind": "WasmWorkload",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "poolRef": {"name": pool, "namespace": pool_namespace or namespace},
            "module": {"configMap": {"name": config_map, "key": key}},
            "run": {"command": {"restartPolicy": "Never", **command}},
            "instances": instances,
        },
    }


def config_map(name: str, namespace: str, binary_data: Mapping[str, str]) -> Object:
    """A ConfigMap; the values of `binary_data` are base64."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "binaryData": dict(binary_data),
    }


def huge_pages_free(meminfo: Path = Path("/proc/meminfo")) -> int:
    """HugePages_Free of this machine, whose kernel is the node's."""
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("HugePages_Free:"))
    return int(line.split()[1])


def _name(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
