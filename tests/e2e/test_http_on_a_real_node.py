"""Workloads that answer requests on a real node, through their Service.

Covers: a component from a ConfigMap answers behind a Service; bodies both ways; scale to nothing with a burst; a new
version without a lost request; a Service of somebody else; what is written of all of it.
"""

import threading
import time
import urllib.request
from http.client import HTTPException

import pytest

from tests.cluster import parts
from tests.cluster.running import Running
from tests.e2e.kube import Kube, Object, condition

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]


def web(namespace: str, *, instances: int = 2, **spec: object) -> Object:
    """The example's guest behind a Service."""
    return {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "WasmWorkload",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "poolRef": {"name": "small"},
            "module": {"configMap": {"name": "guests", "key": "web.wasm"}},
            "run": {"http": {"port": 8080}},
            "instances": instances,
            **spec,
        },
    }


class Front:
    """The workload's Service as something on a node sees it."""

    def __init__(self, cluster: Running, kube: Kube, namespace: str) -> None:
        self._cluster, self._kube, self._namespace = cluster, kube, namespace
        self._url = ""

    def ask(self, path: str) -> str:
        """One request over a connection of its own. Raises OSError."""
        if not self._url:
            service = self._kube.get("service", "web", self._namespace)
            if not service:
                raise OSError("there is no Service yet")
            port = parts.reach(self._cluster, service["spec"]["clusterIP"], 8080)
            self._url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=10) as answer:  # noqa: S310 - our own
            content: bytes = answer.read()
            return content.decode()

    def until_answered(self, path: str, seconds: float = 60) -> str:
        """Once it answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ask(path)
            except (OSError, HTTPException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)


@pytest.fixture
def front(cluster: Running, kube: Kube, namespace: str) -> Front:
    """Of the workload `web` in the test's namespace."""
    return Front(cluster, kube, namespace)


def test_a_component_answers_behind_its_service(kube: Kube, small_pool: str, guests: str, front: Front) -> None:
    kube.apply(web(small_pool))
    kube.until_condition("wasm", "web", small_pool, "Ready", "True", seconds=90)
    found = kube.get("wasm", "web", small_pool)["status"]
    assert found["address"] == f"web.{small_pool}.svc:8080"
    assert found["instances"]["ready"] == 2
    assert [it["componentHost"] for it in found["nodes"]] == ["CanonicalABI"]
    assert front.until_answered("a/path") == "hello from a slot: /a/path\n"
    (slices,) = kube.all_of("endpointslices", small_pool, "kubernetes.io/service-name=web")
    (endpoint,) = slices["endpoints"]
    assert endpoint["conditions"]["ready"]
    assert endpoint["targetRef"]["kind"] == "Pod"
    kube.kubectl("delete", "wasm", "web", "-n", small_pool, "--wait=true")
    kube.until("ipool", "small", small_pool, lambda seen: seen["status"]["slots"]["reserved"] == 0)
    assert not kube.get("service", "web", small_pool)


def test_one_that_holds_nothing_answers_with_slots_that_nobody_has_reserved(
    kube: Kube, small_pool: str, guests: str, front: Front
) -> None:
    kube.apply(web(small_pool, instances=0, burst=1))
    assert front.until_answered("idle", 90) == "hello from a slot: /idle\n"
    status = kube.get("ipool", "small", small_pool)["status"]["slots"]
    assert (status["reserved"], status["used"]) == (0, 0)


def test_a_new_version_takes_over_without_a_lost_request(
    kube: Kube, small_pool: str, guests: str, front: Front
) -> None:
    kube.apply(web(small_pool))
    front.until_answered("first", 90)
    before = kube.get("wasm", "web", small_pool)["status"]["currentRevision"]
    failures: list[str] = []
    answered = 0
    over = threading.Event()

    def go_on_asking() -> None:
        nonlocal answered
        while not over.is_set():
            try:
                front.ask("again")
                answered += 1
            except (OSError, HTTPException) as error:
                failures.append(str(error))

    asking = threading.Thread(target=go_on_asking)
    asking.start()
    try:
        changed = web(small_pool)
        changed["spec"]["run"]["http"]["env"] = [{"name": "VERSION", "value": "2"}]
        kube.apply(changed)

        def rolled_out(seen: Object) -> bool:
            status = seen["status"]
            return status["currentRevision"] != before and condition(seen, "Ready").get("status") == "True"

        kube.until("wasm", "web", small_pool, rolled_out, seconds=90)
        time.sleep(2)
    finally:
        over.set()
        asking.join()
    assert not failures
    assert answered > 50


def test_a_service_of_somebody_else_is_left_alone_and_named(
    kube: Kube, small_pool: str, guests: str, front: Front
) -> None:
    kube.kubectl("create", "service", "clusterip", "web", "--tcp=80:80", "-n", small_pool)
    kube.apply(web(small_pool))
    refused = kube.until_condition("wasm", "web", small_pool, "Ready", "False", "ServiceConflict", seconds=60)
    assert "web" in refused["message"]
    assert kube.get("service", "web", small_pool)["spec"]["ports"][0]["port"] == 80
    kube.kubectl("delete", "service", "web", "-n", small_pool)
    assert front.until_answered("now", 90) == "hello from a slot: /now\n"
