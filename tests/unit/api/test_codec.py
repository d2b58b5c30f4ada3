"""Covers: dictionaries to types and back, and errors that name the field as a person writes it."""

import json

import pytest
import yaml

from wasmpool_api.codec import FieldError, apply_patch, decode, encode
from wasmpool_api.instance_pool import InstancePool, InstancePoolSpec
from wasmpool_api.instance_pool_node import Assignment, NodeWorkload, WorkloadState
from wasmpool_api.meta import Condition
from wasmpool_api.quantities import Duration, IntOrPercent, Quantity
from wasmpool_api.wasm_workload import WasmWorkload, WasmWorkloadSpec

POOL = {"metadata": {"name": "web"}, "spec": {"instanceLimits": {"count": 4}}}
WORKLOAD = {"poolRef": {"name": "web"}, "module": {"image": "i"}, "run": {"command": {}}}


@pytest.mark.parametrize(
    ("change", "path", "problem"),
    [
        ({"instanceLimits": {}}, "instanceLimits", "required field `count`"),
        ({"instanceLimits": {"count": "4"}}, "instanceLimits.count", "Expected `int`, got `str`"),
        ({"instanceLimits": {"count": 4, "addressSpaceSize": "6 GB"}}, "instanceLimits.addressSpaceSize", "6 GB"),
        ({"instanceLimits": {"count": 4, "addressSpaceSize": True}}, "instanceLimits.addressSpaceSize", "True"),
        ({"runtime": {"requestDeadline": "soon"}}, "runtime.requestDeadline", "'soon' is not a duration such as 30s"),
        ({"runtime": {"requestDeadline": 30}}, "runtime.requestDeadline", "30 can't be read as Duration"),
        ({"tenancy": {"maxShare": "101%"}}, "tenancy.maxShare", "0% to 100%"),
        ({"allocation": {"backing": "HugePages4Mi"}}, "allocation.backing", "HugePages4Mi"),
        ({"tenancy": {"quotas": [{"namespaceSelector": {}}]}}, "tenancy.quotas[0]", "required field `slots`"),
    ],
)
def test_an_error_names_the_field_and_what_was_given(change: dict[str, object], path: str, problem: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode(InstancePoolSpec, POOL["spec"] | change)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert str(caught.value) == f"{path}: {caught.value.problem}"


def test_an_error_of_the_whole_has_no_path() -> None:
    with pytest.raises(FieldError) as caught:
        decode(InstancePool, ["not", "an", "object"])
    assert caught.value.path == ""
    assert "object" in str(caught.value)


def test_fields_that_a_newer_api_has_are_ignored() -> None:
    newer = POOL | {"spec": {"instanceLimits": {"count": 4, "tint": "blue"}, "mood": "good"}}
    assert decode(InstancePool, newer) == decode(InstancePool, POOL)


def test_amounts_are_written_as_people_write_them() -> None:
    spec = decode(
        InstancePoolSpec,
        {
            "instanceLimits": {"count": 1, "addressSpaceSize": 2**31},
            "runtime": {"requestDeadline": "0.25s"},
            "tenancy": {"maxShare": "50%"},
            "updateStrategy": {"maxUnavailable": 3},
        },
    )
    assert spec.instance_limits.address_space_size == Quantity(2**31)
    assert spec.runtime.request_deadline == Duration(0.25)
    assert spec.tenancy.max_share == IntOrPercent(percent=50)
    written = encode(spec)
    assert written["instanceLimits"] == {"count": 1, "addressSpaceSize": "2Gi"}
    assert written["runtime"]["requestDeadline"] == "250ms"
    assert written["tenancy"]["maxShare"] == "50%"
    assert written["updateStrategy"]["maxUnavailable"] == 3


def test_an_assignment_says_its_slots_even_when_there_are_none() -> None:
    """A reader must not take "0 slots" for "not known"; the rest stays out, for there may be 1024 of them."""
    assignment = Assignment(uid="u", namespace="n", name="w", revision="r")
    assert encode(assignment) == {"uid": "u", "namespace": "n", "name": "w", "revision": "r", "slots": 0}
    entry = NodeWorkload(uid="u", revision="r", state=WorkloadState.PENDING)
    assert encode(entry) == {"uid": "u", "revision": "r", "state": "Pending", "reservedSlots": 0, "usedSlots": 0}


def test_a_condition_without_a_time_has_none_rather_than_an_empty_one() -> None:
    """The API server refuses an empty text where a time belongs."""
    written = encode(Condition(type="Ready", status="Unknown", reason="Starting"))
    assert written == {"type": "Ready", "status": "Unknown", "reason": "Starting"}


@pytest.mark.parametrize(
    ("change", "minimum"),
    [
        ({}, 1),
        ({"instances": 0}, 0),
        ({"instances": 5}, 1),
        ({"instances": 5, "run": {"command": {"restartPolicy": "Never"}}}, 5),
        ({"instances": 5, "run": {"command": {"restartPolicy": "OnFailure"}}, "minInstances": 2}, 2),
        ({"instances": 5, "run": {"http": {}}}, 1),
    ],
)
def test_how_many_must_fit_follows_from_how_it_is_run(change: dict[str, object], minimum: int) -> None:
    assert decode(WasmWorkloadSpec, WORKLOAD | change).min_instances_or_default == minimum


def test_a_workload_of_kubernetes_own_metadata_is_read() -> None:
    workload = decode(
        WasmWorkload,
        {
            "apiVersion": "wasmpool.dev/v1alpha1",
            "kind": "WasmWorkload",
            "metadata": {
                "name": "w",
                "namespace": "n",
                "uid": "u",
                "generation": 3,
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "x", "controller": True}],
            },
            "spec": WORKLOAD,
        },
    )
    assert workload.metadata.generation == 3
    assert workload.metadata.owner_references[0].controller


CHARACTERS = ["😀", "é", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\uffff", '"', "\\ud83d", "\n"]


@pytest.mark.parametrize("character", CHARACTERS)
def test_the_body_of_an_apply_is_the_same_to_json_and_to_yaml(character: str) -> None:
    manifest = {"message": f"a{character}b: - #"}
    assert json.loads(apply_patch(manifest)) == manifest
    assert yaml.safe_load(apply_patch(manifest)) == manifest


def test_half_a_character_is_replaced_for_no_api_server_takes_it() -> None:
    assert json.loads(apply_patch({"message": "a\ud83d"})) == {"message": "a\ufffd"}
