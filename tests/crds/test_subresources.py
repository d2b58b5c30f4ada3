"""Covers: what the definitions give to `kubectl`: scale, status, field selectors and the columns of `kubectl get`."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.crds.api import Api, Object, collection, one, taken
from tests.crds.objects import full, smallest, with_changes

pytestmark = pytest.mark.cluster


@pytest.fixture(params=["instancepool", "instancepoolnode", "wasmworkload-command", "wasmworkload-http"])
def stored(api: Api, request: pytest.FixtureRequest) -> Iterator[Object]:
    """An object with every field, and its status."""
    manifest = full(request.param)
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    api.delete(kind, name)
    taken(api.create(manifest))
    try:
        yield taken(api.patch(kind, name, {"status": manifest.get("status", {})}, "status"))
    finally:
        api.delete(kind, name)


def test_a_workload_is_scaled_like_a_deployment(api: Api, kubectl: tuple[str, ...]) -> None:
    manifest = full("wasmworkload-command")
    name = manifest["metadata"]["name"]
    api.delete("WasmWorkload", name)
    taken(api.create(manifest))
    try:
        taken(api.patch("WasmWorkload", name, {"status": manifest["status"]}, "status"))
        scale = taken(api.request("GET", one("WasmWorkload", name, "scale")))
        assert scale["spec"]["replicas"] == 42
        assert scale["status"] == {"replicas": 10, "selector": "wasmpool.dev/workload-uid=1"}
        subprocess.run([*kubectl, "scale", f"wasm/{name}", "--replicas=7"], check=True, capture_output=True, timeout=30)
        scaled = taken(api.request("GET", one("WasmWorkload", name)))
        assert scaled["spec"]["instances"] == 7
        assert scaled["metadata"]["generation"] == 2
    finally:
        api.delete("WasmWorkload", name)


def test_status_is_written_apart_from_the_spec(api: Api, stored: Object) -> None:
    """A write of the status changes no generation; a write of the spec does, and no status."""
    kind, name = stored["kind"], stored["metadata"]["name"]
    assert stored["metadata"]["generation"] == 1
    both = {"status": {"observedGeneration": 77}, "metadata": {"labels": {"a": "b"}}}
    changed = taken(api.patch(kind, name, both))
    assert changed.get("status") == stored.get("status")
    changed = taken(api.patch(kind, name, {"spec": None, "status": {"observedGeneration": 77}}, "status"))
    assert changed["status"]["observedGeneration"] == 77
    assert changed["spec"] == stored["spec"]
    assert changed["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("kind", "selector", "name"),
    [
        ("InstancePoolNode", "spec.nodeName=node-1", "p.node-1"),
        ("InstancePoolNode", "spec.poolName=q", "q.node-2"),
        ("WasmWorkload", "spec.poolRef.name=q", "second"),
        ("WasmWorkload", "spec.poolRef.namespace=elsewhere", "second"),
    ],
)
def test_objects_are_found_by_the_fields_that_they_are_looked_for(
    api: Api, kind: str, selector: str, name: str
) -> None:
    nodes = [
        with_changes(
            smallest("InstancePoolNode"),
            {"metadata.name": f"{pool}.{node}", "spec.poolName": pool, "spec.nodeName": node},
        )
        for pool, node in (("p", "node-1"), ("q", "node-2"))
    ]
    workloads = [
        with_changes(smallest("WasmWorkload"), {"metadata.name": own, "spec.poolRef": pool})
        for own, pool in (("first", {"name": "p"}), ("second", {"name": "q", "namespace": "elsewhere"}))
    ]
    manifests = nodes if kind == "InstancePoolNode" else workloads
    for manifest in manifests:
        api.delete(kind, manifest["metadata"]["name"])
        taken(api.create(manifest))
    try:
        found = taken(api.request("GET", f"{collection(kind)}?fieldSelector={selector}"))
        assert [item["metadata"]["name"] for item in found["items"]] == [name]
    finally:
        for manifest in manifests:
            api.delete(kind, manifest["metadata"]["name"])


COLUMNS = {
    ("ipool", "full"): "full True EnoughNodesReady 3 2 13 10 5 3 HugePages1Gi 1048576 8388608 2 1",
    ("ipnode", "web.node-a.example.com"): "web.node-a.example.com web node-a.example.com False InsufficientHugePages "
    "7 3 2 4 HugePages2Mi <none> 1 wasmpool-web-abcde 0.1.0",
    ("wasm", "full-command"): "full-command web <none> Unknown Pulling 42 10 9 20 1 full-command.default.svc:80 "
    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ("wasm", "full-http"): "full-http web <none> <none> <none> 0 <none> <none> <none> <none> <none> <none>",
}


def test_kubectl_get_shows_what_matters(stored: Object, kubectl: tuple[str, ...]) -> None:
    name = stored["metadata"]["name"]
    (short,) = (short for short, own in COLUMNS if own == name)
    table = subprocess.run(
        [*kubectl, "get", short, name, "-o", "wide"], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    heading, line = table.splitlines()
    shown = [text for column, text in cells(heading, line) if column != "AGE"]
    assert " ".join(shown) == COLUMNS[short, name]


def cells(heading: str, line: str) -> list[tuple[str, str]]:
    """A table's cells with their columns, which are parted by three spaces; a name may have one in it."""
    columns = list(re.finditer(r"\S+(?: \S+)*", heading))
    ends = [*(column.start() for column in columns[1:]), None]
    return [
        (column[0], line[column.start() : end].strip() or "<none>") for column, end in zip(columns, ends, strict=True)
    ]


def test_all_kinds_are_in_one_category(api: Api, kubectl: tuple[str, ...]) -> None:
    """NB: not in one called "wasm": that is a short name, and kubectl takes a category first."""
    del api
    names = subprocess.run(
        [*kubectl, "api-resources", "--categories=wasmpool", "-o", "name"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert sorted(names) == [f"{it}.wasmpool.dev" for it in ("instancepoolnodes", "instancepools", "wasmworkloads")]
