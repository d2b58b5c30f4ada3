"""Covers: the defaults in the schemas, as a real API server applies them.

Reading the smallest object back has to give all that the types would have filled in: an operator that reads objects
from the API server and an agent that reads a file see the same pool.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.crds.api import Api, Object, taken
from tests.crds.objects import FULL, TYPES, full, smallest, with_changes
from wasmpool_api.codec import decode, encode

SMALLEST = {
    "pool": smallest("InstancePool"),
    "node": smallest("InstancePoolNode"),
    "command": smallest("WasmWorkload"),
    "http": with_changes(smallest("WasmWorkload"), {"spec.run": {"http": {}}}),
    "environment": with_changes(
        smallest("WasmWorkload"),
        {"spec.run.command.env[0]": {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}},
    ),
    "node with assignment": with_changes(
        smallest("InstancePoolNode"),
        {"spec.assignments[0]": {"uid": "u", "namespace": "n", "name": "w", "revision": "r"}},
    ),
}


def spec_type(manifest: Object) -> type[msgspec.Struct]:
    """The type of the kind's spec."""
    return next(it.type for it in msgspec.structs.fields(TYPES[manifest["kind"]]) if it.name == "spec")


@pytest.mark.cluster
@pytest.mark.parametrize("name", SMALLEST)
def test_what_the_api_server_fills_in_is_what_the_types_fill_in(api: Api, name: str) -> None:
    given = SMALLEST[name]
    stored = taken(api.create(given, dry_run=True))
    kind = spec_type(given)
    assert decode(kind, stored["spec"]) == decode(kind, given["spec"])


@pytest.mark.cluster
@pytest.mark.parametrize("name", [name for name in SMALLEST if "node" not in name])
def test_every_default_arrives(api: Api, name: str) -> None:
    """Spelled out in the stored object: what somebody sees with `kubectl get -o yaml` is all that holds."""
    given = SMALLEST[name]
    stored = taken(api.create(given, dry_run=True))
    missing = list(set_by_default(decode(spec_type(given), given["spec"]), stored["spec"]))
    assert missing == []


def set_by_default(value: msgspec.Struct, stored: Object, path: str = "spec") -> Iterator[str]:
    """Fields with a default that says something, and that the stored object does not spell out."""
    for field in msgspec.structs.fields(value):
        at, inner = f"{path}.{field.encode_name}", getattr(value, field.name)
        if isinstance(inner, msgspec.Struct):
            if field.encode_name not in stored:
                yield at
            else:
                yield from set_by_default(inner, stored[field.encode_name], at)
        elif inner not in (None, "", (), {}) and field.encode_name not in stored:
            yield at


@pytest.mark.cluster
@pytest.mark.parametrize("name", FULL)
def test_an_object_with_every_field_is_stored_as_it_was_given(api: Api, name: str) -> None:
    """Nothing is pruned and nothing is refused, in spec and in status; and the types write what may be stored."""
    given = full(name)
    kind, own_name = given["kind"], given["metadata"]["name"]
    api.delete(kind, own_name)
    try:
        stored = taken(api.create(given))
        assert subset(given["spec"], stored["spec"])
        written: Any = encode(decode(TYPES[kind], given))
        if "status" in given:
            stored = taken(api.patch(kind, own_name, {"status": written["status"]}, "status"))
            assert decode(TYPES[kind], stored).status == decode(TYPES[kind], given).status
        api.delete(kind, own_name)
        again = taken(api.create(given | {"spec": written["spec"]}))
        assert decode(spec_type(given), again["spec"]) == decode(spec_type(given), given["spec"])
    finally:
        api.delete(kind, own_name)


@pytest.mark.cluster
def test_the_largest_node_is_stored(api: Api) -> None:
    """1024 assignments, and what became of each."""
    node = smallest("InstancePoolNode")
    assignments = [
        {
            "uid": f"{n:036}",
            "namespace": "n" * 30,
            "name": "w" * 60,
            "revision": "r" * 60,
            "slots": 1,
            "port": 20000 + n,
        }
        for n in range(1024)
    ]
    workloads = [
        {
            "uid": f"{n:036}",
            "revision": "r" * 60,
            "state": "Running",
            "message": "m" * 200,
            "digest": "sha256:" + "0" * 64,
        }
        for n in range(1024)
    ]
    api.delete("InstancePoolNode", "p.n")
    taken(api.create(with_changes(node, {"spec.assignments": assignments})))
    try:
        stored = taken(api.patch("InstancePoolNode", "p.n", {"status": {"workloads": workloads}}, "status"))
        assert stored["spec"]["assignments"] == assignments, "and nothing was added to any of them"
        assert stored["status"]["workloads"] == workloads
    finally:
        api.delete("InstancePoolNode", "p.n")


def subset(part: Any, whole: Any) -> bool:
    """Whether `whole` says all that `part` says."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and subset(it, whole[key]) for key, it in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(subset, part, whole))
    return bool(part == whole)
