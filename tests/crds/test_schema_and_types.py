"""Covers: that the definitions in crds/manifests and the types in wasmpool_api are the same API.

Both are written by hand: the YAML for people and the API server, the types for the programs. Here every property of
the one is looked for in the other, in both directions, with its type, its default and whether it is required; and each
field is held to what the whole API promises (a description, bounded lists, a type for each list).
"""

import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from tests.crds.objects import FULL, TYPES
from tests.crds.schemas import Field, Schema, definitions, fields, is_int_or_string, is_opaque, rules, schema
from wasmpool_api.bounds import BOUNDS
from wasmpool_api.codec import decode, encode
from wasmpool_api.meta import Condition
from wasmpool_api.quantities import Duration, IntOrPercent, Quantity

KINDS = sorted(TYPES)
ALL_FIELDS = [field for kind in KINDS for field in fields(kind)]
# Their words are Kubernetes' own; the types keep them as text.
ENUM_AS_TEXT = {(Condition, "status"), ("LabelSelectorRequirement", "operator")}


def differences(path: str, found: Schema, wanted: Any, *, enum_as_text: bool = False) -> Iterator[str]:
    """What the type and the schema of one field disagree in."""
    wanted = without_none(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    kind = "int-or-string" if is_int_or_string(found) else found.get("type")
    if wanted is Quantity or wanted is IntOrPercent:
        if kind != "int-or-string":
            yield f"{path}: {kind} in the schema, {wanted.__name__} in the type"
    elif isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        yield from object_differences(path, found, wanted)
    elif origin is tuple:
        if kind != "array":
            yield f"{path}: {kind} in the schema, a tuple in the type"
        else:
            yield from differences(f"{path}[]", found["items"], arguments[0])
    elif origin is dict:
        opaque = is_opaque(found) or "properties" in found
        if kind != "object" or (arguments[1] is str) != ("additionalProperties" in found and not opaque):
            yield f"{path}: the schema and {wanted} differ"
    elif isinstance(wanted, type) and issubclass(wanted, StrEnum):
        if found.get("enum") != [member.value for member in wanted]:
            yield f"{path}: {found.get('enum')} in the schema, {[str(member) for member in wanted]} in the type"
    else:
        names = {str: "string", Duration: "string", int: "integer", bool: "boolean"}
        if names.get(wanted) != kind:
            yield f"{path}: {kind} in the schema, {wanted} in the type"
        if "enum" in found and not enum_as_text:
            yield f"{path}: an enum in the schema, {wanted} in the type"


def object_differences(path: str, found: Schema, wanted: type[msgspec.Struct]) -> Iterator[str]:
    """What a struct and the schema of an object disagree in."""
    properties, required = found.get("properties", {}), set(found.get("required", ()))
    declared = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
    if wanted in TYPES.values():
        for name in ("apiVersion", "kind", "metadata"):
            declared.pop(name)
        properties = {name: it for name, it in properties.items() if name in {"spec", "status"}}
    for name in sorted(declared.keys() ^ properties.keys()):
        yield f"{path}.{name}: only in the {'type' if name in declared else 'schema'}"
    for name in sorted(declared.keys() & properties.keys()):
        field = declared[name]
        if field.required != (name in required):
            yield f"{path}.{name}: required {name in required} in the schema, {field.required} in the type"
        as_text = (wanted, name) in ENUM_AS_TEXT or (wanted.__name__, name) in ENUM_AS_TEXT
        yield from differences(f"{path}.{name}", properties[name], field.type, enum_as_text=as_text)
        yield from default_differences(f"{path}.{name}", properties[name], field)


def default_differences(path: str, found: Schema, field: msgspec.structs.FieldInfo) -> Iterator[str]:
    """Zero, false and empty may go without a default in the schema; what is there must be the type's."""
    if field.required:
        if "default" in found:
            yield f"{path}: has a default in the schema, is required in the type"
        return
    default: object = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if "default" in found:
        as_read = decode(without_none(field.type), found["default"])
        if as_read != default:
            yield f"{path}: default {found['default']!r} in the schema, {default!r} in the type"
    elif path.startswith("InstancePoolNode.spec.admission."):
        return  # the pool's limits as types: the operator writes all of them, and nodes have no defaults
    elif not isinstance(default, msgspec.Struct) and default not in (None, 0, False, "", (), {}):
        yield f"{path}: default {default!r} in the type, none in the schema"


def without_none(wanted: Any) -> Any:
    """T of `T | None`."""
    if isinstance(wanted, types.UnionType):
        (wanted,) = (it for it in typing.get_args(wanted) if it is not types.NoneType)
    return wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_property_has_a_field_of_the_same_type_and_the_reverse(kind: str) -> None:
    assert list(differences(kind, schema(kind), TYPES[kind])) == []


@pytest.mark.parametrize("kind", ["InstancePool", "WasmWorkload"])
def test_every_object_of_a_spec_has_a_default_where_something_in_it_has_one(kind: str) -> None:
    """Else the inner default does not arrive."""
    by_path = {field.path: field.schema for field in fields(kind)}
    for path, found in by_path.items():
        parent, _, name = path.rpartition(".")
        if "default" not in found or not parent.startswith("spec.") or parent.endswith("[]"):
            continue
        above = by_path[parent]
        grandparent, _, parent_name = parent.rpartition(".")
        chosen = parent_name in by_path[grandparent].get("required", ()) or parent in ONE_OF
        assert "default" in above or chosen, f"{path} has a default ({name}), {parent} has none"


# Objects that a person chooses to give, or not: their defaults hold once they are there.
ONE_OF = {
    "spec.run.command",
    "spec.run.http",
    *(
        f"spec.run.{run}.env[].valueFrom.{ref}"
        for run in ("command", "http")
        for ref in ("configMapKeyRef", "secretKeyRef")
    ),
}


def test_the_user_facing_kinds_write_out_every_number_and_word_that_has_a_default() -> None:
    """`kubectl get -o yaml` shows what holds, not only what was given; but no empty lists and texts."""
    silent = [
        field.id
        for field in ALL_FIELDS
        if field.kind != "InstancePoolNode"
        and field.path.startswith("spec.")
        and field.schema.get("type") in {"integer", "boolean"}
        and "default" not in field.schema
        and not required(field)
    ]
    assert silent == [
        "InstancePool.spec.tolerations[].tolerationSeconds",
        "WasmWorkload.spec.minInstances",
        "WasmWorkload.spec.limits.memoryPages",
        "WasmWorkload.spec.placement.maxPerNode",
        "WasmWorkload.spec.ttlSecondsAfterFinished",
    ]


def required(field: Field) -> bool:
    """Whether the object around it demands it."""
    parent, _, name = field.path.rpartition(".")
    return any(it.path == parent and name in it.schema.get("required", ()) for it in fields(field.kind))


def test_instance_pool_nodes_have_no_defaults() -> None:
    """They would be written into each of 1024 assignments."""
    assert [field.id for field in fields("InstancePoolNode") if "default" in field.schema] == []


@pytest.mark.parametrize("field", ALL_FIELDS, ids=lambda field: field.id)
def test_every_field_is_described_and_bounded(field: Field) -> None:
    found = field.schema
    if not field.path.endswith(("[]", "{}")):
        assert found.get("description"), "a description is wanted"
    if found.get("type") == "array":
        assert "x-kubernetes-list-type" in found, "a list type is wanted"
        assert "maxItems" in found, "a list of a bounded length is wanted"
    if found.get("type") == "string" and "spec" in field.path and "enum" not in found and "{}" not in field.path:
        assert "maxLength" in found, "a text of a bounded length is wanted"
    if found.get("type") == "integer":
        assert "format" in found, "int32 or int64 is wanted"


def test_rules_say_something_in_every_case() -> None:
    for rule in rules():
        assert ("message" in rule.rule) != ("messageExpression" in rule.rule), rule.id


def test_the_kinds_have_what_their_users_expect() -> None:
    expected = {"InstancePool": "ipool", "InstancePoolNode": "ipnode", "WasmWorkload": "wasm"}
    for kind, short in expected.items():
        spec = definitions()[kind]["spec"]
        (version,) = spec["versions"]
        assert spec["group"] == "wasmpool.dev"
        assert version["name"] == "v1alpha1"
        assert spec["scope"] == "Namespaced"
        assert spec["names"]["shortNames"] == [short]
        assert spec["names"]["categories"] == ["wasmpool"]
        assert "status" in version["subresources"]


@pytest.mark.parametrize("name", FULL)
def test_an_object_with_every_field_survives_the_types(name: str) -> None:
    """What is read and written again says the same."""
    kind = TYPES[FULL[name]["kind"]]
    read = decode(kind, FULL[name])
    assert decode(kind, encode(read)) == read


def test_together_the_full_objects_have_every_field() -> None:
    given = {(manifest["kind"], path) for manifest in FULL.values() for path in paths(manifest)}
    missing = [field.id for field in ALL_FIELDS if field.path and (field.kind, field.path) not in given]
    assert missing == []


def paths(value: object, path: str = "") -> Iterator[str]:
    """Paths, in both ways that a dictionary may be meant."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            if path or name in {"spec", "status"}:
                yield from paths(inner, f"{path}.{name}" if path else name)
                yield from paths(inner, f"{path}{{}}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{path}[]")


def test_the_bounds_for_pools_in_files_are_those_of_the_schema() -> None:
    groups = ("spec.instanceLimits.", "spec.moduleLimits.", "spec.componentLimits.", "spec.runtime.")
    of_schema = {
        field.path.removeprefix("spec."): (field.schema["minimum"], field.schema["maximum"])
        for field in fields("InstancePool")
        if field.path.startswith(groups) and field.schema.get("type") == "integer"
    }
    assert of_schema == BOUNDS
