"""Covers: every bound in the schemas (minimum, maximum, enum, pattern, lengths, required), on a real API server.

The cases are made from the schemas: for each bound, an object with every field is changed to lie just outside. So a
bound that does not work, and a message that does not name the field, can't be added.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.crds.api import Api, refused
from tests.crds.objects import FULL, REMOVED, full, with_changes
from tests.crds.schemas import Field, definitions, fields, is_int_or_string


class Outside(NamedTuple):
    """`value` is just outside of the bound called `bound` of the field at `path`."""

    start: str
    path: str
    bound: str
    value: Any


def start_of(field: Field) -> str:
    """The full object that has the field."""
    if field.kind != "WasmWorkload":
        return field.kind.lower()
    return "wasmworkload-http" if ".http" in field.path or field.path.endswith(".image") else "wasmworkload-command"


def outside(field: Field) -> Iterator[Outside]:
    """A value outside of each bound."""
    start, found = start_of(field), field.schema
    if "{}" in field.path:
        if "pattern" in found:
            yield Outside(start, field.path.removesuffix("{}"), "pattern of values", {"k": "no\n="})
        return
    path = field.path.replace("[]", "[0]")
    for name, index in (
        ("valueFrom.configMapKeyRef", 1),
        ("valueFrom.secretKeyRef", 2),
        ("valueFrom.fieldRef", 1),
        ("valueFrom.resourceFieldRef", 2),
        ("secret", 1),
    ):
        path = path.replace(f"[0].{name}", f"[{index}].{name}")  # the variable, or the files, of full/ that has it
    if "minimum" in found:
        yield Outside(start, path, "minimum", found["minimum"] - 1)
    if "maximum" in found:
        yield Outside(start, path, "maximum", found["maximum"] + 1)
    if "enum" in found:
        yield Outside(start, path, "enum", "Nonsense")
    if "pattern" in found:
        yield Outside(start, path, "pattern", "no\n=")
    if "maxLength" in found and found["maxLength"] < 100_000:
        yield Outside(start, path, "maxLength", "a" * (found["maxLength"] + 1))
    if found.get("minLength"):
        yield Outside(start, path, "minLength", "")
    if is_int_or_string(found):
        yield Outside(start, path, "type", [])
    elif found.get("type") in {"integer", "boolean", "object", "array"}:
        yield Outside(start, path, "type", "text")
    elif found.get("type") == "string":
        yield Outside(start, path, "type", 1)
    if "maxItems" in found:
        item = "x" if found["items"].get("type") == "string" else {}
        yield Outside(start, path, "maxItems", [item] * (found["maxItems"] + 1))
    if "maxProperties" in found:
        yield Outside(start, path, "maxProperties", {f"k{n}": "v" for n in range(found["maxProperties"] + 1)})
    for name in found.get("required", ()):
        if path:
            yield Outside(start, f"{path}.{name}", "required", REMOVED)


CASES = [
    case for kind in definitions() for field in fields(kind) if field.path.startswith("spec") for case in outside(field)
]


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.start}.{case.path}-{case.bound}")
def test_what_is_outside_of_a_bound_is_refused_by_name(api: Api, case: Outside) -> None:
    assert case.start in FULL
    answer = refused(api.create(with_changes(full(case.start), {case.path: case.value}), dry_run=True))
    assert answer.code in {400, 422}
    named = [place for place, _ in answer.causes] or [answer.message]
    assert any(case.path in place for place in named), answer
