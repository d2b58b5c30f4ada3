"""Covers: what is a version of a workload, and that its name says all of its content."""

import copy
from typing import Any

import pytest

from wasmpool_api.codec import FieldError, decode
from wasmpool_api.revisions import Revision, revision_of
from wasmpool_api.wasm_workload import WasmWorkload

MANIFEST: dict[str, Any] = {
    "metadata": {"name": "hello", "namespace": "default", "uid": "1"},
    "spec": {
        "poolRef": {"name": "web"},
        "module": {"image": "registry.example.com/hello:1"},
        "run": {"command": {"args": ["a"], "deadline": "1000000s"}},
        "instances": 1,
    },
}


def changed(**changes: Any) -> WasmWorkload:
    """The workload with other fields in its spec."""
    manifest = copy.deepcopy(MANIFEST)
    manifest["spec"] |= changes
    return decode(WasmWorkload, manifest)


def test_the_way_to_a_workload_is_not_its_version() -> None:
    """Agents know nothing of a Service's port, and of who is let in."""
    names = {
        revision_of(changed(run={"http": http})).name
        for http in (
            {},
            {"port": 8080},
            {"ingress": {"from": "All"}},
            {"ingress": {"from": "Selector", "selector": {}}},
        )
    }
    assert len(names) == 1
    assert revision_of(changed(run={"http": {"deadline": "1s"}})).name not in names


def test_a_scale_is_not_a_new_version() -> None:
    names = {
        revision_of(workload).name
        for workload in (
            changed(),
            changed(instances=9),
            changed(priority=5),
            changed(burst=2),
            changed(minInstances=1),
            changed(placement={"spread": "Pack", "maxPerNode": 1}),
            changed(strategy={"rollingUpdate": {"maxSurge": 1}}),
            changed(onNodeLost="Wait"),
        )
    }
    assert len(names) == 1


def test_whatever_changes_what_runs_is_a_new_version() -> None:
    workloads = [
        changed(),
        changed(module={"image": "registry.example.com/hello:2"}),
        changed(module={"configMap": {"name": "c", "key": "k"}}),
        changed(run={"command": {"args": ["b"], "deadline": "1000000s"}}),
        changed(run={"command": {"args": ["a"]}}),
        changed(run={"http": {}}),
        changed(limits={"memoryPages": 3}),
    ]
    names = [revision_of(workload).name for workload in workloads]
    names.append(revision_of(workloads[0], "sha256:1").name)
    assert len(set(names)) == len(names)


def test_two_workloads_never_share_a_version() -> None:
    """Also one that was deleted and made anew with the same name."""
    other = copy.deepcopy(MANIFEST)
    other["metadata"]["uid"] = "2"
    assert revision_of(decode(WasmWorkload, other)).name != revision_of(changed()).name


def test_the_data_of_a_revision_is_the_revision() -> None:
    revision = revision_of(changed(), "sha256:1")
    again = Revision.from_data(revision.to_data())
    assert again == revision
    assert again.name == revision.name


@pytest.mark.parametrize("name", ["a" * 253, "a" * 39 + "." + "b" * 20, "a" * 39 + "-b", "a.b"])
def test_the_name_is_one_that_kubernetes_takes(name: str) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["metadata"]["name"] = name
    made = revision_of(decode(WasmWorkload, manifest)).name
    assert len(made) <= 51
    prefix, _, digits = made.rpartition("-")
    assert len(digits) == 10
    assert prefix[-1].isalnum()


def test_data_that_is_not_a_revision_is_refused_by_field() -> None:
    with pytest.raises(FieldError, match="workloadUid"):
        Revision.from_data({"module": {}, "run": {}})
