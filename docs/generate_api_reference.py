# ruff: noqa: INP001  -- a program of its own, not a package
"""Writes docs/api.md from the CRDs in crds/manifests: every field, its type, default, allowed values and meaning.

`python docs/generate_api_reference.py` writes; with `--check` it writes nothing and fails if the file is not current.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
MANIFESTS: Final = ROOT / "crds" / "manifests"
REFERENCE: Final = ROOT / "docs" / "api.md"
_KINDS_IN_ORDER: Final = ("InstancePool", "WasmWorkload", "InstancePoolNode")

Schema = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One row of a table. `path` is what a person writes: spec.instanceLimits.count, spec.tenancy.quotas[].slots."""

    path: str
    type: str
    required: bool
    default: str
    text: str


def _type_of(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind: str = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        values: Schema = schema["additionalProperties"]
        return f"map to {_type_of(values)}"
    return kind


def _literal(value: object) -> str:
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _allowed(schema: Schema) -> Iterator[str]:
    item = schema.get("items", {}) if schema.get("type") == "array" else schema
    if "enum" in item:
        yield "One of " + ", ".join(_literal(value) for value in item["enum"]) + "."
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"From {low} to {high}."
    elif low is not None:
        yield f"At least {low}."
    elif high is not None:
        yield f"At most {high}."
    for key, what in (("maxLength", "characters"), ("maxItems", "entries"), ("maxProperties", "entries")):
        if key in schema:
            yield f"At most {schema[key]} {what}."
    if "pattern" in item:
        # NB: a bar would end the table's cell, also inside code
        yield f"Matches `{item['pattern']}`.".replace("|", "\\|")
    if "x-kubernetes-list-map-keys" in schema:
        yield "Keyed by " + ", ".join(f"`{key}`" for key in schema["x-kubernetes-list-map-keys"]) + "."
    elif schema.get("x-kubernetes-list-type") == "atomic":
        yield "Replaced as a whole."
    for rule in (
        *schema.get("x-kubernetes-validations", ()),
        *(item.get("x-kubernetes-validations", ()) if item is not schema else ()),
    ):
        if "message" in rule:
            message: str = rule["message"]
            yield f"*Rule:* {message.rstrip('.')}."


def fields_of(path: str, schema: Schema, *, required: bool = False) -> Iterator[Field]:
    """`schema` and everything under it, in the order of the manifest."""
    text = " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")
    yield Field(
        path=path,
        type=_type_of(schema),
        required=required,
        default=_literal(schema["default"]) if "default" in schema else "",
        text=" ".join([text, *(part.replace("\n", " ") for part in _allowed(schema))]).strip(),
    )
    inner, prefix = schema, path
    while inner.get("type") == "array":
        inner, prefix = inner.get("items", {}), f"{prefix}[]"
    needed = set(inner.get("required", ()))
    for name, child in inner.get("properties", {}).items():
        yield from fields_of(f"{prefix}.{name}", child, required=name in needed)


def _kind_section(crd: dict[str, Any]) -> Iterator[str]:
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        schema: Schema = version["schema"]["openAPIV3Schema"]
        short = ", ".join(f"`{name}`" for name in names.get("shortNames", ()))
        yield f"## {names['kind']}"
        yield ""
        yield f"`apiVersion: {spec['group']}/{version['name']}`, {spec['scope'].lower()}, short name {short}."
        if "description" in schema:
            yield ""
            yield " ".join(str(schema["description"]).split())
        for rule in schema.get("x-kubernetes-validations", ()):
            if "message" in rule:
                yield ""
                yield f"*Rule:* {rule['message'].rstrip('.')}."
        selectable = [field["jsonPath"].lstrip(".") for field in version.get("selectableFields", ())]
        if selectable:
            yield ""
            yield "Field selectors: " + ", ".join(f"`{field}`" for field in selectable) + "."
        columns = version.get("additionalPrinterColumns", ())
        if columns:
            yield ""
            yield "Columns of `kubectl get`: " + ", ".join(_column(column) for column in columns) + "."
        for part in ("spec", "status"):
            if part in schema.get("properties", {}):
                yield ""
                yield f"### {names['kind']} {part}"
                yield ""
                yield from _table(list(fields_of(part, schema["properties"][part]))[1:])
        yield ""


def _column(column: dict[str, Any]) -> str:
    wide = " (with `-o wide`)" if column.get("priority", 0) else ""
    return f"{column['name']} `{column['jsonPath'].lstrip('.')}`{wide}".replace("|", "\\|")


def _table(fields: Sequence[Field]) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields:
        default = "**required**" if field.required and not field.default else field.default
        yield f"| `{field.path}` | {field.type} | {default} | {field.text} |"


def reference() -> str:
    """The whole document."""
    crds: list[dict[str, Any]] = []
    for manifest in sorted(MANIFESTS.glob("*.yaml")):
        crds.extend(document for document in yaml.safe_load_all(manifest.read_text()) if document)
    crds = [crd for crd in crds if crd.get("kind") == "CustomResourceDefinition"]
    crds.sort(key=lambda crd: _KINDS_IN_ORDER.index(crd["spec"]["names"]["kind"]))
    lines = [
        "<!-- Made by `make docs` from crds/manifests; a test holds that it is current. Do not edit. -->",
        "# API reference",
        "",
        "What the words mean is in [concepts](concepts.md).",
        "",
    ]
    for crd in crds:
        lines.extend(_kind_section(crd))
    return "\n".join(lines).rstrip("\n") + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python docs/generate_api_reference.py`."""
    parser = argparse.ArgumentParser(description="Write docs/api.md from the CRDs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if docs/api.md is not current")
    check: bool = parser.parse_args(arguments).check
    wanted = reference()
    if not check:
        REFERENCE.write_text(wanted)
        return 0
    if not REFERENCE.exists() or REFERENCE.read_text() != wanted:
        sys.stderr.write("docs/api.md is not what the CRDs say: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
