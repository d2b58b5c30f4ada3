"""The definitions as data: their schemas, walked field by field and rule by rule."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

Schema: TypeAlias = Mapping[str, Any]

DIRECTORY = Path(__file__).resolve().parents[2] / "crds" / "manifests"
MANIFESTS = tuple(sorted(DIRECTORY.glob("*.yaml")))


class Field(NamedTuple):
    """`path` as in spec.run.command.env[].name; items of lists end in [], values of maps in {}."""

    kind: str
    path: str
    schema: Schema

    @property
    def id(self) -> str:
        """Names it in a test's output."""
        return f"{self.kind}.{self.path}"


class Rule(NamedTuple):
    """One entry of x-kubernetes-validations."""

    kind: str
    path: str
    number: int
    rule: Mapping[str, str]

    @property
    def id(self) -> str:
        """Kind, path, and how many rules of that path stand before it."""
        return f"{self.kind}{'.' if self.path else ''}{self.path}#{self.number}"


@functools.cache
def definitions() -> Mapping[str, Any]:
    """The three CustomResourceDefinitions by kind."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in MANIFESTS]
    return {definition["spec"]["names"]["kind"]: definition for definition in found}


def schema(kind: str) -> Schema:
    """The schema of the only version."""
    (version,) = definitions()[kind]["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def fields(kind: str) -> Iterator[Field]:
    """Every field of spec and status, with what is in lists and maps; the kind itself has the empty path."""
    return _walk(kind, "", schema(kind))


def rules() -> Iterator[Rule]:
    """Every rule of all kinds."""
    for kind in definitions():
        for field in fields(kind):
            for number, rule in enumerate(field.schema.get("x-kubernetes-validations", ())):
                yield Rule(kind, field.path, number, rule)


def is_int_or_string(found: Schema) -> bool:
    """A Quantity or an IntOrString."""
    return bool(found.get("x-kubernetes-int-or-string"))


def is_opaque(found: Schema) -> bool:
    """Something of Kubernetes' own that is taken as it is."""
    return bool(found.get("x-kubernetes-preserve-unknown-fields"))


def _walk(kind: str, path: str, found: Schema) -> Iterator[Field]:
    yield Field(kind, path, found)
    for name, inner in found.get("properties", {}).items():
        if path or name not in {"apiVersion", "kind", "metadata"}:
            yield from _walk(kind, f"{path}.{name}" if path else name, inner)
    if "items" in found:
        yield from _walk(kind, f"{path}[]", found["items"])
    if "additionalProperties" in found:
        yield from _walk(kind, f"{path}{{}}", found["additionalProperties"])
